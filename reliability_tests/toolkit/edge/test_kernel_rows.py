"""Kernels as rows of the gate: registered by a plug-in, checked, reported, blocking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from clipq.cli import main
from clipq.kernels.kernel_spec import CHECKS
from clipq.records import KernelResult, RunRecord
from clipq.report.junit import junit
from clipq.report.markdown import markdown
from clipq.report.text import summary

KERNELS = """\
from clipq.kernels.kernel_spec import Kernel, KernelSpec, kernels

SPEC = KernelSpec(
    operation="fake-quantize", dtypes=("float32",), granularities=("row",), asymmetric=False,
    runs_on="cpu",
)


def rounded(x, scale, zero_point=None, *, low, high, group=None, half=0.0):
    if x.dtype.itemsize != 4 or not x.is_floating_point() or x.device != scale.device:
        raise ValueError(f"x is {x.dtype} on {x.device}")
    if scale.shape != (*x.shape[:-1], 1) or scale.dtype != x.dtype or zero_point is not None:
        raise ValueError(f"scale is {scale.dtype} {tuple(scale.shape)}")
    if not -128 <= low < high <= 127:
        raise ValueError(f"codes from {low} to {high}")
    steps = x / scale
    steps = (steps + 0.5).floor() if half else steps.round()
    return steps.clamp(low, high) * scale


def half_up(*given, **named):
    return rounded(*given, **named, half=0.5)


kernels.add("mine-good", Kernel(rounded, SPEC, "torch"))
kernels.add("mine-half-up", Kernel(half_up, SPEC, "torch"))
kernels.add(
    "mine-gpu", Kernel(rounded, KernelSpec(operation="fake-quantize", capability=(99, 0)), "torch")
)
"""


@pytest.fixture
def with_kernels(project):
    def make(*globs):
        (project.root / "mykernels.py").write_text(KERNELS)
        path = project.settings(quantizers=("rtn:w8",), extra='plugins = ["mykernels"]')
        path.write_text(path.read_text().replace("[matrix]", f"[matrix]\nkernels = {list(globs)}"))
        return project

    return make


def report(project):
    return json.loads((project.root / ".clipq" / "report" / "report.json").read_text())


def outcomes(project, kernel):
    return {
        row["check"]: row["outcome"]
        for row in report(project)["kernels"]
        if row["kernel"] == kernel
    }


def test_a_kernel_that_keeps_its_spec_passes_beside_the_cases(with_kernels):
    project = with_kernels("mine-good")
    done = project.clipq("gate", "-n2")
    assert done.returncode == 0, done.stdout + done.stderr
    found = outcomes(project, "mine-good")
    assert list(found) == sorted(CHECKS)
    assert found["matches-reference"] == found["takes-strided-inputs"] == "pass"
    reasons = {row["check"]: row["reason"] for row in report(project)["kernels"]}
    assert found["follows-the-stream"] == "not-run"
    assert reasons["follows-the-stream"] == "there is no GPU"
    assert "3 cases, 15 kernel checks" in done.stdout


def test_a_kernel_that_breaks_its_spec_blocks_and_is_named(with_kernels):
    project = with_kernels("mine-*")
    done = project.clipq("gate", "-n0", "--kernel", "mine-half-up")
    assert done.returncode == 1
    assert "fail: mine-half-up/rounds-half-to-even" in done.stdout
    assert report(project)["cases"] == []
    assert outcomes(project, "mine-half-up")["rounds-half-to-even"] == "fail"
    assert report(project)["passed"] is False


def test_nothing_that_could_run_is_no_pass(with_kernels):
    project = with_kernels("mine-*")
    done = project.clipq("gate", "-n0", "--kernel", "mine-gpu")
    assert done.returncode == 1, done.stdout
    assert set(outcomes(project, "mine-gpu").values()) == {"not-run"}
    assert "GATE FAILED" in done.stdout


def test_cases_that_are_selected_leave_kernels_out(with_kernels):
    done = with_kernels("mine-good").clipq("gate", "-n0", "--metric", "top1")
    assert done.returncode == 0, done.stdout
    assert "1 cases, policy ci" in done.stdout
    assert "1 deselected" in done.stdout


def test_an_unknown_kernel_is_named(with_kernels):
    done = with_kernels("mine-good").clipq("gate", "-n0", "--kernel", "mine-god")
    assert done.returncode != 0
    assert "no kernel matches 'mine-god'" in done.stdout


@pytest.mark.parametrize("action", ["check", "sanitize"])
def test_commands_need_what_they_say(action):
    environment = os.environ | {"PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "clipq", "kernels", action, "triton-nope"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2
    wanted = {"check": "no kernel matches 'triton-nope'", "sanitize": "not on the PATH"}
    assert wanted[action] in done.stderr


@pytest.mark.parametrize(("code", "said"), [(0, "no tool found"), (86, "racecheck found errors")])
def test_sanitize_runs_every_tool_over_the_checks(code, said, tmp_path, monkeypatch, capfd):
    """A stand-in for the sanitizer: what it is called with, and what its exit code means."""
    program = tmp_path / "compute-sanitizer"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert main(["kernels", "sanitize", "triton-quantize"]) == (1 if code else 0)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[1] for call in calls] == ["memcheck", "racecheck", "initcheck"]
    assert all("--error-exitcode 86" in call for call in calls)
    assert all(call.endswith("-m clipq kernels check triton-quantize") for call in calls)
    assert said in capfd.readouterr().out


def test_the_command_checks_and_lists():
    done = subprocess.run(
        [sys.executable, "-m", "clipq", "kernels", "check", "triton-quantize-layer-norm"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "triton-quantize-layer-norm" in done.stdout
    listed = subprocess.run(
        [sys.executable, "-m", "clipq", "kernels", "list"], capture_output=True, text=True
    )
    assert listed.stdout.count("triton-") >= 7


def test_every_report_shows_what_failed_and_what_did_not_run():
    rows = (
        KernelResult("k<b>", "matches-reference", "fail", "off | by *one*", "cpu", "cuda"),
        KernelResult("k<b>", "follows-the-stream", "not-run", "there is no GPU"),
        KernelResult("k<b>", "saturates", "pass", where="cpu"),
    )
    record = RunRecord(policy="ci", planned=0, cases=(), kernels=rows)
    assert not record.passed
    assert RunRecord.from_plain(json.loads(json.dumps(record.to_plain()))).kernels == rows
    assert "fail: k<b>/matches-reference" in summary(record)
    text = markdown(record)
    assert "k&lt;b&gt;" in text
    assert "off \\| by \\*one\\*" in text
    suite = ElementTree.fromstring(junit(record)).find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    assert not RunRecord(policy="ci", planned=0, cases=(), kernels=rows[1:2]).passed
    assert RunRecord(policy="ci", planned=0, cases=(), kernels=rows[1:]).passed
