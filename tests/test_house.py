"""The house rules that a syntax tree can show: who imports whom, what the remote files import, how long files are."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("storage", "corpus", "modeling", "tokenization", "train", "hub_export", "panels", "benchmarks")
MAY_IMPORT = {
    "storage": {"storage"},
    "corpus": {"storage", "corpus"},
    "modeling": {"storage", "modeling"},
    "tokenization": {"storage", "tokenization"},
    "train": {"storage", "corpus", "modeling", "tokenization", "train"},
    "hub_export": {"storage", "corpus", "modeling", "tokenization", "hub_export"},
    "panels": {"storage", "corpus", "modeling", "tokenization", "panels"},
    "app.py": {"storage", "corpus", "modeling", "tokenization", "panels"},
}
REMOTE = (
    "modeling/configuration_scratchgpt.py",
    "modeling/modeling_scratchgpt.py",
    "tokenization/tokenization_scratchgpt.py",
)
SOURCES = sorted(path for name in (*PACKAGES, "tests", "docs") for path in (ROOT / name).rglob("*.py"))
SOURCES.append(ROOT / "app.py")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports, absolute, wherever in the file the import stands."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names if not node.module)


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[-2] != "tests"], ids=name_of)
def test_imports_only_go_down(path: Path) -> None:
    home = path.relative_to(ROOT).parts[0]
    if home not in MAY_IMPORT:
        return
    allowed = MAY_IMPORT[home] | ({"corpus"} if name_of(path) == "tokenization/__main__.py" else set())
    for module in imports(path):
        if module.split(".")[0] in PACKAGES:
            prefixes = {module, module.split(".")[0]}
            assert prefixes & allowed, f"{name_of(path)} imports {module}; it may import {sorted(allowed)}"


def test_the_check_of_imports_sees_a_wrong_one(tmp_path: Path) -> None:
    found = set(imports(ROOT / "train" / "objective.py"))
    assert {"modeling", "modeling.generation", "train.data.batches", "torch"} <= found


@pytest.mark.parametrize("name", REMOTE)
def test_remote_files_import_only_what_a_hub_repository_has(name: str) -> None:
    path = ROOT / name
    siblings = {f"{path.parent.name}.{other.stem}" for other in path.parent.glob("*_scratchgpt.py")}
    for module in imports(path):
        top = module.split(".")[0]
        assert top in {"torch", "transformers", "regex"} or top in sys.stdlib_module_names or module in siblings
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert node.module, "a remote file imports names from its sibling, never `from . import x`"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_is_short(path: Path) -> None:
    # The model is published as one file, so what it does without transformers (masks, scaled positions) is in it too.
    limits = {"app.py": 80, "modeling_scratchgpt.py": 750}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limits.get(path.name, 450)


def test_public_functions_have_docstrings() -> None:
    bare = [
        f"{name_of(path)}:{node.name}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] in PACKAGES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        if not node.name.startswith("_") and ast.get_docstring(node) is None
    ]
    assert not bare, bare
