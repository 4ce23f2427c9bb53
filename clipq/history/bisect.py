"""Where in its history a case changed, and how to go on from there between two commits.

Runs are compared, never commits: a store has a run for some commits only. The change lies between
two runs that follow one another, and `git bisect` finds the commit between theirs.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import escape
from typing import Any

from clipq.cases import Case
from clipq.errors import StoreError
from clipq.history.model import StoredResult
from clipq.verdicts import Policy, Verdict

__all__ = [
    "VerdictChange",
    "find_value_change",
    "find_verdict_change",
    "git_commands",
    "is_new_value",
    "is_new_verdict",
]

_SAME = 1e-6  # values this close, relatively, are the same: float noise between machines
_UNJUDGED = (
    Verdict.MISSING,
    Verdict.VANISHED,
    Verdict.INCOMPARABLE,
    Verdict.DRIFTED,
    Verdict.ERROR,
)


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """A case's last change: `before` and `after` are runs that follow one another.

    Args:
        before: the last run that was as it used to be.
        after: the first run that is as the latest.
        by: ``verdict`` (it blocks now, or no longer does) or ``value``.
        worse: whether the change is for the worse.
        runs_since: runs from `after` to the latest, both included.
        policy: under which a verdict blocks.
    """

    before: StoredResult
    after: StoredResult
    by: str
    worse: bool
    runs_since: int
    policy: Policy

    def to_plain(self) -> dict[str, Any]:
        """Return the change as built-in types, ready for strict JSON."""
        return {
            "case": self.after.case,
            "by": self.by,
            "worse": self.worse,
            "runs_since": self.runs_since,
            "last_before": _plain(self.before),
            "first_after": _plain(self.after),
        }


def find_verdict_change(rows: Sequence[StoredResult], *, policy: Policy) -> VerdictChange | None:
    """Return the last time a case began, or ceased, to block under `policy`; None if it never did.

    Args:
        rows: of one case, oldest first.
        policy: which verdicts block.

    >>> from clipq.history.model import RunInfo
    >>> from clipq.verdicts import POLICIES
    >>> def row(number, verdict, observed):
    ...     commit = {"sha": f"c{number}"}
    ...     run = RunInfo(f"run{number}", number, "2026-01-31", commit, "ci", True, 1)
    ...     numbers = observed, 0.03, observed - 0.03, 0.02, None, None, None
    ...     return StoredResult("vit/rtn:w8/id.ece", run, verdict, *numbers)
    >>> rows = row(1, Verdict.PASS, 0.03), row(2, Verdict.PASS, 0.04), row(3, Verdict.FAIL, 0.06)
    >>> change = find_verdict_change(rows, policy=POLICIES["ci"])
    >>> change.before.run.number, change.after.run.number, change.worse
    (2, 3, True)
    """

    def blocks(row: StoredResult) -> bool:
        return policy.blocks(row.verdict)

    at = _boundary(rows, lambda row, latest: blocks(row) == blocks(latest))
    if at is None:
        return None
    worse, since = blocks(rows[at]), len(rows) - at
    return VerdictChange(rows[at - 1], rows[at], "verdict", worse, since, policy)


def find_value_change(rows: Sequence[StoredResult], *, policy: Policy) -> VerdictChange | None:
    """Return the last time a case's value changed by more than float noise; None if it never did.

    Runs without a value, or against another FP32 value, are changes too.

    >>> from clipq.history.model import RunInfo
    >>> from clipq.verdicts import POLICIES
    >>> def row(number, observed):
    ...     commit = {"sha": f"c{number}"}
    ...     run = RunInfo(f"run{number}", number, "2026-01-31", commit, "ci", True, 1)
    ...     numbers = observed, 0.03, observed - 0.03, 0.02, None, None, None
    ...     return StoredResult("vit/rtn:w8/id.ece", run, Verdict.PASS, *numbers)
    >>> rows = [row(1, 0.03), row(2, 0.04), row(3, 0.04)]
    >>> change = find_value_change(rows, policy=POLICIES["ci"])
    >>> change.before.run.number, change.after.run.number, change.runs_since
    (1, 2, 2)
    """
    at = _boundary(rows, _same_value)
    if at is None:
        return None
    before, after = rows[at - 1], rows[at]
    worse = _or_infinite(after.loss) > _or_infinite(before.loss)
    return VerdictChange(before, after, "value", worse, len(rows) - at, policy)


def git_commands(
    change: VerdictChange,
    *,
    folder: str,
    program: str = "clipq",
    profile: str = "",
) -> list[str]:
    """Return what to type in order to find the commit; [] where git cannot tell.

    A commit is judged by what a report, written on it, says of the case. One on which the gate
    writes none, or on which the case was not judged, is skipped (125), never called bad.

    Args:
        change: of a case, which the gate is narrowed to, between runs of two commits.
        folder: where the gate writes its report, from the top of the repository.
        program: how clipq is called there.
        profile: of the gate; "" for its default.

    >>> from clipq.history.model import RunInfo
    >>> from clipq.verdicts import POLICIES
    >>> def row(number, observed):
    ...     commit = {"sha": f"c{number}"}
    ...     run = RunInfo(f"run{number}", number, "2026-01-31", commit, "ci", True, 1)
    ...     numbers = observed, 0.03, observed - 0.03, 0.02, None, None, None
    ...     return StoredResult("vit/rtn:w8/id.ece", run, Verdict.PASS, *numbers)
    >>> change = find_value_change([row(1, 0.03), row(2, 0.04)], policy=POLICIES["ci"])
    >>> start, run = git_commands(change, folder="out")
    >>> start
    'git bisect start --term-new=changed --term-old=same c2 c1'
    """
    old, new = (str(side.run.commit.get("sha", "")) for side in (change.before, change.after))
    if not old or not new or old == new:
        return []
    gate = [f"{program} gate"]
    case = Case.parse(change.after.case)
    narrowed = (
        ("model", case.model),
        ("quantizer", case.quantizer),
        ("probe", case.probe),
        ("metric", case.metric),
    )
    gate += [f"--{name} {shlex.quote(escape(value))}" for name, value in narrowed]
    gate += [f"--report {shlex.quote(folder)}"]
    gate += [f"--profile {profile}"] if profile else []
    gate += [f"--policy {change.policy.name}", "-n0"]
    report = shlex.quote(f"{folder}/report.json")
    judge = [f"clipq bisect {shlex.quote(change.after.case)} --judge {report}"]
    if change.by == "value":
        terms = "--term-new=changed --term-old=same "
        judge += [f"--old={_text(change.before.observed)} --new={_text(change.after.observed)}"]
    else:
        terms = "" if change.worse else "--term-new=fixed --term-old=broken "
        judge += [f"--old={change.before.verdict} --new={change.after.verdict}"]
    # A program that breaks ends with 1 too: without a new report nothing is judged.
    script = (
        f"rm -f {report}; {' '.join(gate)}; [ $? -le 1 ] && [ -f {report} ] || exit 125; "
        f"{' '.join(judge)}; case $? in 0) exit 0;; 1) exit 1;; *) exit 125;; esac"
    )
    return [f"git bisect start {terms}{new} {old}", f"git bisect run sh -c {shlex.quote(script)}"]


def is_new_value(value: float | None, *, old: float | None, new: float | None) -> bool | None:
    """Return whether `value` is nearer to `new` than to `old`; None where that cannot be told.

    A missing value (None) is near to a missing one alone.

    >>> is_new_value(0.81, old=0.9, new=0.8), is_new_value(None, old=0.9, new=0.8)
    (True, None)
    """
    if value is not None and old is not None and new is not None:
        return abs(value - new) < abs(value - old)
    if (value is None) == (new is None) and (value is None) != (old is None):
        return True
    if (value is None) == (old is None) and (value is None) != (new is None):
        return False
    return None


def is_new_verdict(verdict: Verdict, *, old: Verdict, new: Verdict, policy: Policy) -> bool | None:
    """Return whether `verdict` blocks, or does not, as `new` does; None where that is not told.

    A verdict that says nothing of the quantizer, such as `missing` or `error`, is on a side only
    if it is that side's own.

    >>> from clipq.verdicts import POLICIES
    >>> sides = {"old": Verdict.PASS, "new": Verdict.FAIL, "policy": POLICIES["ci"]}
    >>> is_new_verdict(Verdict.INCONCLUSIVE, **sides), is_new_verdict(Verdict.ERROR, **sides)
    (False, None)
    """
    if verdict in _UNJUDGED:
        return verdict is new if verdict in (old, new) else None
    return policy.blocks(verdict) == policy.blocks(new)


def _boundary(
    rows: Sequence[StoredResult], alike: Callable[[StoredResult, StoredResult], bool]
) -> int | None:
    """Return the first index from which on every row is like the latest; None if all are."""
    if not rows:
        raise StoreError("a case without a run", hint="`clipq history list`")
    at = len(rows)
    while at and alike(rows[at - 1], rows[-1]):
        at -= 1
    return at or None


def _same_value(row: StoredResult, latest: StoredResult) -> bool:
    return _close(row.observed, latest.observed) and _close(row.baseline, latest.baseline)


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=_SAME * _SAME)


def _or_infinite(loss: float | None) -> float:
    return math.inf if loss is None else loss


def _text(value: float | None) -> str:
    return "none" if value is None else repr(value)


def _plain(row: StoredResult) -> dict[str, Any]:
    return {
        "run": row.run.number,
        "id": row.run.id,
        "started": row.run.started,
        "commit": dict(row.run.commit),
        "verdict": row.verdict.value,
        "observed": row.observed,
        "baseline": row.baseline,
        "loss": row.loss,
        "margin": row.margin,
    }
