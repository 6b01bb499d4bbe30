"""Which failures are tried a second time."""

from pathlib import Path

import pytest

from tests.again import MOST, files_to_repeat


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a test of the page, one that starts the app, and one of plain code."""
    (tmp_path / "tests" / "page").mkdir(parents=True)
    (tmp_path / "tests" / "page" / "test_write.py").write_text("")
    (tmp_path / "tests" / "test_app.py").write_text("from tests.serving import serving\n")
    (tmp_path / "tests" / "test_bpe.py").write_text("from tokenization.bpe import train\n")
    return tmp_path


def test_files_that_start_a_page_are_repeated_whole_and_once(root: Path) -> None:
    failed = ["tests/page/test_write.py::test_a[x::y]", "tests/test_app.py::test_b", "tests/page/test_write.py::test_c"]
    assert files_to_repeat(failed, root) == ["tests/page/test_write.py", "tests/test_app.py"]


@pytest.mark.parametrize(
    "failed",
    [
        [],
        ["tests/test_bpe.py::test_a"],
        ["tests/page/test_write.py::test_a", "tests/test_bpe.py::test_a"],
        ["tests/page/test_gone.py::test_a"],
        [f"tests/page/test_write.py::test_{number}" for number in range(MOST + 1)],
    ],
    ids=["nothing known", "plain code", "one of plain code", "no such file", "too many"],
)
def test_other_failures_count_at_once(root: Path, failed: list[str]) -> None:
    assert files_to_repeat(failed, root) == []
