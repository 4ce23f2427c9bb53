"""A trend in one line of text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_GAP = "·"


def sparkline(values: Sequence[float | None], *, width: int = 40) -> str:
    """Return one character per value, from the lowest bar (the least) to the highest (the most).

    Args:
        values: oldest first; None is a gap, shown as a dot.
        width: so many newest values are shown.
    """
    shown = values[-width:] if width > 0 else ()
    numbers = [value for value in shown if value is not None]
    if not numbers:
        return _GAP * len(shown)
    least, most = min(numbers), max(numbers)
    half = most / 2 - least / 2  # halves: the span of huge values overflows
    bars = []
    for value in shown:
        if value is None:
            bars.append(_GAP)
            continue
        place = (value / 2 - least / 2) / half if half > 0 else 0.5
        bars.append(_BARS[min(int(place * len(_BARS)), len(_BARS) - 1)])
    return "".join(bars)
