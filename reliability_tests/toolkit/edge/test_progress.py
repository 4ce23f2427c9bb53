"""Progress: live where somebody watches, rare lines in a log, never in anybody's way."""

from __future__ import annotations

import argparse
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from warm_process import outside_of_tests

from clipq.cli.progress import duration, is_live, watching
from clipq.cli.tally import Tally, Unit, unit_of
from clipq.pytest_progress import LiveTerminal

LOUD = argparse.Namespace(quiet=False)
HERE: dict[str, str] = {"TERM": "xterm"}


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def screen(output: str) -> list[str]:
    """Return the lines that a terminal shows after `output`: newline, return, erase, cursor up."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", output):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part == "\x1b[K":
            lines[row] = lines[row][:column]
        elif part == "\x1b[A":
            row = max(0, row - 1)
        elif not part.startswith("\x1b"):
            line = lines[row]
            lines[row] = line[:column].ljust(column) + part + line[column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


# -- commands ---------------------------------------------------------------------------------


def test_a_log_gets_a_line_every_half_minute_and_one_at_the_end():
    stream, clock = io.StringIO(), Clock()
    with watching(LOUD, unit="image", stream=stream, environment=HERE, clock=clock) as watch:
        for done in range(0, 101):
            watch("decoding id", done, 100)
            clock.now += 1.0
    assert stream.getvalue().splitlines() == [
        "decoding id: 30 of 100 images, about 1:10 min left",
        "decoding id: 60 of 100 images, about 40 s left",
        "decoding id: 90 of 100 images, about 10 s left",
        "done: 100 images in 1:41 min",
    ]


def test_no_closing_line_is_written_where_the_command_says_it():
    stream = io.StringIO()
    with watching(LOUD, unit="unit", closing=False, stream=stream, environment=HERE) as watch:
        watch("units", 10, 10)
    assert stream.getvalue() == ""


def test_tasks_side_by_side_share_the_half_minute():
    stream, clock = io.StringIO(), Clock()
    with watching(LOUD, unit="image", stream=stream, environment=HERE, clock=clock) as watch:
        for done in range(61):
            watch("decoding", done, 100)
            watch("encoding", done, 100)
            clock.now += 1.0
    assert len(stream.getvalue().splitlines()) == 3


def test_steps_of_an_unknown_number_are_counted():
    stream, clock = io.StringIO(), Clock()
    with watching(LOUD, unit="image", stream=stream, environment=HERE, clock=clock) as watch:
        for tried in range(5):
            clock.now += 10.0
            watch.step(f"{tried} in float", tried, 0)
    assert stream.getvalue().splitlines() == [
        "2 in float: 2 steps, 30 s so far",
        "done: 5 steps in 50 s",
    ]


def test_quiet_says_nothing():
    stream = Terminal()
    quiet = argparse.Namespace(quiet=True)
    with watching(quiet, unit="image", stream=stream, environment=HERE) as watch:
        watch("decoding", 1, 2)
        watch.step("one", 1, 2)
        watch.clear()
    assert stream.getvalue() == ""


def test_a_terminal_shows_a_bar_with_the_total_that_is_gone_at_the_end():
    stream = Terminal()
    with watching(LOUD, unit="image", stream=stream, environment=HERE) as watch:
        watch("decoding id", 1, 64)
        during = screen(stream.getvalue())
        watch("decoding id", 64, 64)
    assert "decoding id" in during[-1]
    assert "/64" in during[-1]
    assert "".join(screen(stream.getvalue())) == ""


def test_what_is_printed_after_two_bars_starts_at_the_left():
    stream = Terminal()
    with watching(LOUD, unit="image", stream=stream, environment=HERE) as watch:
        watch("decoding", 1, 4)
        watch("encoding", 1, 4)
        watch("decoding", 4, 4)
        watch("encoding", 4, 4)
    stream.write("written")
    assert "".join(screen(stream.getvalue())) == "written"


def test_what_failed_is_not_called_done():
    stream = io.StringIO()

    def fail() -> None:
        with watching(LOUD, unit="image", stream=stream, environment=HERE) as watch:
            watch("decoding", 1, 2)
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("environment", "live"),
    [({}, True), ({"CI": "true"}, False), ({"CI": "false"}, True), ({"TERM": "dumb"}, False)],
)
def test_a_ci_log_and_a_dumb_terminal_are_no_terminal(environment, live):
    assert is_live(Terminal(), environment) is live
    assert not is_live(io.StringIO(), environment)


@pytest.mark.parametrize(("columns", "live"), [(0, False), (80, True)])
def test_a_pseudo_terminal_without_a_width_is_none(columns, live):
    controller, terminal = pty.openpty()
    try:
        termios.tcsetwinsize(terminal, (0, columns))
        with open(terminal, "w", closefd=False) as stream:
            assert is_live(stream, HERE) is live
    finally:
        os.close(terminal)
        os.close(controller)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (185, "3:05 min"), (7380, "2:03:00 h")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_creating_a_baseline_into_a_pipe_ends_with_one_line(project, tmp_path):
    project.cache = tmp_path / "cache"  # its own: in the shared one all may be encoded already
    project.settings()
    (project.root / "baselines" / "vit-clean.json").unlink()
    done = project.clipq("baseline", "create")
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    found = re.fullmatch(r"done: (\d+) tasks, [\d,]+ images in .*", lines[-1])
    assert found
    assert int(found[1]) == 12  # three probes decoded, and encoded as FP32 and its two variants
    assert "\r" not in done.stderr
    (project.root / "baselines" / "vit-clean.json").unlink()
    assert project.clipq("baseline", "create", "--quiet").stderr == ""


# -- the estimate -----------------------------------------------------------------------------


def tally_of(cells: dict[Unit, int]) -> Tally:
    tally = Tally()
    tally.plan(cell for cell, cases in cells.items() for _ in range(cases))
    tally.start(0.0)
    return tally


def test_cells_are_read_from_node_ids():
    node = "suite/test_reliability.py::test_reliability[vit-clean/rtn:w4,exclude=a/b/id.ece]"
    assert unit_of(node) == Unit("vit-clean/rtn:w4,exclude=a/b", "id")
    kernel = "suite/test_kernels.py::test_kernel[triton-linear/shapes]"
    assert unit_of(kernel) == Unit("triton-linear", "")
    assert unit_of("test_mine.py::test_mine") == Unit("test_mine.py")


def test_cold_cells_are_not_taken_for_the_rate_of_all_cases():
    small, large = Unit("m/a", "id"), Unit("m/b", "id")
    tally = tally_of({small: 11, large: 11})
    tally.finish(small, 10.0, 10.0)  # encoding
    assert tally.left_seconds(10.0) == pytest.approx(10.0)  # one more encoding, 0 for the others
    for case in range(10):
        tally.finish(small, 0.1, 10.0 + 0.1 * (case + 1))
    assert tally.left_seconds(11.0) == pytest.approx(10.0 + 10 * 0.1)
    # A rate of cases per second would say 1 second a case before, and 11 seconds after.
    assert tally.left_seconds(16.0) == pytest.approx(6.0)  # 5 seconds of it have passed


def test_a_probe_is_expected_to_take_what_it_took_before():
    cells = {Unit(f"m/{q}", probe): 2 for q in "abcd" for probe in ("huge", "tiny")}
    tally, now = tally_of(cells), 0.0
    for q in "ab":
        for probe, seconds in (("huge", 100.0), ("tiny", 1.0)):
            for taken in (seconds, 0.25):
                now += taken
                tally.finish(Unit(f"m/{q}", probe), taken, now)
    assert tally.left_seconds(now) == pytest.approx(2 * (100.0 + 0.25 + 1.0 + 0.25))


def test_what_began_with_the_run_is_forgotten_once_there_is_something_else():
    tally = tally_of({Unit(f"m/{q}", "id"): 1 for q in "abcdef"})
    tally.finish(Unit("m/a", "id"), 40.0, 40.0)  # it loads libraries, too
    assert tally.left_seconds(40.0) == pytest.approx(5 * 40.0)
    tally.finish(Unit("m/b", "id"), 4.0, 44.0)
    assert tally.left_seconds(44.0) == pytest.approx(4 * 4.0)


def test_waiting_for_anothers_encoding_is_not_what_other_cases_take():
    tally = tally_of({Unit(f"m/{q}", "id"): 102 for q in "abc"})
    for q, end in (("a", 10.0), ("b", 20.0)):
        for _ in range(2):  # two processes: one encodes, one waits
            tally.finish(Unit(f"m/{q}", "id"), 10.0, end)
        for _ in range(100):
            tally.finish(Unit(f"m/{q}", "id"), 0.0, end)
    assert tally.left_seconds(20.0) == pytest.approx(10.0)


def test_two_busy_processes_halve_the_rest():
    cells = {Unit(f"m/{q}", "id"): 1 for q in "abcd"}
    tally = tally_of(cells)
    tally.finish(Unit("m/a", "id"), 10.0, 10.0)
    tally.finish(Unit("m/b", "id"), 10.0, 10.0)
    assert tally.left_seconds(10.0) == pytest.approx(10.0)


def test_nothing_is_estimated_from_nothing():
    tally = tally_of({Unit("m/a", "id"): 3})
    assert tally.left_seconds(60.0) is None
    assert "ETA ?" in tally.text(60.0)
    tally.finish(Unit("m/a", "id"), 0.5, 0.5)
    assert tally.left_seconds(0.6) is None


def test_the_line_says_counts_share_time_and_what_ended_last():
    tally = tally_of({Unit("m/a", "id"): 2, Unit("m/b", "id"): 2})
    for category in ("passed", "inconclusive", "suspect", "waived"):
        tally.count(category)
    for _ in range(2):
        tally.finish(Unit("m/a", "id"), 2.0, 4.0)
    assert tally.text(4.0) == (
        "2/4 cases (50%) | 1 pass, 1 suspect, 1 inconclusive, 1 waived | 4 s | ETA 4 s | m/a"
    )


# -- the live line under pytest ---------------------------------------------------------------


class Writer:
    def __init__(self, stream: io.StringIO) -> None:
        self.stream = stream

    def write(self, text: str, **how: bool) -> None:
        self.stream.write(text)


def test_the_line_steps_aside_and_comes_back():
    stream = io.StringIO()
    writer = Writer(stream)
    line = LiveTerminal(writer, stream)
    line.install()
    writer.write("collected 3 items\n")
    line.draw("1/3")
    line.draw("2/3")
    writer.write("worker down\n")
    line.draw("3/3")
    assert screen(stream.getvalue()) == ["collected 3 items", "worker down", "3/3"]
    line.remove()
    writer.write("== done ==\n")
    assert screen(stream.getvalue()) == ["collected 3 items", "worker down", "== done ==", ""]


def test_an_unfinished_line_of_others_is_kept_unless_it_is_to_be_written_over():
    stream = io.StringIO()
    writer = Writer(stream)
    line = LiveTerminal(writer, stream)
    line.install()
    writer.write("half a line")
    line.draw("1/3")
    assert screen(stream.getvalue()) == ["half a line", "1/3"]
    writer.write("\n")
    writer.write("\rcreated: 2/2 workers")
    line.draw("2/3")
    assert screen(stream.getvalue())[-1] == "2/3"


def test_a_line_is_cut_at_the_width_of_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()
    LiveTerminal(Writer(stream), stream).draw("x" * 100)
    assert screen(stream.getvalue()) == ["x" * 19]


SUITE = """\
import time
import pytest

