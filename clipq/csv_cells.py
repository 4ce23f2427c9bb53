"""Cells of CSV files that people open in a spreadsheet."""

from __future__ import annotations

from typing import Any

__all__ = ["no_formula"]

_BEGINS = ("=", "+", "-", "@", "\t", "\r")


def no_formula(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: it would run whatever a name says.

    >>> no_formula("=1+1"), no_formula("rtn:w8a8"), no_formula(-0.5)
    ("'=1+1", 'rtn:w8a8', -0.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_BEGINS) else value
