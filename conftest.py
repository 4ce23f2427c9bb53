"""What this repository adds to the installed clipq plugin: Hypothesis profiles, and one thread."""

import faulthandler
import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from clipq.testing.profiles import load_profile
from clipq.testing.signal_stack import SignalStack

_STACKS = "CLIPQ_TEST_STACKS"
"""The folder where a worker that crashes says what it was at."""
_SIGNALS = pytest.StashKey[SignalStack]()

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers with a thread per core each wait for one another more than they compute.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
load_profile()


def pytest_configure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ[_STACKS] = tempfile.mkdtemp(prefix="stacks-")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let a worker write its stack where the summary finds it: far up in a log nobody would."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        path = Path(os.environ[_STACKS], f"{os.environ['PYTEST_XDIST_WORKER']}.txt")
        # Kept open, and not closed at the end of the process: a crash may come that late.
        faulthandler.enable(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    session.config.stash[_SIGNALS] = SignalStack()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Mend what a test's libraries did to signals, before a child's end crashes a later test."""
    item.config.stash[_SIGNALS].restore()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show where workers crashed; below the first lines of a stack is pytest."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    for path in sorted(Path(os.environ[_STACKS]).glob("*.txt")):
        if stack := path.read_text().splitlines():
            terminalreporter.section(f"{path.stem} crashed")
            terminalreporter.write_line("\n".join(stack[:40]))


def pytest_collection_finish() -> None:
    """Leave out of every collection of garbage what stays to the end: libraries and tests."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let libraries end as they do: what is frozen, they report as leaked."""
    gc.unfreeze()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ.pop(_STACKS), ignore_errors=True)
