"""Signals, workers that vanish and quantizers that hang: the run ends, and says what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

import clipq

sys.path.insert(0, str(Path(__file__).parent))

from fake_project import CASES, read_report, write_project
from warm_process import outside_of_tests

from clipq.pytest_interrupts import Interrupts, Stopped, Terminated
from clipq.pytest_workers import WorkerWatch

SLOW = "open(case.id.replace('/', '_'), 'w').close(); import time; time.sleep(99)"
SECOND = CASES[1]


@pytest.fixture
def interrupts():
    made = Interrupts()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    was = {signum: signal.getsignal(signum) for signum in signals}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    made.install()
    yield made
    made.remove()
    for signum, handler in was.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize(
    ("signum", "code", "said"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "hung up")],
)
def test_sigterm_and_sighup_are_raised_once_and_are_the_exit_code(interrupts, signum, code, said):
    with pytest.raises(Terminated, match=signum.name):
        signal.raise_signal(signum)
    signal.raise_signal(signum)  # passed on by whoever started this process
    signal.raise_signal(signal.SIGINT)
    assert (interrupts.exit_code, interrupts.said) == (code, said)


def test_sighup_that_the_process_was_started_without_stays_ignored():
    """As `nohup` does it."""
    was = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        made = Interrupts()
        made.install()
        signal.raise_signal(signal.SIGHUP)
        made.remove()
        assert made.exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, was)


def test_an_interrupt_that_python_drops_is_raised_again(interrupts):
    """Raised in a finalizer it is lost: the next one comes by itself."""

    class Dropping:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    Dropping()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(30)
    assert interrupts.exit_code == 130


def test_no_test_starts_after_an_interrupt_that_somebody_caught(interrupts):
    with suppress(KeyboardInterrupt):  # as a quantizer might
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Terminated):
        interrupts.pytest_runtest_logstart()


def test_a_watchdog_ends_the_run_with_its_reason(interrupts):
    thread = threading.Thread(target=interrupts.stop, args=("worker gw1 ended",))
    started = threading.Timer(0.2, thread.start)
    started.start()
    with pytest.raises(Stopped, match="worker gw1 ended"):
        time.sleep(30)
    thread.join()
    assert (interrupts.exit_code, interrupts.said) == (1, "worker gw1 ended")


def test_handlers_of_others_are_left_alone():
    def theirs(signum, frame):
        raise AssertionError

    was = signal.signal(signal.SIGTERM, theirs)
    try:
        made = Interrupts()
        made.install()
        assert signal.getsignal(signal.SIGTERM) is theirs
        made.remove()
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, was)


# -- workers ----------------------------------------------------------------------------------


def node_of(name: str, code: int) -> SimpleNamespace:
    process = subprocess.Popen([sys.executable, "-c", f"import os; os._exit({code})"])
    process.wait()
    return SimpleNamespace(gateway=SimpleNamespace(id=name, _io=SimpleNamespace(popen=process)))


def test_a_worker_whose_end_xdist_does_not_notice_ends_the_run():
    watch = WorkerWatch(lambda why: None, unnoticed=30.0)
    watch.pytest_configure_node(node_of("gw1", 9))
    now = time.monotonic()
    assert watch.trouble(now) == ""  # xdist may still notice
    said = "worker gw1 (exit code 9) ended, and pytest-xdist goes on waiting for it"
    assert watch.trouble(now + 31) == said
    watch.pytest_testnodedown(node_of("gw1", 9), None)
    assert watch.trouble(now + 99) == ""


def test_the_end_of_a_worker_says_how_it_ended():
    """pytest-xdist tells which test ran, and not what ended the process."""
    watch, lines = WorkerWatch(lambda why: None), []
    for name, error in (("gw0", None), ("gw1", "Not properly terminated")):
        node = node_of(name, 9)
        watch.pytest_configure_node(node)
        watch.pytest_testnodedown(node, error)
    watch.pytest_terminal_summary(SimpleNamespace(write_line=lines.append))
    assert lines == ["clipq: worker gw1 (exit code 9) ended in the middle of its tests"]


def test_a_start_without_any_event_ends_the_run():
    watch = WorkerWatch(lambda why: None, idle=600.0)
    alive = SimpleNamespace(gateway=SimpleNamespace(id="gw0"))
    watch.pytest_configure_node(alive)
    now = time.monotonic()
    assert watch.trouble(now + 500) == ""
    assert "still starting: gw0" in watch.trouble(now + 601)
    watch.pytest_runtest_logstart()
    assert (
        watch.trouble(now + 9999) == ""
    )  # a case may take its time: `stalled_seconds` says how long


# -- real runs --------------------------------------------------------------------------------


def as_a_terminal_starts_it() -> None:
    """What a shell starts in the background, and nohup, ignore signals, and so would children."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


