"""Model cards as the page shows them: Markdown of others, without HTML and without pictures from elsewhere.

markdown-it-py renders a card, and HTML and pictures in it become text; gr.Markdown, which sanitizes once more, gets the
result, and the code fences as Markdown so that it highlights them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from storage import model_card

LIMIT = 200_000
"""Characters of a card that are shown."""
# An unclosed comment ends with the text, as in browsers; searching its end again from each "<!--" takes quadratic time.
_TAG = re.compile(r"<!--(?:-?>|.*?(?:-->|\Z))|<[^<>]*>", re.DOTALL)


def read_card(folder: Path | None) -> str | None:
    """The card of a model folder, for gr.Markdown; None where there is none, or it cannot be read."""
    try:
        _, body = model_card.read_card(folder) if folder else ({}, "")
    except OSError:
        return None
    return harmless(body).strip() or None


def harmless(text: str) -> str:
    """Markdown whose only HTML is what markdown-it-py makes of plain Markdown; other tags are left out or text."""
    parts: list[str] = []
    block: list[Token] = []
    parser = _parser()
    for token in [*parser.parse(text[:LIMIT]), None]:
        if token is not None and not (token.type == "fence" and token.level == 0):
            block.append(token)
            continue
        html = parser.renderer.render(block, parser.options, {})
        parts.append(re.sub(r"\n(?=\n)", "&#10;", html))  # to gr.Markdown, a blank line ends a block of HTML
        block = []
        if token is not None:
            longest = max((len(run) for run in re.findall(r"`+", token.content)), default=0)
            language = re.sub(r"\W.*|mermaid", "", token.info.strip(), flags=re.IGNORECASE | re.DOTALL)  # no diagrams
            fence = "`" * max(3, longest + 1)
            parts.append(f"{fence}{language or 'text'}\n{token.content.removesuffix(chr(10))}\n{fence}\n")
    return "\n".join(filter(None, parts))


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    parser.add_render_rule("html_block", _without_tags)
    parser.add_render_rule("html_inline", _without_tags)
    parser.add_render_rule("image", _link)
    return parser


def _without_tags(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    text = escapeHtml(_TAG.sub(" ", tokens[index].content).strip())
    return f"<p>{text}</p>\n" if text and tokens[index].block else text


def _link(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    address = str(token.attrs.get("src", ""))
    description = escapeHtml(renderer.renderInlineAsText(token.children, options, env).strip() or "picture")
    if address.startswith(("https://", "http://")):
        return f'<a href="{escapeHtml(address)}">{description}</a>'
    return f"(picture: {description})"