@pytest.mark.parametrize("case", ["m/a/id.top1", "m/a/id.ece", "m/b/id.top1", "m/b/id.ece"])
def test_case(case):
    print("a test says", case)
    time.sleep(0.7)
    assert case != "m/b/id.top1"
"""
OPTIONS = ("-p", "clipq.pytest_progress", "-o", "console_output_style=classic")
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "xdist.plugin")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def environment() -> dict[str, str]:
    kept = outside_of_tests(os.environ)
    # Other installed plugins have no part in this, and take seconds to load.
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return {**kept, **alone, "CI": "", "TERM": "xterm", "COLUMNS": "100"}


def in_terminal(folder: Path, *arguments: str, interrupt_at: Path | None = None) -> tuple[int, str]:
    """Run pytest in a pseudo-terminal; return its exit code and everything it wrote.

    It is interrupted once, when the file `interrupt_at` is there: by a test that sleeps, where no
    interrupt is dropped (as in a finalizer). A second one could hit pytest while it ends.
    """
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, 100))
    process = subprocess.Popen(
        [*PYTEST, *arguments],
        cwd=folder,
        env=environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        # A shell's background job ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(terminal)
    output, deadline = b"", time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            if select.select([controller], [], [], 0.2)[0]:
                try:
                    block = os.read(controller, 65536)
                except OSError:  # Linux's way to say that the other end was closed
                    break
                output += block
            if interrupt_at is not None and interrupt_at.exists():
                process.send_signal(signal.SIGINT)
                interrupt_at = None
        else:
            process.send_signal(signal.SIGABRT)  # faulthandler writes where each thread is
            time.sleep(2.0)
            output += os.read(controller, 65536)
            pytest.fail(f"pytest did not end:\n{output.decode(errors='replace')}")
        code = process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    return code, output.decode(errors="replace").replace("\r\n", "\n")


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_a_terminal_shows_one_line_that_leaves_no_trace(suite, processes):
    code, output = in_terminal(suite, *OPTIONS, processes)
    assert code == 1
    assert re.search(r"[1-3]/4 cases \(\d+%\) \| 1 pass", output)
    shown = screen(output)
    assert not [line for line in shown if "/4 cases" in line], shown
    assert not [line for line in shown if re.fullmatch(r"(test_suite.py )?[.F]+", line)], shown
    assert [line for line in shown if "1 failed, 3 passed" in line]
    captured = shown.index(next(line for line in shown if "Captured stdout call" in line))
    assert shown[captured + 1] == "a test says m/b/id.top1"
    assert shown[captured + 2].startswith("=")


def test_a_pipe_gets_a_line_at_the_end_and_no_control_characters(suite):
    done = subprocess.run(
        [*PYTEST, *OPTIONS, "--junitxml=j.xml"],
        cwd=suite,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert not set("\r\x1b") & set(done.stdout)
    lines = [line for line in done.stdout.splitlines() if line.startswith("clipq: ")]
    assert len(lines) == 1
    assert lines[0].startswith("clipq: 4/4 cases (100%) | 3 pass, 1 fail | ")
    assert "clipq: " not in (suite / "j.xml").read_text()


@pytest.mark.parametrize(("option", "shown"), [("-v", "PASSED"), ("-q", "..F.")])
def test_verbose_and_quiet_stay_pytests_own(suite, option, shown):
    done = subprocess.run(
        [*PYTEST, *OPTIONS, option],
        cwd=suite,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert shown in done.stdout
    assert "cases (" not in done.stdout


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_the_first_failure_stops_as_ever(suite, processes):
    code, output = in_terminal(suite, *OPTIONS, processes, "-x")
    assert code in (1, 2)  # pytest: 1; xdist, which was asked to stop: 2
    plain = subprocess.run(
        [*PYTEST, processes, "-x"],
        cwd=suite,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert code == plain.returncode
    assert "stopping after 1 failures" in output


def test_an_interrupt_ends_the_run_and_takes_the_line_away(suite):
    begun = "open('begun', 'w').close()"
    endless = f"if case == 'm/b/id.ece': {begun}; time.sleep(99)\n    time.sleep(0.7)"
    (suite / "test_suite.py").write_text(SUITE.replace("time.sleep(0.7)", endless))
    code, output = in_terminal(suite, *OPTIONS, "-n0", interrupt_at=suite / "begun")
    assert code == 2, output
    assert re.search(r"[1-3]/4 cases", output)  # it was there
    shown = screen(output)
    assert [line for line in shown if "KeyboardInterrupt" in line]
    assert not [line for line in shown if "/4 cases" in line]


def test_a_killed_worker_is_still_told(suite):
    text = SUITE.replace("time.sleep(0.7)", "time.sleep(0.7); crash(case)")
    crash = "import os\n\ndef crash(case):\n    if case == 'm/b/id.ece':\n        os._exit(9)\n\n"
    (suite / "test_suite.py").write_text(crash + text)
    code, output = in_terminal(suite, *OPTIONS, "-n2")
    assert code == 1
    assert [line for line in screen(output) if re.search(r"node down|crashed", line)]


def test_the_gate_itself_runs_under_it_with_the_same_verdicts(project):
    project.use_reviewed_baseline()
    arguments = ("gate", "-n0", "--quantizer", "rtn:w8", "--probe", "id")
    plain = project.clipq(*arguments)
    report = project.root / ".clipq" / "report" / "report.json"
    before = [case["verdict"] for case in json.loads(report.read_text())["cases"]]
    shown = project.clipq(*arguments, *OPTIONS)
    after = [case["verdict"] for case in json.loads(report.read_text())["cases"]]
    assert (plain.returncode, before) == (shown.returncode, after)
    assert re.search(
        r"^clipq: 2/2 cases \(100%\) \| 2 pass \| .* vit-clean/rtn:w8$", shown.stdout, re.M
    )
