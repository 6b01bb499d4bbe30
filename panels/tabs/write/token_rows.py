"""What the page is told of each generated token: its probabilities and its alternatives, as rows of JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from panels.generate import Token
from panels.tabs.write.token_texts import NEIGHBOURS, Texts

if TYPE_CHECKING:
    from panels.models import LoadedModel

ALTERNATIVES = 10
"""Tokens that could have come, listed for each that did."""


class TokenRows:
    """Rows of the tokens that a model writes after `prompt`, in the order in which it writes them.

    A piece is an entry of the vocabulary as the page needs it: id, label, the text that it would add here, and why it
    cannot be put into the text ("" where it can). Rows name pieces by their number, so that each is sent once."""

    def __init__(self, loaded: LoadedModel, prompt: str) -> None:
        self.loaded = loaded
        self.texts = Texts(loaded, prompt)
        self.numbers: dict[tuple[int, str, str], int] = {}
        self.written: list[Token] = []

    def add(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """`pieces` that are new, each [id, label, text, obstacle], and `tokens`: for each its text, piece, model
        probability, probability after the sampler, tokens kept, 1 where it began inside a character, and its
        alternatives one after the other: piece, model probability, probability after the sampler."""
        from tokenization.spans import label

        known = len(self.numbers)
        rows = []
        for token in tokens:
            ids = [token.token_id, *(each.token_id for each in token.alternatives)]
            found = self.texts.of(self.written, ids, is_inside=token.is_inside)
            numbers = [
                self.numbers.setdefault((token_id, *text_and_obstacle), len(self.numbers))
                for token_id, text_and_obstacle in zip(ids, found, strict=True)
            ]
            alternatives: list[Any] = []
            for number, each in zip(numbers[1:], token.alternatives, strict=True):
                alternatives += [number, rounded(each.model_probability), rounded(each.probability)]
            rows.append(
                [
                    token.text,
                    numbers[0],
                    rounded(token.model_probability),
                    rounded(token.probability),
                    token.kept,
                    int(token.is_inside),
                    alternatives,
                ]
            )
            self.written = [*self.written[1 - NEIGHBOURS :], token]
        new = list(self.numbers)[known:]
        pieces = [[token_id, label(self.loaded.tokenizer, token_id), text, why] for token_id, text, why in new]
        return {"pieces": pieces, "tokens": rows}


def rounded(probability: float) -> float:
    """Three digits, which is more than anybody sees."""
    return float(f"{probability:.3g}")
