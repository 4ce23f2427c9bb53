"""A trend in one line of text."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from clipq.history.sparkline import sparkline


def test_the_least_value_is_the_lowest_bar_and_the_most_the_highest():
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, 0.0]) == "█▁"


def test_gaps_are_dots_and_equal_values_a_flat_line():
    assert sparkline([0.5, None, 0.5]) == "▅·▅"
    assert sparkline([None, None]) == "··"
    assert sparkline([]) == ""


def test_of_many_values_the_newest_are_shown():
    assert sparkline([9.0] * 100 + [0.0, 1.0], width=2) == "▁█"


@given(st.lists(st.none() | st.floats(-sys.float_info.max, sys.float_info.max), max_size=50))
def test_every_finite_value_has_a_bar(values):
    shown = sparkline(values, width=50)
    assert len(shown) == len(values)
    assert [letter == "·" for letter in shown] == [value is None for value in values]
