"""Every script under benchmarks/ runs: the code that measures in full, on the smallest sizes.

Scripts are found, not listed: a new one without a quick run fails here. They run in this process,
for a fresh one takes seconds to import torch; what they start themselves is forked from a warm one.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from benchmark import LACKING, MET, MISSED, Goals, Script
from warm_process import WarmProcess, outside_of_tests

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "benchmarks"
FILES = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
SCRIPTS = [name for name, path in FILES.items() if "__main__" in path.read_text()]
FURTHER = {
    "calibration_offsets": (["--temperature"], ["--points"]),
    "error_rates": (["--intervals"], ["--detection"], ["--hard"]),
    "trend_site": (["--store", "sqlite:///history.db"],),
    "zero_shot": (["--memory"],),
}
"""What else a script measures than without an option."""
CACHED = (
    "candidate_decisions",
    "detectable_drop",
    "objectives",
    "resampling_time",
    "sweep_overhead",
)
"""Scripts that keep predictions, and here take those that other tests have made."""
SHOWN = {
    "architectures": "differing by more than 1e-05: none",
    "artifact_overhead": "onnxruntime-dynamic: time / FP32 in torch",
    "calibration_offsets": "smooth-ece, 2 gates each",
    "candidate_decisions": "Harmed by twice the margin",
    "compare_runs": "every cell changed: 100 cases",
    "detectable_drop": "median over 1 quantizers",
    "embedded_sweep": "700,000 cells take",
    "encode_throughput": "throughput of clipq / bare: median",
    "error_rates": "null `equal`",
    "fidelity": "integer products of a layer",
    "fuzzing": "54 inputs",
    "gate_cost": "warm: ",
    "guard_price": "with batches compared: ",
    "history_store": "postgresql: 2 runs x 100 cases",
    "html_report": "everything drawn",
    "kernel_encode": "rtn:w8a8,compute=integer@vision",
    "matrix_time": "warm: ",
    "metric_cost": "1.00 per image (goal 1.00)",
    "objectives": "vit-clean: temperature 1.",
    "peer_gates": "clipq, 106 cases, ci",
    "quantizers": "awq:w8,clip=none",
    "resampling_time": "ms per case over",
    "soak": "record identical",
    "sweep_kills": "none lost, none doubled, enough kills, no process left behind",
    "sweep_overhead": "x bare (goal 1.1)",
    "sweep_planning": "last: ",
    "sweep_ray": "a node killed: 6 of 6 units done",
    "sweep_scale": "simulated against measured: off by",
    "sweep_store": "compacted: ",
    "training_step": "lsq:w4a8",
    "trend_site": "noise     10 runs",
    "zero_shot": "(equal)",
}
"""A part of what the last of a script's lines say."""
RUNS = [
    pytest.param(name, options, id=" ".join([name, *options]))
    for name in SCRIPTS
    for options in ([], *FURTHER.get(name, ()))
]


