"""Model cards, made fit for the page: without front matter, without HTML, without pictures from elsewhere.

A card is text that others wrote. It is shown by Gradio's Markdown, which takes scripts out of what it makes; here goes
what that would leave: HTML, pictures, diagrams that load things, and half a front matter."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

LIMIT = 200_000
"""Characters of a card that are shown."""

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`\n]*)")
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LAYOUT = re.compile(
    r"</?(?:div|p|span|center|details|summary|a|b|i|em|strong|sub|sup|hr|img|picture|source)\b[^<>]*>", re.I
)
LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
PICTURE = re.compile(r"!\[([^\]]*)\](?:\(([^()\s]*)[^()]*\)|\[[^\]]*\])?")
TAG = re.compile(r"<(?=[A-Za-z/!?])(?!https?://[^\s<>\"']*>)")


def read_card(folder: Path | None) -> str | None:
    """The card of a model folder, fit for the page; None where there is none, or it cannot be read."""
    if folder is None:
        return None
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    card = harmless(without_front_matter(text))
    return card.strip() or None


def without_front_matter(text: str) -> str:
    """A card from its first line for people on; a front matter without its end goes up to the first empty line or
    heading."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not re.match(r"---[ \t]*(\n|\Z)", text):
        return text
    whole = re.match(r"---[ \t]*\n(?:.*\n)*?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", text)
    broken = re.match(r"---[ \t]*(?:\n|\Z)(?:(?!#+ |[ \t]*\n).*(?:\n|\Z))*", text)
    heading = re.search(r"^#+ ", text, re.MULTILINE)
    if whole and not (heading and heading.start() < whole.end()):
        return text[whole.end() :]
    return text[broken.end() :] if broken else text


def harmless(text: str) -> str:
    """Markdown with its HTML as text or, where it only lays out, left out; pictures as links or their descriptions.

    Code stays as it is, except that no fence asks for a diagram."""
    text = text[:LIMIT]
    done: list[str] = []
    prose: list[str] = []
    fence = ""
    for line in text.splitlines(keepends=True):
        opened = FENCE.match(line)
        if fence:
            done.append(line)
            if opened and opened[1].startswith(fence) and not opened[2].strip(" \t\n~"):  # what the page's parser takes
                fence = ""
        elif opened:
            done += [_prose("".join(prose)), re.sub("mermaid", "text", line, flags=re.IGNORECASE)]
            prose, fence = [], opened[1]
        else:
            prose.append(line)
    return "".join([*done, _prose("".join(prose))])


def _prose(text: str) -> str:
    """What stands outside of fences: its code spans as they are, the rest made harmless."""
    text = COMMENT.sub("", text)
    return _outside(CODE_SPAN, text, _plain)


def _plain(text: str) -> str:
    text = LAYOUT.sub("", LINE_BREAK.sub("  \n", text))
    return TAG.sub("&lt;", PICTURE.sub(_link, text).replace("![", "!\\["))


def _link(match: re.Match[str]) -> str:
    description, address = match[1].strip() or "picture", match[2] or ""
    return f"[{description}]({address})" if address.startswith(("https://", "http://")) else f"(picture: {description})"


def _outside(pattern: re.Pattern[str], text: str, change: Callable[[str], str]) -> str:
    """`change` applied to all that `pattern` does not match."""
    found, end = [], 0
    for match in pattern.finditer(text):
        found += [change(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*found, change(text[end:])])
