"""Examinations that never raise: each says OK, warns, or names a problem and its fix."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from clipq.errors import ClipqError
from clipq.settings import Settings

__all__ = ["Context", "Examination", "Finding", "State", "examine"]


class State(StrEnum):
    """How an examination ended."""

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
    """What examinations look at.

    Args:
        settings: of the project; None where there are none or they cannot be read.
        environment: of the process.
        today: expiries are judged by it.
    """

    settings: Settings | None
    environment: Mapping[str, str] = field(default_factory=dict)
    today: datetime.date = datetime.date.min


@dataclass(frozen=True, slots=True)
class Examination:
    """One look at what must be in place, and its name.

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


def examine(examinations: Sequence[Examination], context: Context) -> list[Finding]:
    """Make every examination, each apart from the others."""
    findings: list[Finding] = []
    for examination in examinations:
        if examination.needs_settings and context.settings is None:
            findings.append(Finding(examination.name, State.SKIPPED, "there are no valid settings"))
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # libraries' notes while they are imported
                findings.extend(examination.look(context))
        except ClipqError as error:
            findings.append(Finding(examination.name, State.PROBLEM, error.problem, error.hint))
        except (Exception, SystemExit) as error:  # broken installations raise anything
            findings.append(Finding(examination.name, State.PROBLEM, _crashed(error, examination)))
    return findings


def _crashed(error: BaseException, examination: Examination) -> str:
    lines = [] if examination.secretive else str(error).strip().splitlines()
    detail = f": {lines[0][:200]}" if lines else ""
    return f"the check itself failed with {type(error).__name__}{detail}"
