"""A sweep from its plan to an export: units measured by themselves are what a gate measures."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

import clipq
from clipq.cli import main
from clipq.sweep.coordinator import run_sweep
from clipq.sweep.part_store import PartStore

PLAN = """
schema = "clipq-sweep/1"
settings = "clipq.toml"
probes = ["id"]
metrics = ["top1", "ece"]
[[sweep]]
models = ["vit-clean"]
methods = ["rtn"]
formats = {formats}
calibration = [0, 64]
seeds = 2
"""


def asked(project, capsys, *arguments):
    code = main(["sweep", *arguments])
    return code, capsys.readouterr()


@pytest.fixture
def plan(project):
    project.settings(quantizers=("rtn:w8a8", "rtn:w4"))
    path = project.root / "plan.toml"
    path.write_text(PLAN.format(formats='["w8a8", "w4"]'))
    return path


def test_a_sweep_is_run_asked_and_gone_on_with(project, plan, capsys, tmp_path, monkeypatch):
    shown, totals = str(plan), []

    def noting(*given, progress, **how):
        told = [0]
        told_of = progress and (lambda *what: told.append(what[2]))
        summary = run_sweep(*given, progress=told_of, **how)
        totals.append(told[-1])
        return summary

    monkeypatch.setattr("clipq.sweep.coordinator.run_sweep", noting)
    code, said = asked(project, capsys, "resume", shown)
    assert (code, "no sweep was begun" in said.err) == (2, True)
    code, said = asked(project, capsys, "query", shown, "SELECT 1")
    assert (code, "there is no sweep in" in said.err) == (2, True)

    code, said = asked(project, capsys, "run", shown, "--processes", "1", "--quiet")
    assert code == 0, said.out + said.err
    assert "4 units done in 4 attempts, 0 there before" in said.out + said.err
    store = PartStore(project.root / ".clipq/sweeps/plan")
    parts = {str(part.unit): part for part in store.everything()}
    assert len(parts) == 4

    run = clipq.gate(
        project.root / "clipq.toml", probes=["id"], metrics=["top1", "ece"], profile="full"
    )
    for text in ("vit-clean/rtn:w8a8", "vit-clean/rtn:w4"):
        gated = [
            replace(one, evidence={}, next_command="")
            for one in run.record.cases
            if str(one.case.candidate) == text
        ]
        assert sorted(gated, key=lambda one: one.metric) == list(parts[text].results)
        assert parts[text].evidence["models"]
    drawn = [name for name in parts if "calibration" in name]
    values = {part.results[0].observed for name, part in parts.items() if "w8a8" in name}
    assert (len(drawn), len(values)) == (2, 3)  # ranges follow from what was seen
    assert all(row.verdict.value != "incomparable" for row in parts[drawn[0]].results)

    files = {path: path.read_bytes() for path in store.paths()}
    store.path(parts[drawn[0]].unit.id).unlink()
    code, said = asked(project, capsys, "resume", shown, "--processes", "1")
    assert code == 0, said.err
    assert "1 units done in 1 attempts, 3 there before" in said.out + said.err
    assert totals == [0, 1]  # progress is of what is left, from the first word on
    assert {path: path.read_bytes() for path in store.paths()} == files  # the same bytes again

    code, said = asked(project, capsys, "status", shown)
    assert code == 0
    assert [line.split() for line in said.out.splitlines()][3] == ["all", "4", "4", "0"]
    assert "not in it: what was under way when a run was ended" in said.out
    assert said.err.startswith(f"clipq: {shown}: reading what decides its units")
    statement = "SELECT method, count(*) AS cells FROM cells GROUP BY method"
    code, said = asked(project, capsys, "query", shown, statement, "--format", "json")
    assert json.loads(said.out) == [{"method": "rtn", "cells": 8}]
    code, said = asked(project, capsys, "export", shown, str(tmp_path / "all.csv"))
    assert (code, len(pd.read_csv(tmp_path / "all.csv"))) == (0, 8)

    plan.write_text(PLAN.format(formats='["w8a8"]'))
    code, said = asked(project, capsys, "run", shown, "--quiet")
    assert (code, "is another one than this: changed: plan" in said.err) == (2, True)
    code, said = asked(project, capsys, "run", shown, "--quiet", "--another", "--processes", "1")
    assert code == 0
    assert "0 units done in 0 attempts, 3 there before" in said.out + said.err

    # A study reads the plan's units, and finds in them what its claims and figures need.
    assert main(["study", "page", "--sweep", shown, "--format", "json"]) == 0
    study = json.loads(capsys.readouterr().out)
    whole, drawn = study["configurations"]
    assert (whole["calibration_samples"], drawn["calibration_samples"]) == (None, 64)
    assert (drawn["seeds"], len(set(drawn["units"]))) == ([0, 1], 2)
    assert drawn["values"]["ece"]["change"] is not None
    assert drawn["costs"]["weight-bits"] > 8.0
    (model,) = study["models"]
    bins = [model["calibration"][name] for name in ("samples", "confidence", "accuracy")]
    assert sum(bins[0]) == 2048
    bias = sum(
        count * (confidence - accuracy) / 2048
        for count, confidence, accuracy in zip(*bins, strict=True)
        if count
    )
    assert model["bias"]["value"] == pytest.approx(bias)
    assert len(model["spectrum"]["rank"]) == len(whole["residual"]) == len(drawn["residual"])
    assert 0 < whole["residual"][0] < model["spectrum"]["signal"][0]
    assert whole["residual"] != drawn["residual"]


def test_a_dry_run_says_what_the_plan_says_and_begins_nothing(project, plan, capsys, tmp_path):
    folder = tmp_path / "begun"
    code, said = asked(
        project, capsys, "run", str(plan), "--dry-run", "--processes", "2", "--folder", str(folder)
    )
    same = asked(project, capsys, "plan", str(plan), "--processes", "2")
    assert (code, said.out) == (0, same[1].out)
    assert "metric cells" in said.out
    assert not folder.exists()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--processes", "0"], "0 processes"),
        (["--time-limit", "0"], "--time-limit 0"),
        (["--budget", "nan"], "--budget nan"),
        (["--cpu-hours", "0"], "cpu hours = 0"),
        (["--max-cost", "5"], "a cost of 5 at no price"),
        (["--memory-limit", "-1"], "--memory-limit -1"),
        (["--tries", "0"], "tries = 0"),
        (["--address", "auto"], "are of a cluster"),
        (["--patience", "60"], "are of a cluster"),
        (["--engine", "ray", "--cpus-per-unit", "0"], "cannot ask for 0.0 CPUs"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "nothing answers at '127.0.0.1:1'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(
    project, plan, capsys, given, problem
):
    code, said = asked(project, capsys, "run", str(plan), "--quiet", *given)
    assert (code, problem in said.err) == (2, True), said.err


def test_a_model_without_a_baseline_is_named_before_anything_is_measured(project, plan, capsys):
    (project.root / "baselines" / "vit-clean.json").unlink()
    code, said = asked(project, capsys, "run", str(plan), "--quiet")
    assert (code, "clipq baseline create vit-clean" in said.err) == (2, True), said.err
