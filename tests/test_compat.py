"""The runner of many transformers versions: what it keeps, what it writes, and that the checks know nothing of us."""

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from modeling.configuration_scratchgpt import CODE_VERSION, LOWEST_TRANSFORMERS, NEWEST_TRANSFORMERS
from tests.compat import runs, tables
from tests.compat.__main__ import collect, parse, run_jobs
from tests.compat.bundles import REMOTE, bundles_key, code_key
from tests.compat.environments import Environment, closure, link_packages, variables_for
from tests.compat.versions import LIBRARIES, MATRIX, ROOT, TOO_OLD, ends, read_version

INSIDE = sorted((ROOT / "tests" / "compat" / "inside").glob("*.py"))
PAGE = tables.PAGE.read_text(encoding="utf-8")


def report(**failing: str) -> dict[str, Any]:
    """A report of three checks, of which those named fail with the error given."""
    names = {"greedy": "greedy, sampled", "sampled": "greedy, sampled", "logits": "logits"}
    checks = [
        {"bundle": "modern", "check": name, "group": group, "passed": name not in failing}
        | ({"error": failing[name]} if name in failing else {})
        for name, group in names.items()
    ]
    meaning = {name: f"About {name}." for name in names if name != "sampled"}
    return {"checks": checks, "packages": {"transformers": "5.9.1"}, "seconds": 3.0, "meaning": meaning, "kept": False}


def test_the_matrix_is_in_order_and_its_ends_are_those_of_the_published_files() -> None:
    versions = [Version(version) for version in MATRIX]
    assert versions == sorted(set(versions))
    assert (MATRIX[0], MATRIX[-1]) == (LOWEST_TRANSFORMERS, NEWEST_TRANSFORMERS)
    assert Version(TOO_OLD) < versions[0]


def test_the_tables_of_the_page_are_of_this_code() -> None:
    facts = tables.read_facts()
    assert facts["scratchgpt"] == CODE_VERSION, "run `make compat`"
    assert facts["code"] == code_key(), "a published file was changed since: run `make compat`"
    assert set(MATRIX) <= set(facts["versions"])
    assert {name.split("==")[0] for name in facts["libraries"]} == set(LIBRARIES)
    rows = [*facts["versions"].values(), *facts["libraries"].values(), facts["too_old"]]
    assert all(tables.has_passed(row) for row in rows), "run `make compat`, and see what failed"
    assert tables.rewritten(PAGE, facts) == PAGE, "docs/compatibility.md was changed between its markers"


def test_the_page_lists_what_the_published_files_import_of_transformers() -> None:
    imported = set()
    for name in REMOTE:
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "transformers":
                imported |= {(alias.name, node.module) for alias in node.names}
            elif (
                isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "transformers"
            ):
                imported.add((node.attr, "transformers"))
            elif isinstance(node, ast.Import):
                assert all(alias.name == "transformers" or "." not in alias.name for alias in node.names), name
    table = PAGE.partition("| name | from | for what")[2].partition("\n\n")[0]
    listed = set()
    for line in table.splitlines()[2:]:
        names, module, _ = line.strip("| ").split(" | ", 2)
        listed |= {(found, module.strip("`")) for found in re.findall(r"`(\w+)`", names)}
    assert listed == imported


@pytest.mark.parametrize("path", INSIDE, ids=lambda path: path.name)
def test_the_checks_import_nothing_of_ours(path: Path) -> None:
    siblings = {other.stem for other in INSIDE}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            top = module.split(".")[0]
            assert top in sys.stdlib_module_names or top in {"torch", "safetensors", "transformers"} | siblings, module


def test_every_check_has_a_column_and_a_sentence() -> None:
    groups, names = set(), []
    for path in INSIDE:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "check":
                    assert ast.get_docstring(node), node.name
                    groups.add(ast.literal_eval(mark.args[0]))
                    names.append(node.name)
    assert groups | {"warnings"} == set(tables.GROUPS)
    assert len(names) == len(set(names)) > 30


def test_a_report_becomes_a_row() -> None:
    row = tables.row_of(report(sampled="ValueError: two\n lines"))
    assert row["groups"] == {"greedy, sampled": [1, 2], "logits": [1, 1]}
    assert row["failed"] == [{"bundle": "modern", "check": "sampled", "error": "ValueError: two lines"}]
    assert not tables.has_passed(row)
    assert tables.has_passed(tables.row_of(report()))
    assert not tables.has_passed({"groups": {}, "failed": []})


