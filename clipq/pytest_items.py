"""Which case or kernel check a test is of: told by its parameters, never by its node id.

Node ids are other people's: a second `parametrize`, a parametrized fixture, `pytest-repeat` or a
folder's name put brackets and text of their own into them. So every test of the matrix says itself
what it is of: in a property that each of its reports carries, and, for a test whose worker dies
before it reports, in what its process tells the controller once it has collected.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cases import Case

if TYPE_CHECKING:
    import pytest

__all__ = ["CASE", "CHECK", "PARAMETERS", "Collected", "Collecting", "case_of", "check_of", "named"]

CASE, CHECK = "clipq_case", "clipq_kernel_check"
PARAMETERS = (CASE, CHECK)
_JUDGES = {"clipq_gate": CASE, "clipq_conformance": CHECK}
"""Fixtures that judge, and the parameter that says what a test of theirs is of."""
_PROPERTY = "clipq-item"


def case_of(item: pytest.Item) -> Case | None:
    """Return the case that a test is parametrized with, if any."""
    found = _parameters(item).get(CASE)
    return found if isinstance(found, Case) else None  # pytest has a mark for "no parameter"


def check_of(item: pytest.Item) -> tuple[str, str] | None:
    """Return the (kernel, check) that a test is parametrized with, if any."""
    found = _parameters(item).get(CHECK)
    return found if isinstance(found, tuple) else None


def named(report: pytest.TestReport) -> tuple[str, str]:
    """Return the ids of the case and of the kernel check that a report is of; "" where of none.

    The report of a test whose worker died carries nothing.
    """
    for name, value in getattr(report, "user_properties", ()):
        if name == _PROPERTY:
            case, check = json.loads(value)
            return case, check
    return "", ""


@dataclass(slots=True)
class Collected:
    """What one process, or all processes of a run, collected.

    Args:
        cases: case id by node id.
        checks: id of the kernel check by node id.
        stray: tests that ask for a verdict and are of nothing that was planned.
        deselected: how many tests of ours were left out and said to be (``-k``, ``--deselect``).
        dropped: how many were taken away without a word to pytest.

    >>> both = Collected(cases={"t.py::t[a]": "vit/rtn:w8/id.ece"}, dropped=1)
    >>> both.add(Collected(cases={"t.py::t[b]": "vit/rtn:w8/id.nll"}, dropped=1))
    >>> sorted(both.cases.values()), both.dropped, both.anything
    (['vit/rtn:w8/id.ece', 'vit/rtn:w8/id.nll'], 1, True)
    """

    cases: dict[str, str] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)
    stray: list[str] = field(default_factory=list)
    deselected: int = 0
    dropped: int = 0

    @property
    def anything(self) -> bool:
        """Whether a run has something of ours to answer for."""
        return bool(self.cases or self.checks or self.stray or self.dropped)

    def add(self, other: Collected) -> None:
        """Take in what another process collected: mostly the same."""
        self.cases.update(other.cases)
        self.checks.update(other.checks)
        self.stray = sorted({*self.stray, *other.stray})
        self.deselected = max(self.deselected, other.deselected)
        self.dropped = max(self.dropped, other.dropped)

    def write(self, path: Path) -> None:
        """Leave it for another process, which reads it once told that collection is over."""
        path.write_text(json.dumps(asdict(self)), "ascii")

    @staticmethod
    def read(path: Path) -> Collected:
        return Collected(**json.loads(path.read_text("ascii")))


class Collecting:
    """Watches one process collect."""

    def __init__(self) -> None:
        self._seen = 0
        self._deselected = 0

    def saw(self, item: pytest.Item) -> None:
        """Note a test that was found, and have its reports say what it is of."""
        case, check = case_of(item), check_of(item)
        if case is None and check is None:
            return
        self._seen += 1
        ids = [case.id if case else "", "/".join(check) if check else ""]
        item.user_properties.append((_PROPERTY, json.dumps(ids)))

    def deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note tests that were left out, openly."""
        self._deselected += sum(map(_is_planned, items))

    def finished(self, items: Iterable[pytest.Item]) -> Collected:
        """Return what is to be run."""
        found = Collected(deselected=self._deselected)
        kept = 0
        for item in items:
            case, check = case_of(item), check_of(item)
            kept += _is_planned(item)
            if case is not None:
                found.cases[item.nodeid] = case.id
            if check is not None:
                found.checks[item.nodeid] = "/".join(check)
            fixtures = getattr(item, "fixturenames", ())
            for judge, parameter in _JUDGES.items():
                if judge in fixtures and parameter not in _parameters(item):
                    found.stray.append(item.nodeid)
        found.dropped = max(0, self._seen - self._deselected - kept)
        return found


def _is_planned(item: pytest.Item) -> bool:
    return case_of(item) is not None or check_of(item) is not None


def _parameters(item: pytest.Item) -> dict[str, Any]:
    return getattr(getattr(item, "callspec", None), "params", {})
