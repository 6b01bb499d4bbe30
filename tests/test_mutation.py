"""The mutation tool itself: which faults it makes, and that its explanations are of faults that there are."""

import ast
from pathlib import Path

import pytest

from tests.mutation.__main__ import EQUIVALENT, report, sample
from tests.mutation.areas import AREAS
from tests.mutation.mutants import mutants_of

ROOT = Path(__file__).parents[1]
FILES = {file: tests for files in AREAS.values() for file, tests in files.items()}
SOURCE = '''\
"""Docstring."""
LIMIT: "int" = 3

def half(values: "list", é="é") -> "int":
    """Docstring."""
    assert values is not None
    total = 0
    for value in values:
        if value and not (0 <= value < LIMIT):
            raise ValueError(f"expected {LIMIT}, got {value}" + "a message")
        total += value
    return total // 2
'''


def test_each_piece_has_its_faults_and_nothing_else_changes() -> None:
    found = {}
    for mutant in mutants_of(SOURCE.encode()):
        changed = mutant.apply(SOURCE.encode()).decode()
        ast.parse(changed)
        lines = zip(SOURCE.splitlines(), changed.splitlines(), strict=True)
        ((old, new),) = [(old.strip(), new.strip()) for old, new in lines if old != new]
        assert SOURCE.splitlines()[mutant.line - 1].strip() == old
        found[mutant.name] = new
    assert found == {
        "module: 3 -> (4)": 'LIMIT: "int" = (4)',
        "half: \"é\" -> ('éXX')": 'def half(values: "list", é=(\'éXX\')) -> "int":',
        "half: 0 -> (1)": "total = (1)",
        "half: value and not (0 <= value < LIMIT) -> (value or not 0 <= value < LIMIT)": (
            "if (value or not 0 <= value < LIMIT):"
        ),
        "half: not (0 <= value < LIMIT) -> (0 <= value < LIMIT)": "if value and (0 <= value < LIMIT):",
        "half: 0 <= value < LIMIT -> (0 < value < LIMIT)": "if value and not ((0 < value < LIMIT)):",
        "half: 0 <= value < LIMIT -> (0 > value < LIMIT)": "if value and not ((0 > value < LIMIT)):",
        "half: 0 <= value < LIMIT -> (0 <= value <= LIMIT)": "if value and not ((0 <= value <= LIMIT)):",
        "half: 0 <= value < LIMIT -> (0 <= value >= LIMIT)": "if value and not ((0 <= value >= LIMIT)):",
        "half: 0 -> (1) (2)": "if value and not ((1) <= value < LIMIT):",
        'half: raise ValueError(f"expected {LIMIT}, got {value}" + "a message") -> pass': "pass",
        'half: f"expected {LIMIT}, got {value}" + "a message" -> '
        "(f'expected {LIMIT}, got {value}' - 'a message')": (
            "raise ValueError((f'expected {LIMIT}, got {value}' - 'a message'))"
        ),
        "half: total += value -> pass": "pass",
        "half: total += value -> total -= value": "total -= value",
        "half: return total // 2 -> return None": "return None",
        "half: total // 2 -> (total * 2)": "return (total * 2)",
        "half: 2 -> (3)": "return total // (3)",
    }


@pytest.mark.parametrize("file", FILES)
def test_every_mutant_of_our_files_is_python_and_a_change(file: str) -> None:
    source = (ROOT / file).read_bytes()
    original = ast.dump(ast.parse(source))
    mutants = mutants_of(source)
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    drawn = sample(source, 20, seed=3)
    assert drawn == sample(source, 20, seed=3)
    assert len(drawn) == 20
    for mutant in drawn:
        assert ast.dump(ast.parse(mutant.apply(source))) != original
    assert all((ROOT / test).is_file() for test in FILES[file])


def test_what_is_explained_is_there() -> None:
    """A mutant that is listed as equivalent is one of the file as it is now."""
    for file, reasons in EQUIVALENT.items():
        names = {mutant.name for mutant in mutants_of((ROOT / file).read_bytes())}
        assert not set(reasons) - names, f"equivalent.json: remove what is no longer in {file}"
        assert all(len(reason) > 10 for reason in reasons.values())


def test_the_table_and_the_score(capsys: pytest.CaptureFixture[str]) -> None:
    file = "storage/checksums.py"
    mutants = [one for one in mutants_of((ROOT / file).read_bytes()) if one.name not in EQUIVALENT.get(file, {})][:4]
    names = [mutant.name for mutant in mutants]
    results = {(file, names[0]): "survived", (file, names[1]): "killed", (file, names[2]): "time limit"}
    areas, chosen = {"checkpoints": {file: ["a test"]}}, {file: mutants}
    assert report(areas, chosen, results, 66)
    assert not report(areas, chosen, results, 67)
    said = capsys.readouterr().out
    assert f"survived: {file}:{mutants[0].line} {names[0]}\n" in said
    assert "| checkpoints | `storage/checksums.py` | 3 | 2 | 1 | 0 | 67 % |\n" in said
