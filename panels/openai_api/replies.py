"""OpenAI's JSON: the answer to a request, whole or in chunks of a stream, and errors."""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

from panels.openai_api.choices import LOWEST, Piece, Scored, TextToken
from panels.openai_api.requests import TextRequest

FINISH = {"length": "length", "deadline": "length", "stop_token": "stop", "stop_text": "stop", "stopped": "stop"}
"""OpenAI's word for each ending of a text."""


@dataclass(kw_only=True, slots=True)
class Reply:
    """The answer to one request.

    Beside OpenAI's fields it has `warnings` (what was ignored, not read or cut short; only where there is something to
    say), and in each choice the `seed` that draws the same text again."""

    asked: TextRequest
    model: str
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    prompt_tokens: int = 0
    new_tokens: int = 0
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.asked.ignored:
            self.warnings.append(f"Ignored, as this server does not know it: {', '.join(self.asked.ignored)}.")

    def whole(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """The answer in one piece."""
        texts: dict[int, list[Piece]] = {}
        for piece in pieces:
            self._count(piece)
            texts.setdefault(piece.index, []).append(piece)
        choices = []
        for index, parts in texts.items():
            text, tokens = "".join(part.text for part in parts), [token for part in parts for token in part.tokens]
            content = {"message": {"role": "assistant", "content": text}} if self.asked.is_chat else {"text": text}
            choices.append(self._choice(index, content, tokens, 0, parts[-1]))
        return self._envelope("chat.completion", choices) | {"usage": self._usage()} | self._said()

    def chunks(self, pieces: Iterable[Piece]) -> Generator[dict[str, Any] | str, None, None]:
        """The answer as it grows, a chunk for each token; a line of text while a request waits, for a comment."""
        written: dict[int, int] = {}  # characters of each text so far
        for piece in pieces:
            self._count(piece)
            if piece.ahead:
                yield f"waiting: {piece.ahead} ahead"
                continue
            if self.asked.is_chat and piece.index not in written:
                yield self._chunk(piece.index, {"delta": {"role": "assistant", "content": ""}}, [], 0)
            length = written.setdefault(piece.index, 0)
            for token in piece.tokens:
                if token.text or token.scored:
                    yield self._chunk(piece.index, self._new(token.text), [token], length)
                length += len(token.text)
            if piece.rest:
                yield self._chunk(piece.index, self._new(piece.rest), [], length)
            written[piece.index] = length + len(piece.rest)
            if piece.ending:
                last = {"delta": {}} if self.asked.is_chat else {"text": ""}
                yield self._chunk(piece.index, last, [], written[piece.index], piece) | self._said()
        if self.asked.with_usage:
            yield self._envelope("chat.completion.chunk", []) | {"usage": self._usage()}

    def _chunk(
        self, index: int, content: dict[str, Any], tokens: list[TextToken], start: int, last: Piece | None = None
    ) -> dict[str, Any]:
        usage = {"usage": None} if self.asked.with_usage else {}
        return self._envelope("chat.completion.chunk", [self._choice(index, content, tokens, start, last)]) | usage

    def _choice(
        self, index: int, content: dict[str, Any], tokens: list[TextToken], start: int, last: Piece | None
    ) -> dict[str, Any]:
        wanted = self.asked.logprobs is not None and bool(tokens)
        logprobs = (chat_logprobs(tokens) if self.asked.is_chat else text_logprobs(tokens, start)) if wanted else None
        ending = FINISH[last.ending] if last and last.ending else None
        seed = {"seed": last.seed} if last and last.seed is not None else {}
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": ending, **seed}

    def _new(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}} if self.asked.is_chat else {"text": text}

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chat = self.asked.is_chat
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{self.id}",
            "object": kind if chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def _count(self, piece: Piece) -> None:
        self.prompt_tokens += piece.prompt_tokens
        self.new_tokens += piece.new_tokens
        self.warnings += [warning for warning in piece.warnings if warning not in self.warnings]

    def _usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.new_tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.new_tokens, "total_tokens": total}

    def _said(self) -> dict[str, Any]:
        return {"warnings": [*self.warnings]} if self.warnings else {}


def text_logprobs(tokens: list[TextToken], start: int) -> dict[str, Any]:
    """The log probabilities of a completion. `tokens` are the characters that each token completed, so that they add up
    to the text; `start` is where the first of them begins in it. The token itself is among its alternatives."""
    offsets = [start]
    for token in tokens[:-1]:
        offsets.append(offsets[-1] + len(token.text))
    scored = [token.scored for token in tokens]
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [own and own.logprob for own in scored],
        "top_logprobs": [_alternatives(token) for token in tokens],
        "text_offset": offsets,
    }


def _alternatives(token: TextToken) -> dict[str, float] | None:
    own = token.scored
    if own is None or own.logprob is None:
        return None
    named: dict[str, float] = {}
    for each in (*token.alternatives, own):
        named[each.name] = max(named.get(each.name, LOWEST), LOWEST if each.logprob is None else each.logprob)
    return named


def chat_logprobs(tokens: list[TextToken]) -> dict[str, Any]:
    """The log probabilities of an answer in a chat."""
    return {
        "content": [
            {**_entry(token.scored), "top_logprobs": [_entry(each) for each in token.alternatives]}
            for token in tokens
            if token.scored
        ]
    }


def _entry(scored: Scored) -> dict[str, Any]:
    content = None if scored.content is None else list(scored.content)
    return {"token": scored.name, "logprob": LOWEST if scored.logprob is None else scored.logprob, "bytes": content}


def error_body(message: str, kind: str, *, name: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error: what is wrong, its kind, the field, and a word for programs."""
    return {"error": {"message": message, "type": kind, "param": name, "code": code}}
