"""How far a gate is: one live line on a terminal, a line every 30 seconds in a log.

`clipq gate` loads this module with ``-p clipq.pytest_progress -o console_output_style=classic``; it
takes the place of pytest's dots. With ``-v`` (a line for each case) and ``-q`` pytest's own output
stays as it is. Counting happens on the controlling process, from reports, so that it is the same
for ``-n0`` and ``-n auto``.

The line is written to a duplicate of pytest's output, made while nothing is captured: a tick that
falls into a running test never reaches what the test's output is captured into. Before pytest
itself writes, the line is taken off the screen.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, TextIO

import pytest

from clipq.cli.progress import EVERY_SECONDS, is_live
from clipq.cli.tally import Tally, unit_of
from clipq.errors import ClipqError
from clipq.pytest_asked import ASKED
from clipq.terminal import printable

__all__ = ["LiveTerminal", "ProgressLine"]

_TICK_SECONDS = 0.5
_CLEAR = "\r\x1b[K"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the reporter where somebody wants to see it."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    on_worker = hasattr(config, "workerinput")
    if on_worker or terminal is None or config.option.verbose != 0 or config.option.collectonly:
        return
    stream = _duplicate(sys.stdout)
    if stream is not None:
        terminal.showfspath = False  # no file name at the start of a line of dots
        # With -s, what tests print would run into the line.
        live = is_live(sys.stdout) and config.option.capture != "no"
        training = partial(_trainings, config)
        line = ProgressLine(config.get_terminal_writer(), stream, live=live, training=training)
        config.pluginmanager.register(line, "clipq-progress")


def _trainings(config: pytest.Config) -> str:
    """Return how far the trainings of this run are, in whichever process; "" if none is."""
    from clipq.evaluation.training_beat import beats

    asked = config.stash.get(ASKED, None)
    if asked is None:
        return ""
    with suppress(ClipqError, OSError):
        return "".join(f"; {beat}" for beat in beats(asked.settings.cache / "trained"))
    return ""


def _duplicate(stream: TextIO) -> TextIO | None:
    """Return another stream to the same terminal, pipe or file; None where there is none."""
    try:
        descriptor = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return os.fdopen(descriptor, "w", encoding=encoding, errors="replace")


class LiveTerminal:
    """A last line that is drawn again and again, and steps aside for others' output.

    Args:
        writer: pytest's, whose `write` everything goes through.
        stream: to the same place.
    """

    def __init__(self, writer: Any, stream: TextIO) -> None:
        self._writer, self._stream = writer, stream
        self._write = writer.write
        self._lock = threading.RLock()
        self._drawn = False
        self._tail = "\n"  # what others wrote last

    def install(self) -> None:
        """Step aside from now on."""
        # An attribute of the one writer: pytest has no hook before it writes.
        self._writer.write = self._aside

    def remove(self) -> None:
        """Take the line off the screen for good."""
        with self._lock:
            self._erase()
            self._writer.write = self._write

    def draw(self, text: str) -> None:
        """Show `text` (one line, cut at the terminal's width) instead of what was shown."""
        width = shutil.get_terminal_size().columns - 1
        with self._lock:
            # What others left unfinished is kept, unless they mean to write over it themselves.
            unfinished = not self._drawn and not self._tail.endswith("\n")
            start = "\n" if unfinished and not self._tail.startswith("\r") else _CLEAR
            if unfinished:
                self._tail = "\n"
            self._put(start + printable(text)[:width])
            self._drawn = True

    def _aside(self, text: str, **how: Any) -> None:
        with self._lock:
            if text:
                self._erase()
                self._tail = text
            self._write(text, **how)

    def _erase(self) -> None:
        if self._drawn:
            self._put(_CLEAR)
            self._drawn = False

    def _put(self, text: str) -> None:
        with suppress(OSError):  # the terminal was closed: the run goes on
            self._stream.write(text)
            self._stream.flush()


class ProgressLine:
    """Counts what pytest reports, and shows it while tests run."""

    def __init__(
        self,
        writer: Any,
        stream: TextIO,
        *,
        live: bool,
        training: Callable[[], str] = lambda: "",
    ) -> None:
        self.tally = Tally()
        self._stream, self._live, self._training = stream, live, training
        self._terminal = LiveTerminal(writer, stream)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._durations: dict[str, float] = {}
        self._seen: set[str] = set()

    # -- counting -----------------------------------------------------------------------------

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._plan([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._plan(ids)

    def _plan(self, node_ids: Iterable[str]) -> None:
        with self._lock:
            if not self.tally.planned:  # with xdist: the first worker's; all collect the same
                self.tally.plan(unit_of(node_id) for node_id in node_ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        node_id = report.nodeid
        self._durations[node_id] = self._durations.get(node_id, 0.0) + report.duration
        ends = report.when == "call" or not report.passed
        if not ends or node_id in self._seen:
            return
        self._seen.add(node_id)
        with self._lock:
            self.tally.finish(unit_of(node_id), self._durations.pop(node_id), time.monotonic())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> Generator[None, tuple[str, str, Any], tuple[str, str, Any]]:
        """Count a report's category, and take its letter away: the line stands for it."""
        category, letter, word = yield
        if letter:
            with self._lock:
                self.tally.count(category)
        return category, "", word

    # -- showing ------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        with self._lock:
            self.tally.start(time.monotonic())
        if self._live:
            self._terminal.install()
        ticker = threading.Thread(target=self._tick, name="clipq-progress", daemon=True)
        ticker.start()
        try:
            return (yield)
        finally:
            self._stop.set()
            ticker.join()
            if self._live:
                self._terminal.remove()
            elif self.tally.done:
                self._say()

    def pytest_unconfigure(self) -> None:
        with suppress(OSError):  # what a closed terminal did not take
            self._stream.close()

    def _tick(self) -> None:
        while not self._stop.wait(_TICK_SECONDS if self._live else EVERY_SECONDS):
            if not self.tally.planned:
                continue
            if self._live:
                self._terminal.draw(self._text())
            else:
                self._say()

    def _text(self) -> str:
        with self._lock:
            text = self.tally.text(time.monotonic())
        return f"{text}{self._training()}"

    def _say(self) -> None:
        # pytest flushes what it writes while tests run: nothing of its own waits to be written.
        with suppress(OSError):
            self._stream.write(f"clipq: {self._text()}\n")
            self._stream.flush()
