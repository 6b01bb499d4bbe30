"""HTML of the token view: generated tokens shaded by their surprisal, and the alternatives of each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from panels.generate import Token
from panels.tabs.write.next_token import NO_TEXT, PART, obstacle
from panels.templates import render
from storage.text import replace_surrogates

if TYPE_CHECKING:
    from modeling.generation import Alternative
    from panels.models import LoadedModel

ALTERNATIVES = 10
"""Tokens that could have come, listed for each that did."""
STEPS = (1.0, 3.0, 5.0, 8.0)
"""Bits of surprisal from which a token is shaded darker."""
HEAD = 160
"""Characters of the text in front of the first token that stand in the token view; its tokens are seen after them."""
NEIGHBOURS = 8
"""Tokens in front of an alternative that may decide on its text."""

LEGEND = """
<div class="legend"><h3>Token canvas</h3>
<p>Surprise in bits
{% for step in steps %}<span class="sample s{{ loop.index0 }}">{{ step }}</span>{% endfor %}</p>
<p class="hint">Point at a token, tap it, or walk with the arrow keys: what else could have come, and a branch from
there.</p></div>
"""
TEXT_BEFORE = '<span class="head">{{ text }}</span>'
TOKENS = """
{% for token in tokens %}
<span class="token s{{ token.step }}{{ ' chosen' if token.chosen }}" role="button" tabindex="-1">{{ token.text }}</span>
{%- endfor %}
"""


def render_token_view(head: str, tokens: Sequence[Token]) -> str:
    """The tokens behind `head`; more tokens only append to it. Nothing where there are none."""
    return render_head(head) + render_tokens(tokens) if tokens else ""


def render_head(head: str) -> str:
    """What stands in the token view in front of its first token."""
    between = [f"{low:g}\u2013{high:g}" for low, high in pairwise(STEPS)]
    bounds = [f"under {STEPS[0]:g}", *between, f"{STEPS[-1]:g} and more"]
    end = head[-HEAD:] if len(head) <= HEAD else "\u2026" + head[-HEAD:]
    return render(LEGEND, steps=bounds) + render(TEXT_BEFORE, text=end)


def render_tokens(tokens: Sequence[Token]) -> str:
    """The tokens alone, to be appended."""
    shown = [{"text": shown_text(token), "step": step_of(token), "chosen": token.is_chosen} for token in tokens]
    return render(TOKENS, tokens=shown).replace("\n<span", "<span")


def shown_text(token: Token) -> str:
    """A token as it stands in the token view: its text, with signs at the end of a line, for what is white space
    alone, and for what is no character."""
    text = token.text
    if not text.strip():
        from tokenization.spans import visible_bytes

        text = visible_bytes(text.encode()) or "\u27e8\u27e9"
        return text.replace("\u21b5", "\u21b5\n")
    return text.replace("\n", "\u21b5\n")


def step_of(token: Token) -> int:
    """How darkly a token is shaded, 0 to 4."""
    return sum(token.surprisal >= step for step in STEPS)


def token_data(loaded: LoadedModel, head: str, tokens: Sequence[Token]) -> str:
    """What the page shows of each token, as JSON: `vocabulary` (tokens of the model), `labels`, `obstacles`, `start`
    (of the first token in the text, in UTF-16 units), and `tokens`, each a list of text, label, model probability,
    probability after the sampler, tokens kept, and alternatives: label, the two probabilities, obstacle."""
    from tokenization.spans import label

    texts = Texts(loaded, head)
    labels: dict[str, int] = {}
    reasons: dict[str, int] = {"": 0}

    @cache
    def label_of(token_id: int) -> int:
        return labels.setdefault(label(loaded.tokenizer, token_id), len(labels))

    entries: list[list[Any]] = []
    for index, token in enumerate(tokens):
        entries.append(
            [
                token.text,
                label_of(token.token_id),
                rounded(token.model_probability),
                rounded(token.probability),
                token.kept,
                [
                    [
                        label_of(each.token_id),
                        rounded(each.model_probability),
                        rounded(each.probability),
                        reasons.setdefault(why, len(reasons)),
                        int(each.token_id == token.token_id),
                    ]
                    for each, (_, why) in zip(token.alternatives, texts.of(tokens, index), strict=True)
                ],
            ]
        )
    data = {
        "vocabulary": loaded.model.config.get_text_config(decoder=True).vocab_size,
        "start": len(head.encode("utf-16-le", "surrogatepass")) // 2,
        "labels": list(labels),
        "obstacles": list(reasons),
        "tokens": entries,
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def rounded(probability: float) -> float:
    """Four digits, which is more than anybody sees."""
    return float(f"{probability:.4g}")


def take(loaded: LoadedModel, head: str, tokens: Sequence[Token], index: int, choice: int) -> Token:
    """The alternative `choice` of the token at `index`, as a token that the user has chosen.

    Raises ValueError where there is no such alternative, or it cannot be put into the text."""
    if not 0 <= index < len(tokens) or not 0 <= choice < len(tokens[index].alternatives):
        raise ValueError("These tokens are not the text's any more. Nothing was written.")
    text, why = Texts(loaded, head).of(tokens, index)[choice]
    if why:
        raise ValueError(f"This token cannot be chosen: {why}.")
    chosen = tokens[index].alternatives[choice]
    return dataclasses.replace(
        tokens[index],
        token_id=chosen.token_id,
        text=text,
        model_probability=chosen.model_probability,
        probability=chosen.probability,
        is_chosen=True,
    )


class Texts:
    """What the alternatives of tokens behind `head` would put into the text."""

    def __init__(self, loaded: LoadedModel, head: str) -> None:
        from tokenization import StreamingDecoder, plain_ids

        self.loaded = loaded
        self.before = plain_ids(loaded.tokenizer, head[-HEAD:])
        self.decoder = StreamingDecoder(loaded.tokenizer)
        self.known: dict[int, tuple[str, str]] = {}

    def of(self, tokens: Sequence[Token], index: int) -> list[tuple[str, str]]:
        """Text and obstacle of each alternative of the token at `index`."""
        if tokens[index].is_inside:
            return [("", PART)] * len(tokens[index].alternatives)
        if not self.decoder.bytewise:  # where a token's text depends on the one in front of it
            self.known.clear()
            before = [token.token_id for token in tokens[max(0, index - NEIGHBOURS) : index]]
            self.decoder.follow([*self.before, *before][-NEIGHBOURS:])
        return [self._of(each) for each in tokens[index].alternatives]

    def _of(self, alternative: Alternative) -> tuple[str, str]:
        if alternative.token_id not in self.known:
            self.known[alternative.token_id] = self._look(alternative.token_id)
        return self.known[alternative.token_id]

    def _look(self, token_id: int) -> tuple[str, str]:
        if why := obstacle(self.loaded, token_id):
            return "", why
        text = self.decoder.peek(token_id)
        if text is None or "\ufffd" in (text := replace_surrogates(text)):
            return "", PART
        return (text, "") if text else ("", NO_TEXT)
