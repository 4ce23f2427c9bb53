"""Text that fits: no line is wider than what shows it, and no letter is lost."""

from __future__ import annotations

import os
import re

from hypothesis import given
from hypothesis import strategies as st

from clipq.study.fitted_table import filled, fitted
from clipq.terminal import shown_width

CELL = st.lists(
    st.sampled_from(
        ["ECE", "-0.0123", "[-0.1, +0.2];", "lsq:w4a8,objective=distil,steps=100@vision", "", "of",
         "added-vulnerability", "x" * 30]
    ),
    max_size=5,
).map(" ".join)  # fmt: skip
HEADERS = ("claim", "effect [interval]", "of")


def letters(text):
    return sorted(re.sub(r"[\s-]", "", text))  # rules are of hyphens


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=4), st.integers(24, 200))
def test_no_line_is_wider_and_no_letter_is_lost(rows, width):
    shown = fitted(rows, HEADERS, width=width)
    assert max(map(len, shown.splitlines()), default=0) <= width
    told = letters("".join(cell for row in rows for cell in row))
    if all(header in shown for header in ("claim", "effect", "of")) and "---" in shown:
        assert letters(shown) == sorted(told + letters("".join(HEADERS)))
    else:
        named = [
            name for row in rows for name, cell in zip(HEADERS, row, strict=True) if cell.strip()
        ]
        assert letters(shown) == sorted(told + letters("".join(named)))
    assert fitted(rows, HEADERS, width=10_000) == fitted(rows, HEADERS)


def test_numbers_and_their_signs_stay_together():
    row = ("C1", "ECE -0.0123 [-0.1, +0.2]", "lsq:w4a8,objective=distil@vision+logit-scale")
    lines = fitted([row], HEADERS, width=40).split("\n")
    assert lines == [
        "claim  effect           of",
        "       [interval]",
        "-----  ---------------  ----------------",
        "C1     ECE -0.0123      lsq:w4a8,",
        "       [-0.1, +0.2]     objective=",
        "                        distil@",
        "                        vision+logit-",
        "                        scale",
    ]


def test_a_paragraph_is_filled_for_a_terminal_alone():
    assert filled("one two", first="- ") == "- one two"
    assert filled("one two", width=6, first="- ") == "- one\n  two"


def test_the_width_is_the_terminal_s(monkeypatch):
    assert shown_width() is None
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "93")
    assert shown_width() == 93
    monkeypatch.setenv("COLUMNS", "0")
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback: os.terminal_size(fallback))
    assert shown_width() is None  # it does not say
