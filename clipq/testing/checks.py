"""What a conformance suite is made of."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Check", "NotRun", "Violation", "expect"]


class Violation(AssertionError):  # noqa: N818 - what happened, to whom checks
    """What was checked does not keep an invariant; the message says which, and by how much."""


class NotRun(unittest.SkipTest):
    """A check does not apply, or cannot run on this machine; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """One invariant of one thing: call it, and it returns or raises `Violation`.

    Args:
        subject: what is checked.
        invariant: its short name.
        run: the check itself.

    >>> check = Check("double", "is-linear", lambda: expect(2 * (1 + 2) == 2 + 4, "it is not"))
    >>> str(check), check()
    ('double-is-linear', None)
    """

    subject: str
    invariant: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        """Return a name that serves as a test's id."""
        return f"{self.subject}-{self.invariant}"


def expect(condition: object, message: str) -> None:
    """Raise unless `condition` holds; an `assert` that `python -O` keeps.

    Raises:
        Violation: it does not.

    >>> expect(0.3 < 0.2, "an error of 0.3, more than 0.2")
    Traceback (most recent call last):
    clipq.testing.checks.Violation: an error of 0.3, more than 0.2
    """
    if not condition:
        raise Violation(message)