def start(root: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = outside_of_tests(os.environ)
    environment["PYTHONPATH"] = str(Path(clipq.__file__).parents[1])
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugins = ("-p", "xdist.plugin", "-p", "clipq.pytest_plugin", "-p", "no:cacheprovider")
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *plugins, *arguments],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=as_a_terminal_starts_it,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(process.communicate()[0])
        time.sleep(0.02)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("workers", "signum", "said"),
    [("-n0", signal.SIGTERM, "terminated"), ("-n2", signal.SIGHUP, "hung up")],
)
def test_a_signal_leaves_a_partial_report_and_no_worker(workers, signum, said, tmp_path):
    write_project(tmp_path, body=f"if case.id != {CASES[0]!r}: {SLOW}")
    process = start(tmp_path, workers)
    wait_for(tmp_path / SECOND.replace("/", "_"), process)
    process.send_signal(signum)
    sent = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, output
    line = output.rstrip().splitlines()[-1]
    assert line.startswith(f"RELIABILITY GATE FAILED: {said}; ")
    found = read_report(tmp_path)
    assert {case["verdict"] for case in found["cases"]} <= {"pass"}
    assert len(found["cases"]) + len(found["unreported"]) == 6
    assert found["unreported"]
    while alive(process.pid):
        assert time.monotonic() - sent < 60
        time.sleep(0.05)


def test_a_second_sigterm_ends_at_once(tmp_path):
    hold = (
        "def pytest_sessionfinish():\n    open('finishing', 'w').close()\n"
        "    import time; time.sleep(99)\n"
    )
    write_project(tmp_path, body=SLOW, conftest=hold)
    process = start(tmp_path, "-n0")
    wait_for(tmp_path / CASES[0].replace("/", "_"), process)
    process.send_signal(signal.SIGTERM)
    wait_for(tmp_path / "finishing", process)
    time.sleep(1.1)  # sooner it is taken for the same one
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM


def test_a_quantizer_that_hangs_is_given_up_and_named(tmp_path):
    """A worker whose candidate stalls ends itself; the other candidate is measured."""
    write_project(tmp_path, after="[limits]\nstalled_seconds = 1\n")
    (tmp_path / "conftest.py").write_text(HANGING)
    process = start(tmp_path, "-n2")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    found = {case["case"]: case for case in read_report(tmp_path)["cases"]}
    assert {found[name]["verdict"] for name in CASES[3:]} == {"pass"}, output
    for name in CASES[:3]:
        assert found[name]["verdict"] == "error"
        said = "nothing of it got done for 1 s (stalled_seconds in [limits])"
        assert said in found[name]["reason"], found[name]["reason"]


HANGING = """\
import time
import pytest
from clipq.gating.session import Gate
from clipq.records import CaseResult
from clipq.verdicts import Verdict


def measured(self, case):
    if "rtn:w4" in case.quantizer:
        time.sleep(99)
    return CaseResult(case, Verdict.PASS)


Gate._measured_alone = measured
"""
