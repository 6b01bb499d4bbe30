"""Sections of docs/performance.md: replaced by name, with what was written by hand kept; goals, and whether reached."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

from benchmarks import bpe
from benchmarks.__main__ import NAMES
from benchmarks._report import Goal, replace_section, report
from tests.serving import ROOT

PERFORMANCE = ROOT / "docs" / "performance.md"
WRITTEN = """# Performance

Above all sections, by hand.

## `python -m benchmarks page`

| old | 1 |

Note: seen elsewhere too,
on a second line.

Nobody's paragraph.

Note: ![a picture](page.png)

## `python -m benchmarks step_memory`

| kept | 2 |

## `python -m benchmarks.memory --megabytes 300`

| kept | 3 |
"""


def test_a_section_is_replaced_by_name_and_its_notes_are_kept() -> None:
    text = replace_section(WRITTEN, "page", "## `python -m benchmarks page`\n\n| new | 9 |")
    before, after = (
        WRITTEN.split("## `python -m benchmarks page`")[0],
        WRITTEN.split("Note: ![a picture](page.png)\n")[1],
    )
    assert text == (
        f"{before}## `python -m benchmarks page`\n\n| new | 9 |\n\nNote: seen elsewhere too,\non a second line.\n\n"
        f"Note: ![a picture](page.png)\n{after}"
    )


def test_the_name_counts_and_not_the_flags() -> None:
    text = replace_section(WRITTEN, "memory", "## `python -m benchmarks memory`\n\n| new | 9 |")
    assert text == WRITTEN.replace(" -m benchmarks.memory --megabytes 300", " -m benchmarks memory").replace(
        "| kept | 3 |", "| new | 9 |"
    )
    assert (
        replace_section(text, "memory", "## `python -m benchmarks.memory --megabytes 300`\n\n| kept | 3 |") == WRITTEN
    )


def test_a_new_section_comes_last() -> None:
    section = "## `python -m benchmarks start`\n\n| new | 9 |"
    assert replace_section(WRITTEN, "start", section) == f"{WRITTEN}\n{section}\n"


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        (Goal(("ratio", "ours"), at_most=0.35), ("ratio, ours: at most 0.35", "0.349: reached")),
        (Goal(("ratio", "ours"), at_most=0.3), ("ratio, ours: at most 0.3", "0.349: not reached")),
        (Goal(("ratio", "ours"), at_least=0.3), ("ratio, ours: at least 0.3", "0.349: reached")),
        (Goal(("speed",), at_least=0.8, at_most=1.2), ("speed: at least 0.8, at most 1.2", "1.3: not reached")),
        (Goal(("bf16", "speed"), at_least=2), ("bf16, speed: at least 2", "not measured")),
        (Goal(("speed", "ours"), at_least=2), ("speed, ours: at least 2", "not measured")),
    ],
)
def test_a_goal_is_judged(goal: Goal, said: tuple[str, str]) -> None:
    assert goal.judged({"ratio": {"ours": 0.349}, "speed": 1.3}) == said


def test_a_benchmark_renews_its_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("The lamp burned low, and the captain drew a line on the map. " * 50)
    place = tmp_path / "performance.md"
    former = "## `python -m benchmarks bpe`\n\n| merges | 5 |\n\nNote: by hand.\n"
    place.write_text(f"{WRITTEN}\n{former}")
    report("bpe", partial(bpe.run, [tmp_path / "text.txt"], merges=7, repeats=1), place)
    text, result = place.read_text(), json.loads(capsys.readouterr().out)
    assert text.startswith(WRITTEN)
    section = text.removeprefix(WRITTEN)
    assert section.startswith("\n## `python -m benchmarks bpe`\n\nTraining a BPE vocabulary")
    assert section.endswith("\n\nNote: by hand.\n")
    assert "| merges | 7 |" in section
    assert "| merges | 5 |" not in section
    ((goal, judged),) = result["goals"].items()
    assert f"| {goal} | {judged} |" in section
    assert re.search(r"^\d{4}-\d\d-\d\d, .+ cores, Python .+; \d+ s, load of the machine .+ after\.$", section, re.M)


def test_the_report_of_the_project_can_be_renewed() -> None:
    text = PERFORMANCE.read_text(encoding="utf-8")
    sections = re.split(r"^(?=## )", text, flags=re.M)[1:]
    for section in sections:
        heading = re.match(r"## `python -m benchmarks[ .](\w+)( [^`]+)?`\n\n", section)
        assert heading, section.splitlines()[0]
        assert heading[1] in NAMES
        assert re.search(r"^\d{4}-\d\d-\d\d.*\bload\b", section, re.M), (
            f"{heading[1]}: no line of date, machine and load"
        )
        assert replace_section(text, heading[1], section.split("\n\nNote:")[0].strip()) == text, f"{heading[1]}: a note"
