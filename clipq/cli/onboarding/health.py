"""Checks that never raise: each says OK, warns, or names a problem and its fix."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from clipq.errors import ClipqError
from clipq.settings import Settings

__all__ = ["Check", "Context", "Finding", "State", "examine"]


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnosis: what was looked at, how it is, and what to do about it."""

    name: str
    state: State
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What checks look at.

    Args:
        settings: of the project; None where there are none or they cannot be read.
        environment: of the process.
        today: expiries are judged by it.
    """

    settings: Settings | None
    environment: Mapping[str, str] = field(default_factory=dict)
    today: datetime.date = datetime.date.min


@dataclass(frozen=True, slots=True)
class Check:
    """A named check.

    Args:
        name: what it looks at.
        look: yields what it finds; whatever it raises becomes a problem.
        needs_settings: whether it is skipped where there are none.
        secretive: whether what it raises may hold a password, and is not shown.
    """

    name: str
    look: Callable[[Context], Iterator[Finding]]
    needs_settings: bool = False
    secretive: bool = False


def examine(checks: Sequence[Check], context: Context) -> list[Finding]:
    """Run every check, each apart from the others."""
    findings: list[Finding] = []
    for check in checks:
        if check.needs_settings and context.settings is None:
            findings.append(Finding(check.name, State.SKIPPED, "there are no valid settings"))
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # libraries' notes while they are imported
                findings.extend(check.look(context))
        except ClipqError as error:
            findings.append(Finding(check.name, State.PROBLEM, error.problem, error.hint))
        except (Exception, SystemExit) as error:  # broken installations raise anything
            findings.append(Finding(check.name, State.PROBLEM, _crashed(error, check)))
    return findings


def _crashed(error: BaseException, check: Check) -> str:
    lines = [] if check.secretive else str(error).strip().splitlines()
    detail = f": {lines[0][:200]}" if lines else ""
    return f"the check itself failed with {type(error).__name__}{detail}"
