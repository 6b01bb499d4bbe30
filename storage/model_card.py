"""The front matter of a README.md: what a model card states as data."""

import re
from pathlib import Path
from typing import Any

import yaml

from storage.records import is_json_object

FACTS = "scratchgpt"
"""The key of the front matter with our own facts: `trained_on`, `tokens_seen`, `floor_bits_per_byte`, `steps`, and of
a run that ended before its planned steps `cut_short`: why, in one sentence; of a run that went on from a model
`base_model`: its name."""
_TYPES: dict[str, tuple[type, ...]] = {
    "repository": (str,), "trained_on": (str,), "base_model": (str,), "recipe": (str,), "cut_short": (str,),
    "steps": (int,), "tokens_seen": (int,), "floor_bits_per_byte": (int, float),
}  # fmt: skip
_LARGEST = 1e18
"""No number of a card is as large: a larger one, an infinite one and one that is none were not measured."""
LONGEST_CARD, LONGEST_FRONT_MATTER = 1_000_000, 50_000
"""Characters of a card that are read, and of a front matter: PyYAML takes seconds for much longer ones."""
PLACEHOLDER_OWNER = "your-name"
"""How a card calls the owner of a repository that is not known yet."""
_RULE = r"(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", flags=re.DOTALL)
_BROKEN = re.compile(rf"---[ \t]*(?:\n|\Z)(?:(?!#+ |[ \t]*\n|{_RULE}).+(?:\n|\Z))*(?:{_RULE})?")


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """The front matter of a model card, and the Markdown below it.

    A card that somebody edited may hold anything: a front matter without its end, or one that is no YAML mapping, has
    a value that cannot be read or more than `LONGEST_FRONT_MATTER` characters, gives {} and ends at the first empty
    line or heading.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if match := _FRONT_MATTER.match(text):
        try:
            data = yaml.safe_load(match[1]) if len(match[1]) <= LONGEST_FRONT_MATTER else None
        except Exception:  # besides the library's own, what int(), datetime() and deep brackets raise inside it
            data = None
        if is_json_object(data):
            return data, text[match.end() :]
    broken = _BROKEN.match(text)
    return {}, text[broken.end() :] if broken else text


def read_card(folder: Path) -> tuple[dict[str, Any], str]:
    """`split_card` of the first `LONGEST_CARD` characters of a folder's README.md; ({}, "") where there is none."""
    path = folder / "README.md"
    if not path.is_file():
        return {}, ""
    with path.open(encoding="utf-8", errors="replace") as file:
        return split_card(file.read(LONGEST_CARD))


def card_title(body: str) -> str | None:
    """The first heading of a card's Markdown, at most 80 characters."""
    heading = re.search(r"^# +(.+)$", body, flags=re.MULTILINE)
    return heading[1].strip()[:80] if heading else None


def card_facts(data: dict[str, Any]) -> dict[str, Any]:
    """Our own facts in the front matter, as far as they are of the types that we write: people edit cards."""
    stated = data.get(FACTS)
    facts: dict[str, Any] = stated if is_json_object(stated) else {}
    return {
        name: value
        for name, value in facts.items()
        if type(value) in _TYPES.get(name, ()) and (isinstance(value, str) or 0 <= value < _LARGEST)
    }


def card_metrics(data: dict[str, Any]) -> dict[str, float]:
    """The metrics of the front matter's `model-index`, by type; {} where it has none or holds something else."""
    try:
        results = data["model-index"][0]["results"]
        values = {metric["type"]: float(metric["value"]) for result in results for metric in result["metrics"]}
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return {}
    return {name: value for name, value in values.items() if 0 <= value < _LARGEST}