def test_rows_become_a_table_in_the_order_of_versions() -> None:
    rows = {"5.10.0": tables.row_of(report()), "5.9.1": tables.row_of(report(greedy="x", sampled="y"))}
    lines = tables.version_table(rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 5.9.1", "| 5.10.0"]
    cells = dict(zip(("version", *tables.GROUPS), lines[2].strip("| ").split(" | "), strict=True))
    assert (cells["logits"], cells["greedy, sampled"], cells["beams"]) == ("+", "− 2", "·")
    assert tables.failures(rows) == "- 5.9.1, `greedy` (modern): x\n- 5.9.1, `sampled` (modern): y"


def test_only_what_is_between_the_markers_is_written(tmp_path: Path) -> None:
    reports = {"5.9.1": report(), "too old": report()}
    reports["tokenizers==0.23.1"] = report() | {"library": "tokenizers", "packages": {"tokenizers": "0.23.1"}}
    facts = collect(reports, "abc")
    page, facts_file = tmp_path / "page.md", tmp_path / "facts.json"
    page.write_text(f"# Before\n\n{tables.START}\nold\n{tables.END}\n\nAfter\n", encoding="utf-8")
    for _ in range(2):
        tables.write_page(facts, page, facts_file)
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# Before\n\n{tables.START}\n\nScratchGPT {CODE_VERSION}, Python ")
        assert text.endswith(f"\n\n{tables.END}\n\nAfter\n")
        assert "old\n" not in text
        assert "| 5.9.1 | · | · | + |" in text
        assert "| tokenizers | 0.23.1 |" in text
        assert "| logits | About logits. |" in text
    assert json.loads(facts_file.read_text(encoding="utf-8")) == facts
    with pytest.raises(ValueError, match="expected the lines '<!-- compat: start"):
        tables.rewritten("# No markers\n", facts)


def test_a_row_joins_the_page_only_where_the_code_is_the_same() -> None:
    before, after = collect({"5.9.1": report(greedy="x")}, "abc"), collect({"5.9.1": report(), "6.0": report()}, "abc")
    joined = tables.merged(before, after)
    assert list(joined["versions"]) == ["5.9.1", "6.0"]
    assert all(tables.has_passed(row) for row in joined["versions"].values())
    with pytest.raises(ValueError, match=r"are of other code .* run `make compat` without VERSION"):
        tables.merged(before, after | {"code": "def"})


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> runs.Runner:
    """A runner over one bundle that holds little."""
    folder = tmp_path / "bundles" / "modern"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("```python\nprint(1)\n```\n")
    monkeypatch.setattr(runs, "make_bundles", lambda cache: [folder])
    return runs.Runner(tmp_path / "cache", tmp_path / "work")


def test_what_was_run_is_kept_until_the_bundles_or_the_checks_change(
    runner: runs.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def run_version(version: str, too_old: bool) -> dict[str, Any]:
        ran.append((version, too_old))
        return report()

    monkeypatch.setattr(runner, "_run_version", run_version)
    found = [runner.version("5.9.1"), runner.version("5.9.1"), runner.version("5.9.1", too_old=True)]
    assert [each.pop("kept") for each in found] == [False, True, False]
    assert found[0] == found[1]
    assert ran == [("5.9.1", False), ("5.9.1", True)]
    runner.again = True
    assert runner.version("5.9.1")["kept"] is False

    before = bundles_key(runner.bundles)
    readme = runner.bundles[0] / "README.md"
    readme.write_text("New words.\n```python\nprint(1)\n```\n")
    (runner.bundles[0] / "model.safetensors").write_bytes(b"others")
    assert bundles_key(runner.bundles) == before
    readme.write_text("```python\nprint(2)\n```\n")
    assert bundles_key(runner.bundles) != before
    readme.write_text("```python\nprint(1)\n```\n")
    (runner.bundles[0] / "modeling_scratchgpt.py").write_text("x = 1\n")
    assert bundles_key(runner.bundles) != before


def test_each_job_has_a_line_with_what_passed(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = {name: (f"transformers {name}", lambda: report(greedy="x")) for name in ("1.0", "2.0")}
    assert list(run_jobs(jobs)) == ["1.0", "2.0"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "[ 2 of 2] transformers 2.0 … 2 of 3 checks passed (3 s)"


def test_an_environment_offers_torch_and_nothing_of_hugging_face(tmp_path: Path) -> None:
    names = closure(("torch",))
    assert {"torch", "sympy", "filelock"} <= names
    assert not names & {"transformers", "tokenizers", "huggingface-hub", "safetensors", "numpy"}
    link_packages(names, tmp_path / "torch")
    made = Environment(tmp_path / "made")
    made.make(tmp_path / "torch", [])
    assert made.complete
    code = "import importlib.util as u; print([bool(u.find_spec(n)) for n in ('torch', 'transformers', 'modeling')])"
    done = made.run("-c", code, scratch=tmp_path, timeout=60)
    assert done.stdout.strip() == "[True, False, False]", done.stderr


def test_nothing_leads_back_to_this_project_or_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "PYTHONPATH", "TRANSFORMERS_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setenv(name, "mine")
    variables = variables_for(tmp_path)
    assert "mine" not in variables.values()
    assert variables["HF_HOME"] == str(tmp_path / "hf_home")
    assert variables["HF_HUB_OFFLINE"] == "1"


def test_the_ends_of_a_range(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("gradio>=6.24,<=6.31.0  # the page\nnumpy>=2\ntorch==2.13.0\nhttpx\n")
    assert ends("gradio", requirements) == ("==6.24", "==6.31.0")
    assert ends("numpy", requirements) == ("==2", ">=2")
    assert ends("torch", requirements) == ("==2.13.0", "==2.13.0")
    with pytest.raises(ValueError, match=r"a lower end for httpx in requirements\.txt, such as httpx>=1\.0"):
        ends("httpx", requirements)
    with pytest.raises(ValueError, match=r"expected a line on rich in requirements\.txt, found none"):
        ends("rich", requirements)
    assert all(ends(name) for name in LIBRARIES)


def test_a_version_is_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_version("5.25.0rc1") == "5.25.0rc1"
    assert parse(["5.25.0.dev0", "5.1"]).versions == ["5.25.0.dev0", "5.1"]
    for wrong, said in (
        (["newest"], "expected a version of transformers such as .* or 5.25.0rc1, got 'newest'"),
        (["--libraries", "flask"], "expected libraries among transformers, .*, got flask"),
    ):
        with pytest.raises(SystemExit):
            parse(wrong)
        assert re.search(said, capsys.readouterr().err)
