"""How much waivers may excuse: not everything, not for ever, and signed so that it can be read.

`[limits]` in the settings says how much; what exceeds it is refused before anything is measured.
"""

from __future__ import annotations

import datetime
import unicodedata
from collections.abc import Sequence
from fnmatch import fnmatchcase

from clipq.errors import SettingsError
from clipq.gating.waivers import Waiver, Waivers
from clipq.settings import LimitSettings

__all__ = ["legible", "refuse_excess"]

_JOINERS = "\u200c\u200d"  # of words in Persian, Hindi and others
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols without any ink


def refuse_excess(
    waivers: Waivers,
    limits: LimitSettings,
    *,
    today: datetime.date,
    matrix: Sequence[str],
    expected: Sequence[str] = (),
) -> None:
    """Refuse waivers that excuse more than the settings allow.

    Args:
        waivers: of the project.
        limits: of the settings.
        today: from which their ends are counted.
        matrix: ids of all cases that may be measured.
        expected: globs over the cases that the margins expect to fail.

    Raises:
        SettingsError: one cannot be read, ends too late, or waives every case; or too large a share
            of the matrix is waived or expected to fail.

    >>> from pathlib import Path
    >>> waiver = Waiver(("*/*",), "the pilot", "ada", datetime.date(2026, 12, 31))
    >>> refuse_excess(Waivers(Path("w.toml"), (waiver,)), LimitSettings(),
    ...               today=datetime.date(2026, 12, 1), matrix=["vit/rtn:w4/id.ece"])
    Traceback (most recent call last):
    clipq.errors.SettingsError: w.toml: waiver '*/*' of ada matches every case of the matrix
    ...
    """
    last = today + datetime.timedelta(days=limits.waiver_days)
    cases = frozenset(matrix)
    excused = _named(expected, cases)
    for entry in waivers.entries:
        where = f"{waivers.path}: waiver {entry.name}"
        _refuse_illegible(entry, where)
        if entry.expires > last:
            raise SettingsError(
                f"{where} of {entry.owner} expires on {entry.expires}, which is more than "
                f"{limits.waiver_days:,} days ahead",
                hint=f"{last} is the latest today; renew it then, or set waiver_days in [limits]",
            )
        named = _named(entry.cases, cases)
        if named and named == cases:
            raise SettingsError(
                f"{where} of {entry.owner} matches every case of the matrix",
                hint="name the cases that are known to fail; `clipq list cases` shows them all",
            )
        if not entry.expired(today):
            excused |= named
    if len(excused) > limits.excused_share * len(cases):
        raise SettingsError(
            f"{len(excused):,} of {len(cases):,} cases are waived or expected to fail, more than "
            f"{limits.excused_share:.0%} of the matrix",
            hint="leave out what the gate shall not judge (`exclude` in [matrix]), mend it, or set "
            "excused_share in [limits]",
        )


def _named(patterns: Sequence[str], cases: frozenset[str]) -> set[str]:
    """Return the cases that globs match; most are names, which are looked up."""
    found = cases.intersection(patterns)
    for pattern in patterns:
        if pattern not in cases:
            found |= {case for case in cases if fnmatchcase(case, pattern)}
    return set(found)


def legible(text: str) -> bool:
    """Return whether a text holds a letter or digit that leaves ink, and nothing invisible.

    >>> legible("ada@example.org"), legible("\u200b\u200b"), legible("ada\u202egro"), legible("...")
    (True, False, False, False)
    """
    if any(unicodedata.category(c)[0] == "C" and c not in _JOINERS for c in text):
        return False
    return any(unicodedata.category(c)[0] in "LN" and c not in _BLANK for c in text)


def _refuse_illegible(entry: Waiver, where: str) -> None:
    for key in ("owner", "reason"):
        text = " ".join(getattr(entry, key).split())  # a reason may have lines
        if not legible(text):
            raise SettingsError(
                f"{where}: {key} = {text!a} cannot be read",
                hint=f"{key} needs letters or digits, and no invisible characters",
            )
