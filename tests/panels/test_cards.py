"""Model cards: nothing of them runs, and nothing is loaded for them."""

import re
from pathlib import Path

import pytest

from panels.tabs.about.card import LIMIT, harmless, read_card, without_front_matter

BODY = "# Title\n\nText.\n"


@pytest.mark.parametrize(
    "card",
    [
        BODY,
        f"---\nlicense: mit\n---\n{BODY}",
        f"\ufeff---\r\nlicense: mit\r\n---\r\n{BODY}",
        f"---\nlicense: [mit\n  broken: : yaml\n---\n\n{BODY}",
        f"---\nlicense: mit\ntags:\n- a\n{BODY}",
        f"---\nlicense: mit\n\n{BODY}",
        f"---\nlicense: mit\n{BODY}\n---\nmore\n",
        f"---\n...\n{BODY}",
    ],
)
def test_front_matter_whole_and_broken(card):
    assert without_front_matter(card).lstrip().startswith(BODY)


@pytest.mark.parametrize("card", ["---", "---\n", "", "---\nlicense: mit\n---\n", "---\nlicense: mit"])
def test_nothing_but_front_matter(card, tmp_path):
    (tmp_path / "README.md").write_text(card)
    assert read_card(tmp_path) is None


def test_no_card_no_folder_and_bytes_that_are_no_text(tmp_path):
    assert read_card(None) is None
    assert read_card(tmp_path) is None
    assert read_card(tmp_path / "vanished") is None
    (tmp_path / "README.md").write_bytes(b"# T\xff\xfe\x00")
    assert read_card(tmp_path) == "# T\ufffd\ufffd\x00"


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
    ],
)
def test_no_tag_is_left_outside_of_code(evil):
    assert not re.search(r"<[A-Za-z/!?]", harmless(evil).replace("> ```", ""))


@pytest.mark.parametrize(
    ("picture", "shown"),
    [
        ("![loss](loss.png)", "(picture: loss)"),
        ("![](https://example.org/a.png)", "[picture](https://example.org/a.png)"),
        ('![a](https://example.org/a.png "title")', "[a](https://example.org/a.png)"),
        ("![a][reference]", "(picture: a)"),
        ("[![badge](https://example.org/b.svg)](https://example.org)", "[[badge](https://example.org/b.svg)](https://example.org)"),
        ("![a](javascript:alert(1))", "(picture: a)"),
        ("![a](data:image/png;base64,AAAA)", "(picture: a)"),
        ("![not [closed", "!\\[not [closed"),
    ],
)  # fmt: skip
def test_pictures_become_links_or_words(picture, shown):
    text = harmless(picture)
    assert "![" not in text
    assert text.startswith(shown)


def test_code_and_links_stay_as_they_are():
    code = "```python\nif a <b: print('<img src=x>', \"![a](b)\")\n```\n"
    card = f"{code}\n`a <b` and ``<i> ` <b>`` and <https://example.org> and 1 < 2 and [x](y)\n"
    assert harmless(card) == card


def test_layout_goes_and_diagrams_stay_text():
    assert harmless('<p align="center"><b>Bold</b><br/>line</p>') == "Bold  \nline"
    assert harmless("~~~Mermaid\ngraph\n~~~\n") == "~~~text\ngraph\n~~~\n"


def test_an_endless_card_is_cut_and_an_open_fence_stays_open():
    assert len(harmless("x" * (2 * LIMIT))) == LIMIT
    assert harmless("```\n<b>") == "```\n<b>"


def test_the_bundles_of_this_house_keep_every_line(tmp_path):
    root = Path(__file__).parents[2]
    template = (root / "hub_export" / "templates" / "model_card.md.jinja").read_text(encoding="utf-8")
    lines = [line for line in template.splitlines() if line.startswith(("#", "- It", "from transformers"))]
    (tmp_path / "README.md").write_text(template.replace("{{ metadata }}", "license: mit"))
    shown = (read_card(tmp_path) or "").splitlines()
    assert lines
    assert [line for line in lines if line not in shown] == []
