"""A runtime runs in a process of its own, and whatever it does there is one message here."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clipq.artifact_settings import ArtifactSettings, SessionSettings
from clipq.cases import Candidate
from clipq.errors import ArtifactError
from clipq.evaluation.artifacts import Artifacts
from clipq.evaluation.tower_process import TowerProcess
from clipq.runtimes import TowerPorts, runtimes
from clipq.settings import ModelSettings, Settings

RUNTIME = """
import ctypes, os, signal, sys, time
import numpy as np
from clipq.errors import ArtifactError
from clipq.runtimes import Finding, Look, TowerFacts, runtimes

print("imported")

class Behaving:
    '''Does what its file says at the time: the name of a method.'''

    def __init__(self, path):
        self.path = path
        names = "CLIPQ_TEST_ISA", "OMP_NUM_THREADS"
        said = {name: os.environ.get(name, "") for name in names} | {"pid": os.getpid()}
        self.facts = TowerFacts(precision="f32", said=said)

    def run(self, inputs):
        return getattr(self, self.path.read_text())(inputs["input"])

    def echo(self, given): return given
    def scalar(self, given): return np.float32(3)
    def as_list(self, given): return given.tolist()
    def big_endian(self, given): return given.astype(">f8")
    def not_finite(self, given): return np.full((2, 3), np.nan, np.float16)
    def transposed(self, given): return np.arange(6.0).reshape(2, 3).T
    def empty(self, given): return np.zeros((0, 3), np.float32)
    def nothing(self, given): return None
    def texts(self, given): return np.array(["a"])
    def objects(self, given): return np.array([object()])
    def complex_numbers(self, given): return given * 1j
    def huge(self, given): return np.zeros((1, 2**28 + 1), np.float32)
    def silent_error(self, given): raise RuntimeError
    def named_error(self, given): raise ArtifactError("the file is odd", hint="mend it")
    def talk(self, given):
        print("a word"); os.write(1, b"raw\\n"); os.write(2, b"raw\\n")
        return given
    def segfault(self, given): ctypes.string_at(0)
    def abort(self, given): print("about to abort"); os.abort()
    def leave(self, given): sys.exit(3)
    def leave_at_once(self, given): os._exit(0)
    def close_everything(self, given): os.closerange(3, 4096); time.sleep(60)
    def hang(self, given): time.sleep(60)
    def outlived(self, given):
        if os.fork() == 0:
            time.sleep(8)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)


class Hostile:
    version, packages, extra = 1, (), ""
    def sidecars(self, path): return ()
    def look(self, path): return Look(bytes=path.stat().st_size)
    def open(self, path, ports, session):
        if path.read_text() == "rewrite":
            path.write_text("rewritten")
        if path.read_text() == "no_json":
            tower = Behaving(path)
            tower.facts = TowerFacts(said={"threads": np.int64(1)})
            return tower
        return Behaving(path)


