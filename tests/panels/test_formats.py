"""Numbers as the page shows them, at the edges between two forms."""

import math
from collections.abc import Callable

import pytest

from panels.formats import duration, file_size, percent, rough_duration, short_number
from panels.tabs.inside.tab import finite


@pytest.mark.parametrize(
    ("show", "number", "text"),
    [
        (short_number, 999, "999"),
        (short_number, 1_024, "1.02 k"),
        (short_number, 9_011_265, "9.01 M"),
        (short_number, 7 * 10**9, "7 B"),
        (file_size, 999, "999 bytes"),
        (file_size, 1_000, "1 kB"),
        (file_size, 4_340_000, "4.34 MB"),
        (file_size, 2.5e9, "2.5 GB"),
        (duration, 0.4, "less than a second"),
        (duration, 59.6, "1 min"),
        (duration, 143, "2 min 23 s"),
        (duration, 3_600, "1 h"),
        (duration, 3_725, "1 h 2 min"),
        (rough_duration, 0.0, "1 s"),
        (rough_duration, 89.4, "89 s"),
        (rough_duration, 90, "2 min"),
        (rough_duration, 4_790, "1 h 20 min"),
        (percent, 0.0, "0\u00a0%"),
        (percent, 0.00001, "< 0.01\u00a0%"),
        (percent, 0.0042, "0.42\u00a0%"),
        (percent, 0.0712, "7.1\u00a0%"),
        (percent, 0.41, "41.0\u00a0%"),
        (percent, 0.9999, "> 99.9\u00a0%"),
        (percent, 1.0, "100\u00a0%"),
        (finite, 1.5, 1.5),
        (finite, None, None),
        (finite, math.inf, None),
        (finite, math.nan, None),
    ],
)
def test_numbers(show: Callable[[float], object], number: float, text: object) -> None:
    assert show(number) == text
