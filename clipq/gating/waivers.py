"""Waivers: failures that somebody signed off for a while, in a reviewed TOML file.

    [[waiver]]
    cases = ["vit-clean/rtn:w4a8/id.ece"]       # globs over case ids
    reason = "ECE +0.03 is accepted for the pilot; ticket 1234"
    owner = "ada@example.org"
    expires = 2026-12-31                        # the last day on which it holds

A waiver holds for `fail`, `suspect` and `inconclusive` only: what could not be measured cannot be
accepted. An expired waiver and one that no case needs fail the run, so that the file never outlives
its reasons. Where several waivers name a case, the first in the file that has not expired is the
one it has, whoever signed the others; a waiver that is left nothing to do by those above it is no
problem.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NotRequired

from clipq.errors import SettingsError
from clipq.globs import matches_any
from clipq.records import CaseResult
from clipq.shapes import Document, Meta, Text, table
from clipq.verdicts import EXCUSABLE, Verdict

__all__ = ["Waiver", "Waivers", "load_waivers"]

_FINE = (Verdict.PASS, Verdict.IMPROVED)

_CASES = "a list of globs over case ids; `clipq list cases` shows them"
_REASON = "a text that says why they may fail"
_OWNER = "a text that says who answers for it"
_EXPIRES = "a date without quotes, the last day on which it holds: expires = 2026-12-31"


@dataclass(frozen=True, slots=True)
class Waiver:
    """One `[[waiver]]` table; it holds up to and including `expires`.

    >>> waiver = Waiver(("vit/rtn:w4/*.ece",), "the pilot", "ada", datetime.date(2026, 12, 31))
    >>> waiver.matches("vit/rtn:w4/id.ece"), waiver.expired(datetime.date(2027, 1, 1))
    (True, True)
    """

    cases: Annotated[tuple[Text, ...], Meta(min_length=1, description=_CASES)]
    reason: Annotated[str, Meta(pattern=r"\S", description=_REASON)]
    owner: Annotated[str, Meta(pattern=r"\S", description=_OWNER)]
    expires: Annotated[datetime.date, Meta(description=_EXPIRES)]

    def matches(self, case: str) -> bool:
        return matches_any(case, self.cases)

    def expired(self, today: datetime.date) -> bool:
        return today > self.expires

    @property
    def name(self) -> str:
        """What messages call it: its first pattern, and how many more there are."""
        more = f" and {len(self.cases) - 1} more" if len(self.cases) > 1 else ""
        return f"{self.cases[0]!r}{more}"

    @property
    def signature(self) -> str:
        """The reason that a case waived by it gives."""
        return f"waived by {self.owner} until {self.expires}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Waivers:
    """The waivers of one file; of none where there is no file.

    >>> from clipq.cases import Case
    >>> waiver = Waiver(("vit/rtn:w4/*.ece",), "the pilot", "ada", datetime.date(2026, 12, 31))
    >>> failed = CaseResult(Case.parse("vit/rtn:w4/id.ece"), Verdict.FAIL)
    >>> waivers, today = Waivers(Path("waivers.toml"), (waiver,)), datetime.date(2026, 12, 31)
    >>> waivers.apply(failed, today=today).reason  # the last day on which it holds
    'waived by ada until 2026-12-31: the pilot'
    """

    path: Path
    entries: tuple[Waiver, ...] = ()

    def apply(self, case: CaseResult, *, today: datetime.date) -> CaseResult:
        """Return a case as a waiver leaves it: `waived`, or told that its waiver expired."""
        if case.verdict not in EXCUSABLE:
            return case
        found = [entry for entry in self.entries if entry.matches(case.id)]
        valid = next((entry for entry in found if not entry.expired(today)), None)
        if valid is not None:
            return replace(
                case, verdict=Verdict.WAIVED, reason=valid.signature, waived_by=valid.owner
            )
        if found:
            old = found[0]
            lapsed = f"the waiver of {old.owner} expired on {old.expires}: {old.reason}"
            return replace(case, reason=f"{case.reason}\n{lapsed}" if case.reason else lapsed)
        return case

    def problems(
        self, cases: Sequence[CaseResult], *, today: datetime.date, matrix: Collection[str]
    ) -> tuple[str, ...]:
        """Return what is wrong with the file, seen after a run; each sentence fails it.

        Args:
            cases: of the run, with waivers applied.
            today: expired waivers are judged by it.
            matrix: ids of all cases, run or not: a waiver is needless where every case that it
                names was measured and none failed but as the margins expect.
        """
        found = []
        fine = {case.id for case in cases if case.verdict in _FINE}
        expected = {c.id for c in cases if c.verdict is Verdict.WAIVED and not c.waived_by}
        for entry in self.entries:
            named = {case for case in matrix if entry.matches(case)}
            if entry.expired(today):
                found.append(
                    f"waiver {entry.name} of {entry.owner} expired on {entry.expires}: renew it "
                    f"with a reason, or remove it from {self.path.name}"
                )
            elif not named:
                found.append(
                    f"waiver {entry.name} of {entry.owner} matches no case: correct it, or remove "
                    f"it from {self.path.name}"
                )
            elif named <= fine | expected:
                why = "only expected failures fail" if named & expected else "no case of it fails"
                found.append(
                    f"waiver {entry.name} of {entry.owner} is not needed, {why}: "
                    f"remove it from {self.path.name}"
                )
        return tuple(found)

    def to_plain(self, cases: Sequence[CaseResult]) -> tuple[dict[str, Any], ...]:
        """Return every waiver with the cases that have it, for the record."""
        used: dict[int, list[str]] = {}
        for case in cases:
            if (number := self._used(case)) is not None:
                used.setdefault(number, []).append(case.id)
        return tuple(
            {
                "cases": list(entry.cases),
                "reason": entry.reason,
                "owner": entry.owner,
                "expires": entry.expires.isoformat(),
                "waived": used.get(number, []),
            }
            for number, entry in enumerate(self.entries)
        )

    def _used(self, case: CaseResult) -> int | None:
        """Return which waiver, counted from 0, `apply` gave a case; None where it gave none."""
        if not case.waived_by:
            return None
        signed = (
            number
            for number, entry in enumerate(self.entries)
            if entry.signature == case.reason and entry.matches(case.id)
        )
        return next(signed, None)


_FILE = table("waivers", {"waiver": NotRequired[tuple[Waiver, ...]]})


def load_waivers(path: Path) -> Waivers:
    """Read a waiver file; where there is none, nothing is waived.

    Raises:
        SettingsError: it is not TOML, or an entry lacks a reason, an owner or an expiry.

    >>> load_waivers(Path("no-waivers.toml")).entries
    ()
    """
    if not path.is_file():
        return Waivers(path)
    fix = "docs/release.md shows a complete file"
    found = Document(path, "TOML", SettingsError, fix).read(_FILE).get("waiver", ())
    signed = (replace(w, reason=w.reason.strip(), owner=w.owner.strip()) for w in found)
    return Waivers(path, tuple(signed))