runtimes.add("hostile", Hostile())
"""
GIVEN = {"input": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("a pläce with spaces & 'quotes'")
    (root / "hostile_runtime.py").write_text(RUNTIME)
    return Settings(
        root / "clipq.toml",
        (ModelSettings("vit", "local-dir:vit"),),
        (),
        (),
        plugins=("hostile_runtime",),
    )


@pytest.fixture(scope="module")
def opened(settings, tmp_path_factory):
    """Return a process, the file that says what it does, and what it said when it was opened.

    It is started in a folder in which `json` is something else.
    """
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "json.py").write_text("raise ImportError('not this one')")
    before = Path.cwd()
    os.chdir(elsewhere)
    try:
        process = TowerProcess(artifact(env={"CLIPQ_TEST_ISA": "AVX2"}, threads=3), settings)
    finally:
        os.chdir(before)
    yield process, *open_tower(process, settings)
    process.close()


def artifact(**session):
    return ArtifactSettings(
        "mine", "vit", "hostile", image="tower.bin", text="fp32", session=SessionSettings(**session)
    )


def open_tower(process, settings, name="t öwer.bin"):
    path = settings.root / name
    path.write_text("echo")
    return path, process.open(path, TowerPorts("image"))


def gone(pid, seconds=5.0):
    until = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return True
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def test_the_environment_and_the_threads_are_the_process_s_own(opened):
    _, _, facts = opened
    assert facts.said["CLIPQ_TEST_ISA"] == "AVX2"
    assert facts.said["OMP_NUM_THREADS"] == "3"
    assert "CLIPQ_TEST_ISA" not in os.environ
    assert facts.said["pid"] != os.getpid()


@pytest.mark.parametrize(
    ("doing", "expected"),
    [
        ("echo", GIVEN["input"]),
        ("scalar", np.array(3, np.float32)),
        ("as_list", GIVEN["input"].astype(float)),
        ("big_endian", GIVEN["input"].astype(float)),
        ("not_finite", np.full((2, 3), np.nan, np.float16)),
        ("transposed", np.arange(6.0).reshape(2, 3).T),
        ("empty", np.zeros((0, 3), np.float32)),
    ],
)
def test_numbers_come_as_they_were_returned(opened, doing, expected):
    process, path, _ = opened
    path.write_text(doing)
    found = process.run("image", GIVEN)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("doing", "problem"),
    [
        ("nothing", "it returned NoneType of type object, not numbers"),
        ("texts", "not numbers"),
        ("objects", "not numbers"),
        ("complex_numbers", "type complex64, not numbers"),
        ("huge", r"an array \(1, 268435457\) of 1,073,741,828 bytes"),
        ("silent_error", "RuntimeError: no message"),
        ("named_error", "the file is odd"),
        ("unheard_of", "AttributeError: .*unheard_of"),
    ],
)
def test_what_is_no_answer_is_one_message_and_the_process_goes_on(opened, doing, problem):
    process, path, _ = opened
    path.write_text(doing)
    with pytest.raises(ArtifactError, match=f"artifact 'mine': .*{problem}") as caught:
        process.run("image", GIVEN)
    assert caught.value.hint
    path.write_text("echo")
    np.testing.assert_array_equal(process.run("image", GIVEN), GIVEN["input"])


def test_facts_that_are_no_json_are_refused(opened):
    process, path, _ = opened
    other = path.with_name("other.bin")
    other.write_text("no_json")
    with pytest.raises(ArtifactError, match="int64 is not JSON serializable"):
        process.open(other, TowerPorts("text"))


def test_what_a_runtime_prints_reaches_nobody(opened, capfd):
    process, path, _ = opened
    path.write_text("talk")
    np.testing.assert_array_equal(process.run("image", GIVEN), GIVEN["input"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("doing", "how"),
    [
        ("segfault", r"died of signal 11 \(SIGSEGV\) while running the image tower"),
        ("abort", r"died of signal 6 \(SIGABRT\) .*; its last words: about to abort"),
        ("leave", "died of exit status 3 "),
        ("leave_at_once", "died of exit status 0 "),
        ("outlived", r"died of signal 9 \(SIGKILL\)"),
        ("close_everything", "closed its connection"),
    ],
)
def test_a_process_that_ends_is_named_and_asked_no_more(settings, doing, how):
    process = TowerProcess(artifact(), settings)
    path, facts = open_tower(process, settings, f"{doing}.bin")
    path.write_text(doing)
    said = f"artifact 'mine': the process of runtime 'hostile' {how}"
    with pytest.raises(ArtifactError, match=said):
        process.run("image", GIVEN)
    assert gone(facts.said["pid"])
    started = time.monotonic()
    with pytest.raises(ArtifactError, match=how):
        process.run("image", GIVEN)
    assert time.monotonic() - started < 0.5
    process.close()


def test_a_process_that_hangs_is_ended_after_the_limit_and_the_limit_is_named(settings):
    process = TowerProcess(artifact(), settings)
    path, facts = open_tower(process, settings, "hang.bin")
    assert process._patience == settings.limits.stalled_seconds
    process._patience = 0.3  # for this call alone: to start takes longer on a busy machine
    path.write_text("hang")
    with pytest.raises(ArtifactError, match=r"did not answer for 0\.3 s \(stalled_seconds"):
        process.run("image", GIVEN)
    assert gone(facts.said["pid"])


def test_after_an_interrupt_no_answer_is_taken_for_another_question(settings):
    process = TowerProcess(artifact(), settings)
    path, facts = open_tower(process, settings, "interrupted.bin")
    path.write_text("hang")

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            process.run("image", GIVEN)
    finally:
        signal.signal(signal.SIGALRM, before)
    path.write_text("echo")
    with pytest.raises(ArtifactError, match="was interrupted while running the image tower"):
        process.run("image", GIVEN)
    assert gone(facts.said["pid"])


def test_it_ends_with_whoever_started_it_also_in_the_middle_of_a_call(settings):
    path = settings.root / "orphan.bin"
    path.write_text("hang")
    code = f"""
        import numpy as np
        from pathlib import Path
        from clipq.artifact_settings import ArtifactSettings
        from clipq.evaluation.tower_process import TowerProcess
        from clipq.runtimes import TowerPorts
        from clipq.settings import ModelSettings, Settings
        path, models = Path({str(path)!r}), (ModelSettings("vit", "local-dir:vit"),)
        plugins = ("hostile_runtime",)
        given = Settings(path.with_name("clipq.toml"), models, (), (), plugins=plugins)
        process = TowerProcess(ArtifactSettings("mine", "vit", "hostile"), given)
        print(process.open(path, TowerPorts("image")).said["pid"], flush=True)
        process.run("image", {{"input": np.zeros((1, 1), np.float32)}})
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        child = int(parent.stdout.readline())
        assert not gone(child, 0.1)
        parent.kill()
    assert gone(child)


def test_two_run_side_by_side_in_a_process_with_many_open_files(settings):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    processes = []
    try:
        processes = [TowerProcess(artifact(), settings) for _ in range(2)]
        for process in processes:
            open_tower(process, settings, "shared.bin")
        for process in processes:
            np.testing.assert_array_equal(process.run("image", GIVEN), GIVEN["input"])
    finally:
        for process in processes:
            process.close()
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (replace(artifact(), runtime="nobody's"), 'unknown runtime "nobody\'s" in the process'),
        (artifact(env={"A=B": "1"}), "cannot be started: illegal environment variable name"),
        (artifact(env={"A": "\0"}), "cannot be started: embedded null byte"),
    ],
)
def test_what_cannot_be_started_is_said(settings, given, problem):
    with pytest.raises(ArtifactError, match=problem):
        TowerProcess(given, settings)


def test_a_swapped_file_is_another_artifact_and_one_that_changes_while_open_is_refused(
    settings, monkeypatch
):
    known = SimpleNamespace(version=1, packages=(), extra="")
    monkeypatch.setitem(runtimes._objects, "hostile", known)
    path = settings.root / "tower.bin"
    declared = replace(settings, artifacts=(artifact(),))
    candidate = Candidate("vit", "mine")
    identities = []
    for text in ("one", "two", "one"):
        path.write_text(text)
        artifacts = Artifacts(declared, None, lambda name: None)
        identities.append(artifacts.identity(candidate))
        artifacts.give_up()
    assert identities[0] == identities[2] != identities[1]
    path.write_text("rewrite")
    artifacts = Artifacts(declared, None, lambda name: None)
    with pytest.raises(ArtifactError, match="'mine': its files changed while they were opened"):
        artifacts.module(candidate)
    artifacts.give_up()
