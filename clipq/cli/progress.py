"""How far a long command is: a bar on a terminal, rare lines in a log, nothing where asked.

    with watching(options, unit="image") as watch:
        Evaluator(settings, progress=watch)

On a terminal each task has a bar with rate and remaining time, by tqdm, on standard error. In a log
or a pipe a bar would be thousands of lines: there a line is written at most every 30 seconds, and
one at the end. ``--quiet`` writes neither.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from clipq.terminal import one_line, printable

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["EVERY_SECONDS", "Progress", "duration", "is_live", "watching"]

EVERY_SECONDS = 30.0
"""Shortest time between two lines of a log."""


class Progress(Protocol):
    """Told how far tasks are.

    Calling it reports a task of its own: tasks with different names may run side by side. `step`
    reports a step of one task whose name changes with every step. `done` and `total` count units;
    a `total` of 0 is an unknown one. `clear` takes what is shown off the screen, before something
    else is printed.
    """

    def __call__(self, what: str, done: int, total: int) -> None: ...

    def step(self, what: str, done: int, total: int) -> None: ...

    def clear(self) -> None: ...

    def close(self) -> None: ...


@contextmanager
def watching(
    options: argparse.Namespace,
    *,
    unit: str,
    closing: bool = True,
    stream: TextIO | None = None,
    environment: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Yield the progress that fits where a command runs.

    Args:
        options: of the command line; ``quiet`` silences.
        unit: what is counted, singular.
        closing: whether a log ends with what was done in all; not where the command says it.
        stream: where it is shown; default: standard error.
        environment: of the process; ``CI`` and ``TERM=dumb`` stand for a log.
        clock: seconds, counted up.
    """
    stream = sys.stderr if stream is None else stream
    shown: Progress
    if getattr(options, "quiet", False):
        shown = _Silent()
    elif is_live(stream, environment):
        shown = _Bars(stream, unit)
    else:
        shown = _Lines(stream, unit, clock)
    try:
        yield shown
    except BaseException:
        shown.clear()  # no closing line: nothing was finished
        raise
    if closing:
        shown.close()
    else:
        shown.clear()


def is_live(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody watches a stream: a terminal that can move its cursor, and no CI log.

    A pseudo-terminal without a width, as some containers and recorders give, shows no bar.
    """
    if environment.get("CI", "") not in ("", "0", "false") or environment.get("TERM") == "dumb":
        return False
    try:
        if not stream.isatty():
            return False
    except ValueError:  # closed
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):  # it does not say
        return True


def duration(seconds: float) -> str:
    """Return a duration as people say it: ``42 s``, ``3:05 min``, ``2:03:00 h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


class _Silent:
    """Says nothing."""

    def __call__(self, what: str, done: int, total: int) -> None:
        return

    def step(self, what: str, done: int, total: int) -> None:
        return

    def clear(self) -> None:
        return

    def close(self) -> None:
        return


class _Bars:
    """One bar a task, gone once the task is done."""

    def __init__(self, stream: TextIO, unit: str) -> None:
        self._stream, self._unit = stream, unit
        self._bars: dict[str, tqdm[Any]] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        bar = self._bar(what, what, total, self._unit)
        bar.total = total or None
        bar.update(done - bar.n)
        if total and done >= total:
            self._close(what)

    def step(self, what: str, done: int, total: int) -> None:
        key = f"{total} steps"
        for other in [name for name in self._bars if name.endswith(" steps") and name != key]:
            self._close(other)
        bar = self._bar(key, "", total, "step")
        bar.set_postfix_str(one_line(what), refresh=False)
        bar.update(done - bar.n)
        bar.refresh()

    def clear(self) -> None:
        for name in list(self._bars):
            self._close(name)

    def close(self) -> None:
        self.clear()

    def _close(self, name: str) -> None:
        self._bars.pop(name).close()
        # tqdm leaves the cursor at the right of a bar that was below another.
        self._stream.write("\r")
        self._stream.flush()

    def _bar(self, key: str, title: str, total: int, unit: str) -> tqdm[Any]:
        if key not in self._bars:
            from tqdm import tqdm

            self._bars[key] = tqdm(
                desc=one_line(title) or None,
                total=total or None,
                unit=f" {unit}s",
                file=self._stream,
                leave=False,
                dynamic_ncols=True,
                mininterval=0.2,
            )
        return self._bars[key]


class _Lines:
    """A line now and then, and one at the end."""

    def __init__(self, stream: TextIO, unit: str, clock: Callable[[], float]) -> None:
        self._stream, self._unit, self._clock = stream, unit, clock
        self._started = self._written = clock()
        self._done: dict[str, int] = {}
        self._first: dict[str, tuple[float, int]] = {}
        self._steps = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        self._done[what] = done
        self._say(what, what, done, total, self._unit)
        if total and done >= total:
            self._first.pop(what, None)

    def step(self, what: str, done: int, total: int) -> None:
        self._steps += 1
        self._say(f"{total} steps", what, done, total, "step")

    def clear(self) -> None:
        return

    def close(self) -> None:
        """Write what was done in all; nothing where nothing was."""
        parts = [f"{len(self._done)} tasks"] if len(self._done) > 1 else []
        if self._done:
            parts.append(f"{sum(self._done.values()):,} {self._unit}s")
        if self._steps:
            parts.append(f"{self._steps:,} steps")
        if parts:
            self._line(f"done: {', '.join(parts)} in {duration(self._clock() - self._started)}")

    def _say(self, key: str, what: str, done: int, total: int, unit: str) -> None:
        now = self._clock()
        since, at = self._first.setdefault(key, (now, done))
        if now - self._written < EVERY_SECONDS:
            return
        self._written = now
        if not total:
            self._line(f"{what}: {done:,} {unit}s, {duration(now - self._started)} so far")
            return
        left = ""
        if done > at and now > since:
            rest = (total - done) * (now - since) / (done - at)
            left = f", about {duration(rest)} left"
        self._line(f"{what}: {done:,} of {total:,} {unit}s{left}")

    def _line(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)
