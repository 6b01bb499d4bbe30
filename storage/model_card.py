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
PLACEHOLDER_OWNER = "your-name"
"""How a card calls the owner of a repository that is not known yet."""
_RULE = r"(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", flags=re.DOTALL)
_BROKEN = re.compile(rf"---[ \t]*(?:\n|\Z)(?:(?!#+ |[ \t]*\n|{_RULE}).+(?:\n|\Z))*(?:{_RULE})?")


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """The front matter of a model card, and the Markdown below it.

    A card that somebody edited may hold anything: a front matter without its end, or one that is no YAML mapping, gives
    {} and ends at the first empty line or heading.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if match := _FRONT_MATTER.match(text):
        try:
            data = yaml.safe_load(match[1])
        except yaml.YAMLError:
            data = None
        if is_json_object(data):
            return data, text[match.end() :]
    broken = _BROKEN.match(text)
    return {}, text[broken.end() :] if broken else text


def read_card(folder: Path) -> tuple[dict[str, Any], str]:
    """`split_card` of the README.md in a folder; ({}, "") where there is none."""
    path = folder / "README.md"
    return split_card(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else ({}, "")


def card_title(body: str) -> str | None:
    """The first heading of a card's Markdown, at most 80 characters."""
    heading = re.search(r"^# +(.+)$", body, flags=re.MULTILINE)
    return heading[1].strip()[:80] if heading else None


def card_metrics(data: dict[str, Any]) -> dict[str, float]:
    """The metrics of the front matter's `model-index`, by type; {} where it has none or holds something else."""
    try:
        results = data["model-index"][0]["results"]
        return {metric["type"]: float(metric["value"]) for result in results for metric in result["metrics"]}
    except (KeyError, IndexError, TypeError, ValueError):
        return {}
