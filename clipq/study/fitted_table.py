"""Tables of text that are no wider than what shows them.

Nothing is left out for want of width: a cell is broken between words and within a quantizer's text;
where even the longest pieces do not fit beside each other, each row is a list of its cells.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

from tabulate import tabulate

__all__ = ["filled", "fitted"]

_GAP = 2
"""What is left between two columns."""
_BREAK = re.compile(r"(?<=\S)(?=\s)|(?<=[,=@/])(?=[^\s,=@/])|(?<=[a-z]-)(?=[a-z])", re.IGNORECASE)


def fitted(
    rows: Sequence[Sequence[object]], headers: Sequence[str], *, width: int | None = None
) -> str:
    """Return a table that is at most `width` wide; each row in one line where that is None.

    Args:
        rows: of cells, each one line.
        headers: of the columns.
        width: of what shows it.

    >>> print(fitted([("C1", "ECE +0.1 [-0.2, +0.3]")], ("claim", "effect"), width=18))
    claim  effect
    -----  -----------
    C1     ECE +0.1
           [-0.2,
           +0.3]
    >>> print(fitted([("C1", "ECE +0.1")], ("claim", "effect"), width=12))
    claim   C1
    effect  ECE
            +0.1
    """
    texts = [[str(cell) for cell in row] for row in rows]
    whole = tabulate(texts, headers, tablefmt="simple", disable_numparse=True)
    if width is None or not texts or max(map(len, whole.splitlines())) <= width:
        return whole
    widths = _widths([list(headers), *texts], width)
    if widths is None:
        return "\n\n".join(_listed(row, headers, width) for row in texts)
    head, *body = [
        [_lines(cell, most) for cell, most in zip(row, widths, strict=True)]
        for row in (headers, *texts)
    ]
    rules = [["-" * most] for most in widths]
    between = "\n\n" if any(len(lines) > 1 for row in body for lines in row) else "\n"
    top = "\n".join(_drawn(cells, widths) for cells in (head, rules))
    return f"{top}\n{between.join(_drawn(row, widths) for row in body)}"


def _drawn(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    """Return the lines of one row, whose cells are of several lines each."""
    return "\n".join(
        (" " * _GAP).join(map(str.ljust, line, widths)).rstrip()
        for line in zip_longest(*cells, fillvalue="")
    )


def filled(text: str, *, width: int | None = None, first: str = "") -> str:
    """Return a paragraph at most `width` wide; as it is where that is None.

    Args:
        text: on one line.
        width: of what shows it.
        first: what stands before it; further lines begin below its end.

    >>> print(filled("Nothing is left out.", width=14, first="  - "))
      - Nothing is
        left out.
    """
    if width is None:
        return first + text
    return textwrap.fill(
        text,
        max(width, len(first) + 1),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
    )


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Return how wide each column is, so that all fit; None where the longest pieces do not."""
    columns = list(zip(*rows, strict=True))
    least = [max(map(_longest, cells)) for cells in columns]
    found = [max(map(len, cells)) for cells in columns]
    room = width - _GAP * (len(columns) - 1)
    if sum(least) > room:
        return None
    while sum(found) > room:
        most = max(range(len(found)), key=lambda at: (found[at] > least[at], found[at]))
        found[most] -= 1
    return found


def _longest(text: str) -> int:
    """Return how long the longest piece of a text is."""
    return max((len(piece.strip()) for piece in _BREAK.split(text)), default=0)


def _lines(text: str, width: int) -> list[str]:
    """Break a text between its pieces, and a piece that is longer anywhere."""
    lines = [""]
    for piece in _BREAK.split(text):
        if len(lines[-1] + piece) <= width:
            lines[-1] += piece
            continue
        bare = piece.strip()
        parts = [bare[at : at + width] for at in range(0, len(bare), width)]
        lines += parts
    return [line.strip() for line in lines if line.strip()] or [""]


def _listed(row: Sequence[str], headers: Sequence[str], width: int) -> str:
    """Return a row as a list of what its cells are, without the empty ones."""
    longest = max(map(len, headers)) + _GAP
    room = max(width - longest, 1)
    lines = []
    for header, cell in zip(headers, row, strict=True):
        for at, line in enumerate(_lines(cell, room) if cell else ()):
            lines.append(f"{'' if at else header:<{longest}}{line}")
    return "\n".join(lines)
