"""The state of one visitor's editor: the document with its generated tokens, and the undo history."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from panels.generate import Draft, Token
from storage.text import replace_surrogates

HISTORY = 50
"""Steps that Undo can go back."""
TOKEN_HISTORY = 8
"""Steps of it that bring the tokens back too."""
LIMIT = 1000
"""Tokens that stay in the token view when a text is continued."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text, and the part of it that the model wrote: after `head`, in `tokens`; text after them was typed."""

    text: str = ""
    head: str = ""  # before the first token; the whole text where there is none
    tokens: tuple[Token, ...] = ()
    origin: str | None = None  # the text that the last request continued; None: the model wrote nothing here

    def cut(self, text: str) -> Document:
        """The document with its text changed by the user, and the tokens that it still holds."""
        if text == self.text:
            return self
        origin = self.origin if self.origin is not None and text.startswith(self.origin) else None
        count, end = 0, len(self.head)
        if text.startswith(self.head):
            while count < len(self.tokens) and text.startswith(self.tokens[count].text, end):
                end += len(self.tokens[count].text)
                count += 1
        while 0 < count < len(self.tokens) and self.tokens[count].is_inside:
            count -= 1
        if not count:
            return Document(text=text, head=text, origin=origin)
        return Document(text=text, head=self.head, tokens=self.tokens[:count], origin=origin)

    @property
    def written(self) -> str:
        """The text up to the last token."""
        return self.before(len(self.tokens))

    def before(self, index: int) -> str:
        """The text in front of a token."""
        return self.head + "".join(token.text for token in self.tokens[:index])

    def end_with(self, token: Token, index: int) -> Document:
        """The document with `token` in the place of the token at `index` and of all that follows."""
        text = self.before(index) + token.text
        return Document(text=text, head=self.head, tokens=(*self.tokens[:index], token), origin=text)

    def begin_generation(self) -> Document:
        """The document at the start of a request: its tokens, no more than `LIMIT`, end where the text does."""
        if self.written != self.text:
            return Document(text=self.text, head=self.text, origin=self.text)
        dropped = max(0, len(self.tokens) - LIMIT)
        while dropped < len(self.tokens) and self.tokens[dropped].is_inside:
            dropped += 1
        return dataclasses.replace(self, head=self.before(dropped), tokens=self.tokens[dropped:], origin=self.text)

    def grow(self, draft: Draft) -> Document:
        """The document after the next draft."""
        tokens = (*self.tokens, *draft.tokens)
        if draft.rest and tokens:
            tokens = (*tokens[:-1], dataclasses.replace(tokens[-1], text=tokens[-1].text + draft.rest))
        return dataclasses.replace(self, text=draft.text, tokens=tokens)


@dataclass(kw_only=True, slots=True)
class EditorState:
    """One visitor's document, history and present request."""

    document: Document = Document()  # the text as it was last known here; people may have changed it since
    past: list[Document] = field(default_factory=list)  # what Undo goes back to, the newest last
    draft: Draft | None = None  # the state of the present request, or the end of the last one
    stage: Literal["idle", "waiting", "writing", "over"] = (
        "idle"  # of the request: none, queued, computing, not settled
    )
    stop: bool = False  # Stop was pressed
    trouble: str | None = None  # what was wrong with the last request
    rejected: str | None = None  # the text that Retry replaces

    def begin(self, text: str) -> bool:
        """Get ready to continue `text`; False while another request is not over."""
        document = self.document.cut(replace_surrogates(text))
        return self._start(document, document)

    def retry(self, text: str) -> bool:
        """Get ready to generate the last continuation of `text` again; False where there is none."""
        document = self.document.cut(replace_surrogates(text))
        if document.origin is None or not self._start(document, document.cut(document.origin)):
            return False
        self.rejected = document.text
        return True

    def branch(self, text: str, index: int, token: Token) -> bool:
        """Get ready to continue from `token` in the place of the token at `index`; False where the text before it is
        no longer the document's."""
        document = self.document.cut(replace_surrogates(text))
        if not 0 <= index < len(self.document.tokens) or not document.text.startswith(self.document.before(index)):
            return False
        return self._start(document, self.document.end_with(token, index))

    def _start(self, present: Document, document: Document) -> bool:
        if self.stage != "idle":
            return False
        self.remember(present)
        self.document, self.draft, self.rejected = document.begin_generation(), None, None
        self.stage, self.stop, self.trouble = "waiting", False, None
        return True

    def show(self, draft: Draft) -> None:
        """Take a draft of the present request."""
        if not draft.ahead:
            self.draft, self.document = draft, self.document.grow(draft)

    def settle(self) -> bool:
        """The request is over, in whatever way; whether anything was written."""
        self.stage = "idle"
        if self.draft is not None:
            return True
        self.document = self.past.pop()
        return False

    def back(self) -> bool:
        """Undo; False where there is nothing to go back to."""
        if self.stage != "idle" or not self.past:
            return False
        self.document, self.draft = self.past.pop(), None
        return True

    def turn(self, text: str, beginning: str) -> bool:
        """Put `beginning` in the place of `text`; False while the model writes."""
        if self.stage != "idle":
            return False
        if text:
            self.remember(self.document.cut(replace_surrogates(text)))
        self.document, self.draft = Document(text=beginning, head=beginning), None
        return True

    def put(self, text: str, longer: str) -> None:
        """Put `longer` in the place of `text`, which it begins with."""
        document = self.document.cut(replace_surrogates(text))
        self.remember(document)
        self.document, self.draft = document.cut(longer), None

    def remember(self, document: Document) -> None:
        """Let Undo come back to `document`."""
        bare = [dataclasses.replace(old, head=old.text, tokens=()) for old in self.past[: 1 - TOKEN_HISTORY]]
        self.past = [*bare, *self.past[1 - TOKEN_HISTORY :], document][-HISTORY:]
