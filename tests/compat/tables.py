"""From the reports of the checks to rows, and from rows to the tables of docs/compatibility.md.

The facts are in docs/compatibility.json; what stands between the markers in the page is written from them.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from packaging.version import Version

from tests.compat.versions import LIBRARIES, ROOT

PAGE = ROOT / "docs" / "compatibility.md"
FACTS = ROOT / "docs" / "compatibility.json"
START, END = "<!-- compat: start (written by make compat) -->", "<!-- compat: end -->"
GROUPS = (
    *("load", "tokenizers", "logits", "step by step", "greedy, sampled", "static cache", "padded batch", "beams"),
    *("drafts", "pipeline", "training", "messages", "next rename", "warnings"),
)
"""Groups of checks, the columns of the first table."""
STAGES = ("train", "bundle", "tokenizer", "push", "data set", "page")
"""What is run with the other libraries, the columns of the second table."""


def row_of(report: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a version's report: per group how many checks passed of how many, what failed, and what was told
    meanwhile by transformers and torch, a line for each kind with whose call caused it."""
    groups: dict[str, list[int]] = {}
    failed = []
    for outcome in report["checks"]:
        passed, total = groups.get(outcome["group"], [0, 0])
        groups[outcome["group"]] = [passed + outcome["passed"], total + 1]
        if not outcome["passed"]:
            error = " ".join(outcome.get("error", "").split())[:200]
            failed.append({"bundle": outcome["bundle"], "check": outcome["check"], "error": error})
    notices = [f"{told['origin']}, {told['category']}: {told['text'][:120]}" for told in report.get("notices", ())]
    row = {"packages": report["packages"], "seconds": report["seconds"], "groups": groups, "failed": failed}
    return row | ({"notices": sorted(notices)} if notices else {})


def has_passed(row: dict[str, Any]) -> bool:
    """Whether all that a row tells of has passed; a row without checks has not."""
    return (
        bool(row["groups"]) and not row["failed"] and all(passed == total for passed, total in row["groups"].values())
    )


def cell(row: dict[str, Any], group: str) -> str:
    """A cell of a table: `+`, or how many checks failed; `·` where nothing was run."""
    if group not in row["groups"]:
        return "·"
    passed, total = row["groups"][group]
    return "+" if passed == total else f"− {total - passed}"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def version_table(rows: dict[str, dict[str, Any]]) -> str:
    """The table of transformers' versions, oldest first."""
    ordered = sorted(rows, key=Version)
    return table(
        ("transformers", *GROUPS), ((version, *(cell(rows[version], group) for group in GROUPS)) for version in ordered)
    )


def library_table(rows: dict[str, dict[str, Any]]) -> str:
    """The table of the other libraries; the keys of `rows` are `NAME==VERSION`."""
    ordered = sorted(rows, key=lambda key: (LIBRARIES.index(key.split("==")[0]), Version(key.split("==")[1])))
    lines = []
    for key in ordered:
        name, version = key.split("==")
        lines.append((name, version, *(cell(rows[key], stage) for stage in STAGES)))
    return table(("library", "version", *STAGES), lines)


def failures(rows: dict[str, dict[str, Any]]) -> str:
    """A list of what failed, a line for each check with the first error; empty where nothing did."""
    lines = []
    for key, row in rows.items():
        for check in dict.fromkeys(failed["check"] for failed in row["failed"]):
            found = [failed for failed in row["failed"] if failed["check"] == check]
            bundles = ", ".join(failed["bundle"] for failed in found)
            lines.append(f"- {key}, `{check}` ({bundles}): {found[0]['error']}")
    return "\n".join(lines)


def written(facts: dict[str, Any]) -> str:
    """What stands between the markers of the page."""
    versions, libraries, old = facts["versions"], facts["libraries"], facts["too_old"]
    count = sum(total for _, total in versions[max(versions, key=Version)]["groups"].values())
    groups = {group: [check for check, home in facts["groups"].items() if home == group] for group in GROUPS}
    meaning = table(
        ("column", "checks"),
        (
            (group, " ".join(facts["meaning"].get(check, check) for check in checks))
            for group, checks in groups.items()
            if checks
        ),
    )
    about = f"ScratchGPT {facts['scratchgpt']}, Python {facts['python']}, torch {facts['torch']}"
    sentence = "loading ends with one sentence that names the version needed."
    if not has_passed(old):
        sentence = f"loading does not end as it should:\n\n{failures({old['version']: old})}"
    parts = [
        f"{about}; {count} checks a version, on three bundles (modern, classic, masked). `+`: all passed; `− 2`: two "
        "failed.",
        version_table(versions),
        failures(versions),
        f"With transformers {old['version']}, which is older, {sentence}",
        meaning,
        "The project's own commands at the ends of the ranges in requirements.txt, one library at a time, the others "
        "as installed: a short training, its export, the tokenizer saved and loaded, a push to the tests' own Hub and "
        "the load from there, a data set streamed from such a Hub and the message where it cannot be reached, the page "
        "and its `/generate`.",
        library_table(libraries),
        failures(libraries),
    ]
    return "\n\n".join(part for part in parts if part)


def no_facts() -> dict[str, Any]:
    """The form of docs/compatibility.json, with nothing in it."""
    return {"versions": {}, "libraries": {}, "too_old": {}, "meaning": {}, "groups": {}}


def read_facts() -> dict[str, Any]:
    """The facts that the page was written from; empty ones where there are none yet."""
    return json.loads(FACTS.read_text(encoding="utf-8")) if FACTS.exists() else no_facts()


def merged(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The facts of the page with the rows of a run of a few versions or libraries.

    Raises:
        ValueError: the rows of the page are of other code than the new ones.
    """
    if after["versions"] and before["versions"] and before["code"] != after["code"]:
        raise ValueError(
            f"the rows of {PAGE.name} are of other code than these, so they cannot stand in one table; "
            "run `make compat` without VERSION"
        )
    parts = ("versions", "libraries", "meaning", "groups")
    return {**before, **after} | {part: before[part] | after[part] for part in parts} | {"too_old": before["too_old"]}


def rewritten(page: str, facts: dict[str, Any]) -> str:
    """The page's text with what is between the markers written anew.

    Raises:
        ValueError: the page has no markers.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"expected the lines {START!r} and {END!r} in {PAGE.name}; put them where the tables belong")
    return f"{before}{START}\n\n{written(facts)}\n\n{END}{after}"


def as_json(facts: dict[str, Any]) -> str:
    """The facts as JSON, each row of a table in one line."""
    lines = []
    for name, value in facts.items():
        text = json.dumps(value, ensure_ascii=False)
        if name in ("versions", "libraries"):
            rows = (f"  {json.dumps(key)}: {json.dumps(row, ensure_ascii=False)}" for key, row in value.items())
            text = "{\n" + ",\n".join(rows) + "\n }"
        lines.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_page(facts: dict[str, Any], page: Path = PAGE, facts_file: Path = FACTS) -> None:
    """Write the facts, and the page from them."""
    text = rewritten(page.read_text(encoding="utf-8"), facts)
    facts_file.write_text(as_json(facts), encoding="utf-8")
    page.write_text(text, encoding="utf-8")
