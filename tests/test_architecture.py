"""What a syntax tree can show of docs/design.md: layers, cycles, who opens a run's files, lengths, docstrings."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {
    "storage": set(),
    "corpus": {"storage"},
    "modeling": {"storage"},
    "tokenization": {"storage"},
    "train": {"storage", "corpus", "modeling", "tokenization"},
    "hub_export": {"storage", "corpus", "modeling", "tokenization"},
    "panels": {"storage", "corpus", "modeling", "tokenization"},
    "app": {"modeling", "panels"},
}
"""What each package may import beside itself."""
COMMAND_LINES = {"tokenization.commands": {"corpus"}}
"""Modules that may import more: a command line reads the files that its package, which takes strings, does not."""
REMOTE = (
    "modeling/configuration_scratchgpt.py",
    "modeling/modeling_scratchgpt.py",
    "tokenization/tokenization_scratchgpt.py",
)
RUN_FILES = {"run.json", "recipe.json", "metrics.jsonl", "samples.jsonl", "prompts.json", "manifest.json", "train.log"}
SOURCES = [*sorted(path for name in LAYERS for path in (ROOT / name).rglob("*.py")), ROOT / "app.py"]
OTHERS = sorted(path for name in ("benchmarks", "tests", "docs", ".ci") for path in (ROOT / name).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, *, at_start_only: bool = False) -> Iterator[str]:
    """Modules that a file imports, absolute: wherever in the file, or only what runs when the file is imported."""
    package = path.relative_to(ROOT).parent.parts
    for node in _imported_at_start(tree_of(path).body) if at_start_only else ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _imported_at_start(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        for inner in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _imported_at_start(getattr(node, inner, []))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_only_go_down(path: Path) -> None:
    home = module_of(path).split(".")[0]
    allowed = LAYERS[home] | COMMAND_LINES.get(module_of(path), set()) | {home}
    for module in imports(path):
        top = module.split(".")[0]
        assert top not in {*LAYERS, "benchmarks", "tests"} - allowed, f"{name_of(path)} imports {module}"


def test_no_tab_imports_another() -> None:
    for path in (ROOT / "panels" / "tabs").rglob("*.py"):
        own = f"panels.tabs.{path.relative_to(ROOT / 'panels' / 'tabs').parts[0]}"
        others = [module for module in imports(path) if module.startswith("panels.tabs.")]
        assert all(f"{module}.".startswith(f"{own}.") for module in others), (name_of(path), others)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    modules = {module_of(path): path for path in SOURCES}
    graph = {
        name: {
            found
            for found in imports(path, at_start_only=True)
            if found in modules and not f"{name}.".startswith(f"{found}.")  # its package is imported before it
        }
        for name, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[-2] != "storage"], ids=name_of)
def test_only_storage_opens_a_file_of_a_run_by_name(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            operands = [node.right]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            operands = node.args if node.func.attr in {"joinpath", "with_name", "glob", "rglob"} else []
        else:
            continue
        for operand in operands:
            name = operand.value if isinstance(operand, ast.Constant) else None
            assert name not in RUN_FILES, f"{name_of(path)}:{node.lineno} opens {name}: storage.run_folder has it"


@pytest.mark.parametrize("name", REMOTE)
def test_remote_files_import_only_what_a_hub_repository_has(name: str) -> None:
    path = ROOT / name
    siblings = {f"{path.parent.name}.{other.stem}" for other in path.parent.glob("*_scratchgpt.py")}
    for node in ast.walk(tree_of(path)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 or node.module, "a remote file imports names from its sibling, never `from . import`"
            modules = [f"{path.parent.name}.{node.module}" if node.level else str(node.module)]
        for module in modules:
            top = module.split(".")[0]
            assert top in {"torch", "transformers", "regex"} or top in sys.stdlib_module_names or module in siblings


@pytest.mark.parametrize("path", SOURCES + OTHERS, ids=name_of)
def test_a_file_is_short(path: Path) -> None:
    # The model is published as one file, so what it does without transformers (masks, scaled positions) is in it too.
    limits = {"app.py": 80, "modeling_scratchgpt.py": 775}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limits.get(path.name, 450)


def test_a_folder_has_few_files() -> None:
    for folder in {path.parent for path in SOURCES}:
        files = [path for path in folder.glob("*.py") if path.name not in {"__init__.py", "__main__.py"}]
        assert len(files) <= 15, f"{name_of(folder)} has {len(files)} files"


def test_public_functions_have_docstrings() -> None:
    bare = [
        f"{name_of(path)}:{node.name}"
        for path in SOURCES
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        if not node.name.startswith("_") and ast.get_docstring(node) is None
    ]
    assert not bare, bare
