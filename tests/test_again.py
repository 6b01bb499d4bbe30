"""Which failures are tried a second time."""

import pytest

from tests.again import MOST, files_to_repeat


def test_the_files_of_few_failures_are_repeated_whole_and_once() -> None:
    failed = ["tests/page/test_write.py::test_a[x::y]", "tests/test_app.py::test_b", "tests/page/test_write.py::test_c"]
    assert files_to_repeat(failed) == ["tests/page/test_write.py", "tests/test_app.py"]


@pytest.mark.parametrize("count", [0, MOST + 1], ids=["nothing known", "too many"])
def test_other_failures_count_at_once(count: int) -> None:
    assert files_to_repeat([f"tests/page/test_write.py::test_{number}" for number in range(count)]) == []
