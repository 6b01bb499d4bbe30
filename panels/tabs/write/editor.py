"""What the Write tab remembers of one visitor: the text with its written tokens, and the texts before it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from panels.generate import Draft, Token
from storage.text import replace_surrogates

HISTORY = 50
"""How many steps back Undo can go."""
CANVASES = 8
"""How many of them bring their tokens back."""
LIMIT = 1000
"""Tokens that stay on the canvas when the writing goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A text, and the part of it that the model wrote: behind `head`, in `tokens`; what follows them came by hand."""

    text: str = ""
    head: str = ""  # before the first token; the whole text where there is none
    tokens: tuple[Token, ...] = ()
    origin: str | None = None  # the text that the last go began from; None: the model wrote nothing here

    def cut(self, text: str) -> Page:
        """The page with its text changed by hand, and the tokens as far as they still stand in it."""
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
            return Page(text=text, head=text, origin=origin)
        return Page(text=text, head=self.head, tokens=self.tokens[:count], origin=origin)

    @property
    def written(self) -> str:
        """The text up to the last token."""
        return self.before(len(self.tokens))

    def before(self, index: int) -> str:
        """The text in front of a token."""
        return self.head + "".join(token.text for token in self.tokens[:index])

    def end_with(self, token: Token, index: int) -> Page:
        """The page with `token` in the place of the token at `index` and of all that follows."""
        text = self.before(index) + token.text
        return Page(text=text, head=self.head, tokens=(*self.tokens[:index], token), origin=text)

    def go_on(self) -> Page:
        """The page at the beginning of a go: its tokens, no more than `LIMIT`, end where the text does."""
        if self.written != self.text:
            return Page(text=self.text, head=self.text, origin=self.text)
        dropped = max(0, len(self.tokens) - LIMIT)
        while dropped < len(self.tokens) and self.tokens[dropped].is_inside:
            dropped += 1
        return dataclasses.replace(self, head=self.before(dropped), tokens=self.tokens[dropped:], origin=self.text)

    def grow(self, draft: Draft) -> Page:
        """The page as the next draft of its go leaves it."""
        tokens = (*self.tokens, *draft.tokens)
        if draft.rest and tokens:
            tokens = (*tokens[:-1], dataclasses.replace(tokens[-1], text=tokens[-1].text + draft.rest))
        return dataclasses.replace(self, text=draft.text, tokens=tokens)


@dataclass(kw_only=True, slots=True)
class Desk:
    """One visitor's, between and during the events."""

    page: Page = Page()  # the text as it was last known here; people may have changed it since
    past: list[Page] = field(default_factory=list)  # what Undo goes back to, the newest last
    draft: Draft | None = None  # where the present go stands, or how the last one ended
    stage: Literal["idle", "waiting", "writing", "over"] = "idle"  # of the request: none, in line, at work, not settled
    stop: bool = False  # Stop was pressed
    trouble: str | None = None  # what was wrong with the last request
    rejected: str | None = None  # the text that Retry writes anew

    def begin(self, text: str) -> bool:
        """Get ready to continue `text`; False while another go is not over."""
        page = self.page.cut(replace_surrogates(text))
        return self._start(page, page)

    def retry(self, text: str) -> bool:
        """Get ready to write the last go of `text` anew; False where there is none."""
        page = self.page.cut(replace_surrogates(text))
        if page.origin is None or not self._start(page, page.cut(page.origin)):
            return False
        self.rejected = page.text
        return True

    def branch(self, text: str, index: int, token: Token) -> bool:
        """Get ready to go on from `token` in the place of the token at `index`; False where the text in front of that
        is no longer the page's."""
        page = self.page.cut(replace_surrogates(text))
        if not 0 <= index < len(self.page.tokens) or not page.text.startswith(self.page.before(index)):
            return False
        return self._start(page, self.page.end_with(token, index))

    def _start(self, present: Page, page: Page) -> bool:
        if self.stage != "idle":
            return False
        self.remember(present)
        self.page, self.draft, self.rejected = page.go_on(), None, None
        self.stage, self.stop, self.trouble = "waiting", False, None
        return True

    def show(self, draft: Draft) -> None:
        """Take a draft of the present go."""
        if not draft.ahead:
            self.draft, self.page = draft, self.page.grow(draft)

    def settle(self) -> bool:
        """The go is over, in whatever way; whether anything was written."""
        self.stage = "idle"
        if self.draft is not None:
            return True
        self.page = self.past.pop()
        return False

    def back(self) -> bool:
        """Undo; False where there is nothing to go back to."""
        if self.stage != "idle" or not self.past:
            return False
        self.page, self.draft = self.past.pop(), None
        return True

    def turn(self, text: str, beginning: str) -> bool:
        """Put `beginning` in the place of `text`; False while the model writes."""
        if self.stage != "idle":
            return False
        if text:
            self.remember(self.page.cut(replace_surrogates(text)))
        self.page, self.draft = Page(text=beginning, head=beginning), None
        return True

    def put(self, text: str, longer: str) -> None:
        """Put `longer` in the place of `text`, which it begins with."""
        page = self.page.cut(replace_surrogates(text))
        self.remember(page)
        self.page, self.draft = page.cut(longer), None

    def remember(self, page: Page) -> None:
        """Let Undo come back to `page`."""
        bare = [dataclasses.replace(old, head=old.text, tokens=()) for old in self.past[: 1 - CANVASES]]
        self.past = [*bare, *self.past[1 - CANVASES :], page][-HISTORY:]
