"""Numbers as short texts: a column over runs becomes a few characters when it is constant.

A column is rounded to whole multiples of a decimal step. Its text starts with ``=`` (pairs of
difference and number of repetitions) or ``~`` (differences), whichever is shorter. Each whole
number is zigzag-coded, in digits of five bits, least significant first, 32 added to all but the
last; a digit is one character of `ALPHABET`. A missing value counts as the number `MISSING`.
`assets/columns.js` reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["ALPHABET", "MISSING", "decimal_step", "pack", "whole_steps"]

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MISSING = 1 << 31
_LARGEST = 1 << 30
_LEVELS = 1000  # steps per margin: finer than any chart shows
_DIGIT_BITS = 5
_FINEST = -300  # its inverse is still a number


def decimal_step(yard: float, *, largest: float) -> int:
    """Return the exponent of the power of ten that a case's numbers are multiples of.

    Args:
        yard: size of a change that matters; a thousandth of it is kept.
        largest: magnitude of the case's largest number, which must stay countable.
    """
    # Differences of logarithms: quotients of the smallest numbers would be zero.
    fine = math.floor(math.log10(yard) - math.log10(_LEVELS))
    coarse = math.ceil(math.log10(largest) - math.log10(_LARGEST)) if largest > 0.0 else fine
    return max(fine, coarse, _FINEST)


def whole_steps(values: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Return values (C, R) as whole multiples of 10 ** exponents (C,); `MISSING` for NaN."""
    finite = np.isfinite(values)
    with np.errstate(over="ignore"):
        scaled = np.where(finite, values, 0.0) * (10.0 ** -exponents.astype(np.float64))[:, None]
    whole = np.rint(np.clip(scaled, -_LARGEST, _LARGEST)).astype(np.int64)
    return np.where(finite, whole, MISSING)


def pack(rows: np.ndarray) -> list[str]:
    """Return one text per row of whole numbers (C, R)."""
    forms = [_shorter(row) for row in np.asarray(rows, dtype=np.int64)]
    texts = iter(_write([numbers for _, numbers in forms]))
    return [mark + next(texts) for mark, _ in forms]


def _shorter(row: np.ndarray) -> tuple[str, np.ndarray]:
    """Return a row's mark and the numbers to write."""
    if not len(row):
        return "~", row
    starts = np.flatnonzero(np.diff(row, prepend=row[0] - 1))
    if 2 * len(starts) > len(row):
        return "~", np.diff(row, prepend=0)
    pairs = np.empty(2 * len(starts), dtype=np.int64)
    pairs[0::2] = np.diff(row[starts], prepend=0)
    pairs[1::2] = np.diff(starts, append=len(row)) - 1
    return "=", pairs


def _write(rows: Sequence[np.ndarray]) -> Iterable[str]:
    """Yield each row's numbers as digits."""
    if not rows:
        return
    numbers = np.concatenate(rows)
    zigzag = np.where(numbers < 0, -2 * numbers - 1, 2 * numbers)
    letters = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)
    digits = np.ones(len(zigzag), dtype=np.int64)
    rest = zigzag >> _DIGIT_BITS
    while rest.any():
        digits += rest > 0
        rest >>= _DIGIT_BITS
    ends = np.cumsum(digits)
    text = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    for place in range(int(digits.max(initial=0))):
        here = digits > place
        digit = (zigzag[here] >> (_DIGIT_BITS * place)) & 31
        more = (digits[here] > place + 1) * 32
        text[ends[here] - digits[here] + place] = letters[digit + more]
    whole = text.tobytes().decode("ascii")
    start = 0
    stops = np.cumsum([len(row) for row in rows])
    for stop in stops:
        end = int(ends[stop - 1]) if stop else 0
        yield whole[start:end]
        start = end
