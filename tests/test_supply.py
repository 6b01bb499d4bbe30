"""The licences of what is locked: every package has a row, and what is not permissive stands out."""

import importlib.util
import json
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.test_dependencies import DEV, RUN, TORCH, version_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "licenses.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(?P<name>[^`]+)` \| (?P<version>\S+) \| (?P<license>[^|]+) \| (?P<source>[^|]+) \|$", re.M)


@pytest.fixture(scope="module")
def supply() -> ModuleType:
    """The program of `make supply`."""
    sys.path.insert(0, str(ROOT / ".ci"))  # it imports lock.py, which lies beside it
    try:
        spec = importlib.util.spec_from_file_location("supply", ROOT / ".ci" / "supply.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["supply"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / ".ci"))
    return module


def test_the_list_has_exactly_the_packages_of_the_locks() -> None:
    rows = [(row["name"], row["version"]) for row in ROW.finditer(PAGE)]
    assert len(rows) == len({*rows})
    assert {*rows} == {(name, version_of(lines)) for lock in (RUN, DEV, TORCH) for name, lines in lock.items()}


def test_what_is_not_permissive_stands_out_with_what_it_means(supply: ModuleType) -> None:
    head, _, tables = PAGE.partition("## What running needs")
    named = {name: meaning for name, meaning in re.findall(r"^\| `([^`]+)` \| [^|]+ \| ([^|]+) \|$", head, re.M)}
    rows = [supply.Licensed(row["name"], row["version"], row["license"].strip("*"), "") for row in ROW.finditer(tables)]
    assert {each.name for each in rows if not each.is_permissive} == named.keys()
    assert "read its text before use" not in named.values()


def test_the_list_is_what_the_installed_packages_say(supply: ModuleType) -> None:
    rows = {row["name"]: row for row in ROW.finditer(PAGE)}
    compared = 0
    for package in (each for found in supply.all_licensed().values() for each in found):
        try:
            is_locked = version(package.name).partition("+")[0] == package.version
        except PackageNotFoundError:
            continue
        if is_locked:
            compared += 1
            row = rows[package.name]
            assert (row["license"].strip("*"), row["source"]) == (package.license, package.source), package.name
    assert compared > 50


@pytest.mark.parametrize(
    ("expression", "is_permissive"),
    [
        ("MIT", True),
        ("MPL-2.0", False),
        ("MPL-2.0 OR MIT", True),
        ("MPL-2.0 AND MIT", False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", False),
        ("Apache-2.0 AND (GPL-3.0-only OR MIT)", True),
        ("GPL-3.0-or-later", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("not read", False),
        ("", False),
    ],
)
def test_which_expressions_are_permissive(supply: ModuleType, expression: str, is_permissive: bool) -> None:
    assert supply.Licensed("x", "1", expression, "").is_permissive is is_permissive


def test_an_audit_that_looked_nothing_up_is_no_success(supply: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """As pip-audit answers behind a mirror that has no database; its own exit status is 0."""
    fine: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
    skipped = {"name": "b", "skip_reason": "Dependency not found on PyPI and could not be audited: b (1)"}
    bad = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
    assert supply.judge([fine]) == 0
    assert supply.judge([fine, skipped]) == 1
    said = capsys.readouterr().out
    assert "pip-audit looked up 1 of 2 packages; known vulnerabilities: 0\n" in said
    assert "error: 1 packages were not looked up, the first: Dependency not found on PyPI" in said
    assert supply.judge([fine, bad]) == 1
    assert "c 2: PYSEC-1, fixed in 3\n" in capsys.readouterr().out
    assert supply.judge([]) == 1


def test_an_unknown_part_is_refused(supply: ModuleType) -> None:
    with pytest.raises(SystemExit, match="ONLY: expected licenses or audit, got licences"):
        supply.main(["licences"])


def test_what_is_promised_about_security_is_said() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for heading in ("## Supported versions", "## How to report", "## In scope", "## Out of scope"):
        assert heading in text
    assert re.search(r"within (two weeks|\d+ days)", text)


@pytest.mark.slow  # makes an environment and fetches two programs
def test_the_bill_of_materials_has_every_locked_package(supply: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    (ROOT / supply.SBOM).unlink(missing_ok=True)
    supply.audit()  # its status is that of the vulnerabilities
    if "could not be fetched" in capfd.readouterr().out:
        pytest.skip("no index is reachable")
    bill = json.loads((ROOT / supply.SBOM).read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    locked = {(each.name, each.version) for found in supply.all_licensed().values() for each in found}
    assert {(each["name"], each["version"]) for each in bill["components"]} == locked
