"""The runner of many transformers versions: what it keeps, what it writes, and that the checks know nothing of us."""

import ast
import re
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from modeling.configuration_scratchgpt import CODE_VERSION, LOWEST_TRANSFORMERS, NEWEST_TRANSFORMERS
from tests.compat import tables
from tests.compat.__main__ import parse
from tests.compat.bundles import REMOTE, code_key
from tests.compat.environments import Environment, closure, link_packages, variables_for
from tests.compat.versions import LIBRARIES, MATRIX, ROOT, TOO_OLD, ends, read_version

INSIDE = sorted((ROOT / "tests" / "compat" / "inside").glob("*.py"))
PAGE = tables.PAGE.read_text(encoding="utf-8")


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