@pytest.fixture(autouse=True)
def as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what a script sets for its process from the tests after it, and files out of here."""
    monkeypatch.chdir(tmp_path)
    threads, disabled = torch.get_num_threads(), logging.root.manager.disable
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
    logging.disable(disabled)


@pytest.fixture
def forked(warm_process: WarmProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the Python modules and scripts that a benchmark starts from the warm process."""
    started = subprocess.run

    def run(command: Sequence[object], **options: object) -> subprocess.CompletedProcess[str]:
        python, *words = map(str, command)
        if python != sys.executable or words[0] == "-c":
            return started(command, **options)
        module = words[1:] if words[0] == "-m" else [Path(words[0]).stem, *words[1:]]
        if module[0] == "pytest":  # would rewrite what the warm process has imported
            module += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        environment = outside_of_tests(options.get("env") or os.environ)
        path = [str(FOLDER), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        folder = Path(str(options.get("cwd") or Path.cwd()))
        done = warm_process.run(module, cwd=folder, environment=environment, timeout=120)
        if options.get("check"):
            assert done.returncode == 0, done.stderr
        return done

    monkeypatch.setattr(subprocess, "run", run)


def called(name: str, *arguments: str) -> object:
    """Return the exit code of a script run in this process."""
    try:
        return importlib.import_module(name).main(list(arguments))
    except SystemExit as end:
        return end.code


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(("name", "options"), RUNS)
def test_a_quick_run_measures_and_says_what(name, options, shared_cache, capsys):
    kept = ["--cache", str(shared_cache)] if name in CACHED else []
    code = called(name, "--quick", *options, *kept)
    printed = capsys.readouterr()
    if code == LACKING:
        (line,) = [x for x in printed.err.splitlines() if x.startswith("not measured: ")]
        (pytest.fail if os.environ.get("CI") else pytest.skip)(line)
    assert code == MET, printed.out + printed.err
    assert printed.out.strip()
    assert options or SHOWN.get(name, "") in printed.out


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_is_measured_the_goal_and_how_long_it_takes(name, capsys):
    assert called(name, "--help") == 0
    text = capsys.readouterr().out
    assert f"    python benchmarks/{name}.py [--quick]" in text
    assert "goal" in text.lower()
    assert "The full measurement takes" in text


@pytest.mark.parametrize("name", FILES)
def test_the_readme_tells_of_every_file(name):
    assert f"{name}.py" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("name", sorted(set(FILES) - set(SCRIPTS)))
def test_a_library_is_used(name):
    assert name in _imported(), "nothing imports it: delete it, or make it a script"


@cache
def _imported() -> frozenset[str]:
    """Return the modules that benchmarks and tests import."""
    paths = (*FILES.values(), *(REPOSITORY / "reliability_tests").rglob("*.py"))
    statement = re.compile(r"^(?:import|from) (\w+)", re.MULTILINE)
    return frozenset(name for path in paths for name in statement.findall(path.read_text()))


# -- what is missing is named in one line --------------------------------------------------------


def lacks(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("not measured: ")


def test_without_a_gpu_kernels_are_not_measured(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert called("kernel_encode") == LACKING
    assert "--device cpu" in lacks(capsys)


def test_without_postgresql_its_store_is_not_measured(monkeypatch, capsys):
    monkeypatch.setattr("history_store.server_programs", lambda: None)
    assert called("history_store", "--quick", "--only", "postgresql") == LACKING
    assert "initdb" in lacks(capsys)


def test_without_chromium_a_report_is_built_but_not_opened(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert called("html_report", "--quick") == LACKING
    printed = capsys.readouterr()
    assert "built in" in printed.out
    assert "Chromium" in printed.err


def test_without_clip_benchmark_nothing_is_compared_with_it(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert called("zero_shot", "--quick") == LACKING
    assert "pip install clip-benchmark" in lacks(capsys)


# -- the convention itself -----------------------------------------------------------------------


def script() -> Script:
    made = Script("What it measures.", takes="an hour")
    made.size("--images", full=768, quick=16, help="in a round")
    made.size("--kinds", full=("a", "b"), quick=("a",), help="of image")
    return made


def test_a_quick_run_has_other_sizes_which_options_overrule():
    full, quick = script().options([]), script().options(["--quick"])
    assert (full.images, full.kinds) == (768, ("a", "b"))
    assert (quick.images, quick.kinds) == (16, ("a",))
    chosen = script().options(["--quick", "--images", "3", "--kinds", "b", "c"])
    assert (chosen.images, chosen.kinds) == (3, ["b", "c"])


def test_help_shows_both_sizes():
    text = script().format_help()
    assert "in a round (768; with --quick 16)" in text
    assert "of image (a b; with --quick a)" in text


def test_a_missed_goal_is_the_exit_code():
    goals = Goals(quick=False)
    assert goals.measured(True)
    assert goals.code == MET
    assert not goals.measured(False)
    assert goals.code == MISSED


def test_a_quick_run_judges_only_what_holds_at_any_size():
    goals = Goals(quick=True)
    assert not goals.measured(False)
    assert goals.code == MET
    goals.exact(False)
    assert goals.code == MISSED
