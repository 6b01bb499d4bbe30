"""The front matter of model cards, complete and broken."""

from pathlib import Path

import pytest

from storage import model_card
from storage.model_card import card_facts, card_metrics, card_title, read_card, split_card

BODY = "# Title\n\nText.\n"


@pytest.mark.parametrize(
    "card",
    [
        BODY,
        f"---\nlicense: mit\n---\n{BODY}",
        f"\ufeff---\r\n# a comment\r\nlicense: mit\r\n---\r\n{BODY}",
        f"---\nlicense: [mit\n  broken: : yaml\n---\n\n{BODY}",
        f"---\nlicense: mit\ntags:\n- a\n{BODY}",
        f"---\nlicense: mit\n\n{BODY}",
        f"---\nlicense: mit\n{BODY}\n---\nmore\n",
        f"---\n...\n{BODY}",
        f"---\ndate: 2026-02-30\n---\n{BODY}",
        f"---\nx: !!int abc\n---\n{BODY}",
        f"---\nx: !!timestamp q\n---\n{BODY}",
        f"---\nx: !!bool maybe\n---\n{BODY}",
        f"---\nx: {'[' * 3000}\n---\n{BODY}",
    ],
)
def test_front_matter_complete_and_broken(card: str) -> None:
    data, body = split_card(card)
    assert body.lstrip().startswith(BODY)
    assert card_title(body) == "Title"
    assert data in ({}, {"license": "mit"})


@pytest.mark.parametrize(
    "card", ["---", "---\n", "", "---\nlicense: mit\n---\n", "---\nlicense: mit\n---", "---\na: b"]
)
def test_nothing_but_front_matter(card: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card)
    assert read_card(tmp_path)[1] == ""
    assert read_card(tmp_path / "vanished") == ({}, "")


def test_an_endless_card_is_cut_and_a_long_front_matter_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("é" * 2_000_000, encoding="utf-8")
    assert read_card(tmp_path) == ({}, "é" * 1_000_000)
    lines = "a: b\n" * (model_card.LONGEST_FRONT_MATTER // 5)
    assert split_card(f"---\n{lines}---\n{BODY}") == ({"a": "b"}, BODY)
    assert split_card(f"---\n{lines}c: d\n---\n{BODY}") == ({}, BODY)


def test_metrics_of_a_card() -> None:
    data, _ = split_card(
        "---\nmodel-index:\n- results:\n  - metrics:\n    - {type: perplexity, value: 3.5}\n---\n# T\n"
    )
    assert card_metrics(data) == {"perplexity": 3.5}
    assert card_metrics({"model-index": "?"}) == {}
    for value in (10**400, ".inf", -1):
        metrics = [{"type": "perplexity", "value": value}]
        assert card_metrics({"model-index": [{"results": [{"metrics": metrics}]}]}) == {}


def test_facts_of_a_card_that_are_not_as_we_write_them_are_left_out() -> None:
    written = {"trained_on": "three books", "tokens_seen": 1200, "floor_bits_per_byte": 0.5}
    edited = {"tokens_seen": "120 million", "steps": True, "trained_on": 3, "floor_bits_per_byte": float("nan")}
    assert card_facts({"scratchgpt": written | {"mine": "x"}}) == written
    assert card_facts({"scratchgpt": edited}) == card_facts({"scratchgpt": [3]}) == card_facts({}) == {}
    assert card_facts({"scratchgpt": {"tokens_seen": 10**400, "floor_bits_per_byte": float("inf")}}) == {}
