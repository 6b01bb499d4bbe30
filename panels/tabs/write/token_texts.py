"""What tokens would put into a text, and which of them cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from storage.text import replace_surrogates

if TYPE_CHECKING:
    from panels.generate import Token
    from panels.models import LoadedModel

BEFORE = 160
"""Characters at the end of a text that may decide on the text of the tokens after it."""
NEIGHBOURS = 8
"""Tokens in front of a token that may decide on its text."""
ENDS, PART, NO_TEXT = "ends the text", "part of a character", "no text"
"""Why a token cannot be put into a text."""


def obstacle(loaded: LoadedModel, token_id: int) -> str:
    """Why a token cannot be put into a text: ENDS, PART or NO_TEXT; "" where it can."""
    from tokenization.spans import token_bytes

    if token_id in loaded.stop_token_ids:
        return ENDS
    content = token_bytes(loaded.tokenizer, token_id)
    if content is None:
        return NO_TEXT
    try:
        content.decode()
    except UnicodeDecodeError:
        return PART
    return ""


class Texts:
    """What tokens would put into the text behind `prompt` and the tokens that follow it."""

    def __init__(self, loaded: LoadedModel, prompt: str) -> None:
        from tokenization import StreamingDecoder, plain_ids

        self.loaded = loaded
        self.before = plain_ids(loaded.tokenizer, prompt[-BEFORE:])
        self.decoder = StreamingDecoder(loaded.tokenizer)
        self.known: dict[int, tuple[str, str]] = {}

    def of(self, written: Sequence[Token], ids: Sequence[int], *, is_inside: bool = False) -> list[tuple[str, str]]:
        """Text and obstacle of each of `ids` as the token after `written`, or after the last of them that count;
        `is_inside`: the text ends inside a character."""
        if is_inside:
            return [("", PART)] * len(ids)
        if not self.decoder.bytewise:  # where a token's text depends on the one in front of it
            self.known.clear()
            self.decoder.follow([*self.before, *(token.token_id for token in written)][-NEIGHBOURS:])
        return [self._of(token_id) for token_id in ids]

    def _of(self, token_id: int) -> tuple[str, str]:
        if token_id not in self.known:
            self.known[token_id] = self._look(token_id)
        return self.known[token_id]

    def _look(self, token_id: int) -> tuple[str, str]:
        if why := obstacle(self.loaded, token_id):
            return "", why
        text = self.decoder.peek(token_id)
        if text is None or "\ufffd" in (text := replace_surrogates(text)):
            return "", PART
        return (text, "") if text else ("", NO_TEXT)
