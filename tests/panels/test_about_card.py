"""Model cards: nothing of them runs, and nothing is loaded for them."""

import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from panels.tabs.about.card import LIMIT, harmless, read_card

PLAIN = {"p", "a", "em", "strong", "code", "pre", "ul", "ol", "li", "blockquote", "br", "hr", "table", "thead", "tbody"}
ALLOWED = PLAIN | {"tr", "th", "td", *(f"h{level}" for level in range(1, 7))}


class Checker(HTMLParser):
    """Collects tags and attributes, and what is no tag, comment or text."""

    def __init__(self, card: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.declarations: list[str] = []
        fence = re.compile(r"^(`{3,})\w*\n.*?^\1$", re.DOTALL | re.MULTILINE)  # gr.Markdown shows these as code
        self.feed(fence.sub("", card))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_decl(self, decl: Any) -> None:
        self.declarations.append(decl)

    handle_comment = handle_pi = unknown_decl = handle_decl  # pyright: ignore[reportAssignmentType]


@pytest.mark.parametrize(
    "evil",
    [
        "<script>alert(1)</script>",
        '<img src=x onerror="alert(1)">',
        "<IMG SRC=https://example.org/a.png>",
        "<scr<b>ipt>alert(1)</scr</b>ipt>",
        '<svg onload="alert(1)">',
        "<iframe src=https://example.org></iframe>",
        "<!-- <img src=x> --><img src=x>",
        "<!doctype html>",
        "`unclosed <object data=x>",
        "`unclosed\n\n<object data=x>`",
        "> ```\n<object data=x>\n> ```",
        "```\ncode\n```~~~\n<object data=x>\n",
        "    indented\n\n- <object data=x>",
        "~~~\n```\n~~~\n<object data=x>\n",
        "- ```\n  a\n\n  <object data=x>\n\n  ![](https://example.org/a.png)\n",
        "[a](javascript:alert(1)) <javascript:alert(1)> [b](data:text/html,x) [c](vbscript:x)",
        '[a](<https://example.org/" onclick="alert(1)> "title\\" onclick=\\"x")',
        "| a |\n|-|\n| <img src=x onerror=alert(1)> ![x](https://example.org/a.png) |\n",
        "\\<img src=x> &lt;img src=x&gt; <im\ng src=x>",
    ],
)
def test_no_attack_is_left_outside_of_code(evil: str) -> None:
    card = harmless(evil)
    found = Checker(card)
    assert found.tags <= ALLOWED
    assert {name for name, _ in found.attributes} <= {"href", "title", "class", "start", "align", "style"}
    assert all(value.startswith("https://") for name, value in found.attributes if name == "href")
    assert found.declarations == []
    assert not re.search(r"<p>[^<]*\n\n", card), "gr.Markdown would read on as Markdown"


@pytest.mark.parametrize(
    ("picture", "shown"),
    [
        ("![loss](loss.png)", "(picture: loss)"),
        ("![](https://example.org/a.png)", '<a href="https://example.org/a.png">picture</a>'),
        ('![a](https://example.org/a.png "title")', '<a href="https://example.org/a.png">a</a>'),
        ("![a][reference]", "![a][reference]"),
        ("![a][r]\n\n[r]: https://example.org/a.png", '<a href="https://example.org/a.png">a</a>'),
        ("![a](javascript:alert(1))", "![a](javascript:alert(1))"),
        ("![a](data:image/png;base64,AAAA)", "(picture: a)"),
        ("![not [closed", "![not [closed"),
    ],
)
def test_pictures_become_links_or_words(picture: str, shown: str) -> None:
    assert harmless(picture) == f"<p>{shown}</p>\n"


def test_code_stays_as_it_is_and_diagrams_become_text() -> None:
    code = "if a <b: print('<img src=x>', \"![a](b)\")\n\n\nmore\n"
    assert harmless(f"```python\n{code}```\n") == f"```python\n{code}```\n"
    assert harmless(f"- ```\n{code}```\n").count("```") == 2
    assert harmless("~~~Mermaid\ngraph ```\n~~~\n") == "````text\ngraph ```\n````\n"
    assert harmless("```\n<b>") == "```text\n<b>\n```\n"
    assert harmless("`a <b` and 1 < 2 and [x](y)") == '<p><code>a &lt;b</code> and 1 &lt; 2 and <a href="y">x</a></p>\n'


def test_html_that_only_lays_out_leaves_its_text() -> None:
    assert harmless('<p align="center">\n<b>Bold</b>\n</p>') == "<p>Bold</p>\n"
    assert harmless("a <!-- <img src=x> --> <i>b</i>") == "<p>a  b</p>\n"


def test_an_unclosed_comment_ends_with_the_card_and_an_empty_one_at_once() -> None:
    assert harmless("<div>\na <b>b</b> <!-- c <img src=x>\nd") == "<p>a  b</p>\n"
    assert harmless("<div>\n<!--> a <!---> b <!----> c") == "<p>a   b   c</p>\n"


@pytest.mark.parametrize("opening", ["<!--", "<!-", "<", "<a ", "<a b='", "<?", "`", "~~~", "~~~\n`"])
@pytest.mark.parametrize("start", ["", "<div>\n", "a "])
def test_what_is_opened_and_never_closed_is_not_searched_for_its_end_each_time(start: str, opening: str) -> None:
    began = time.thread_time()
    harmless(start + opening * (LIMIT // len(opening)))
    assert time.thread_time() - began < 10  # less than 0.5 in linear time, 25 in quadratic


def test_no_card_no_folder_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    assert read_card(None) is None
    assert read_card(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"---\na: b\n---\n# T\xff\xfe\x00")
    assert read_card(tmp_path) == "<h1>T\ufffd\ufffd\ufffd</h1>"


def test_an_endless_card_is_cut() -> None:
    assert len(harmless("x" * (2 * LIMIT))) == LIMIT + len("<p></p>\n")


def test_our_own_cards_keep_every_line(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    template = (root / "hub_export" / "templates" / "model_card.md.jinja").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:#+ |- )(It.+|[A-Z].+)$|^(from transformers.*)$", template, flags=re.MULTILINE)
    (tmp_path / "README.md").write_text(template.replace("{{ metadata }}", "license: mit"))
    shown = read_card(tmp_path) or ""
    assert lines
    assert [
        line
        for heading, code in lines
        if (line := (heading or code).partition("`")[0].partition(" {{")[0]) not in shown
    ] == []
