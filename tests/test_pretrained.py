"""The model in the box, pretrained/scifi: a bundle as `python -m hub_export bundle` makes it, of this version."""

from pathlib import Path

from hub_export.bundle import check_record
from hub_export.code_version import other_code
from modeling.generation import SamplingSettings
from panels.generate import generate
from panels.models import load_model
from storage.model_card import card_metrics, read_card

FOLDER = Path(__file__).parents[1] / "pretrained" / "scifi"


def test_is_a_checked_bundle_with_the_code_of_this_version() -> None:
    check_record(FOLDER)
    assert not other_code(FOLDER), f"make it again: python -m hub_export verify {FOLDER} says what differs"


def test_is_small_and_has_learned() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 16_000_000
    data, _ = read_card(FOLDER)
    assert card_metrics(data)["loss"] < 3.95


def test_writes_the_same_text_for_the_same_seed() -> None:
    loaded = load_model(FOLDER)
    settings = SamplingSettings(max_new_tokens=20, temperature=0.8, seed=1)
    first, second = ([*generate(loaded, "The Martians", settings)][-1].text for _ in range(2))
    assert first == second
    assert first.startswith("The Martians")
    assert len(first) > 30
