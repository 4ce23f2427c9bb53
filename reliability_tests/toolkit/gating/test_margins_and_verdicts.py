"""Margins are reviewed rules; verdicts follow from them and never from a NaN."""

from __future__ import annotations

import math
import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from clipq.cases import FP32, Cell
from clipq.errors import SettingsError
from clipq.evaluation.resampling import Tables
from clipq.gating.commands import Commands
from clipq.gating.margins import check_margin, load_margins
from clipq.gating.session import Gate
from clipq.gating.verdict import Evidence, judge_point
from clipq.metrics import Predictions, metrics
from clipq.settings import load_settings
from clipq.verdicts import POLICIES, Verdict

RULES = """\
[[margin]]
formats = "*"
[margin.metrics]
"*" = 0.01
"id.ece" = 0.02
[[margin]]
formats = "w4*"
[margin.metrics]
"auroc-*" = 0.1
[[margin]]
models = "fragile"
[margin.metrics]
top1 = 0.001
[[expected-failure]]
cases = ["*/rtn:w4a4/id.top1"]
reason = "4-bit activations collapse"
"""


@pytest.fixture
def margins(tmp_path):
    (tmp_path / "m.toml").write_text(RULES)
    return load_margins(tmp_path / "m.toml")


@pytest.mark.parametrize(
    ("case", "margin"),
    [
        (Cell("m", "rtn:w8", "id").case("top1"), 0.01),
        (Cell("m", "rtn:w8", "id").case("ece"), 0.02),
        (Cell("m", "rtn:w4g32", "digits").case("auroc-mcm"), 0.1),
        (Cell("m", "rtn:w4a8", "digits").case("auroc-mcm"), 0.1),
        (Cell("fragile", "rtn:w8", "id").case("top1"), 0.001),
        (Cell("m", "mine", "id").case("top1"), 0.01),
    ],
)
def test_the_last_rule_that_matches_gives_the_margin(margins, case, margin):
    assert margins.margin(case) == margin


def test_expected_failures_are_named_with_their_reason(margins):
    found = margins.expected_failure(Cell("m", "rtn:w4a4", "id").case("top1"))
    assert found.reason == "4-bit activations collapse"
    assert margins.expected_failure(Cell("m", "rtn:w4a4", "id").case("ece")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[margin]]\nformat = '*'\n[margin.metrics]\na = 1\n", "did you mean 'formats'"),
        ("[[margin]]\nformats = '*'\n", r"number 1: no metrics\n.*\[margin\.metrics\]"),
        (
            "[[margin]]\n[margin.metrics]\ntop1 = nan\n",
            r"metrics\.top1 = nan\n.*finite number",
        ),
        ("[[margin]]\n[margin.metrics]\ntop1 = '1%'\n", "number 1: metrics.top1 = '1%'"),
        ("[[expected-failure]]\ncases = ['*']\n", "number 1: no reason"),
        ("margin = 3\n", "margin must be a list, each a table"),
        ("[[margin]\n", "cannot be read"),
    ],
)
def test_a_malformed_margin_file_is_refused(tmp_path, text, message):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_margins(tmp_path / "m.toml")


def test_a_case_without_a_margin_is_an_error_not_a_default(tmp_path):
    (tmp_path / "m.toml").write_text("[[margin]]\nformats = 'w4'\n[margin.metrics]\ntop1 = 0.1\n")
    with pytest.raises(SettingsError, match=r"no margin for m/rtn:w8/id\.top1"):
        load_margins(tmp_path / "m.toml").margin(Cell("m", "rtn:w8", "id").case("top1"))


@pytest.mark.parametrize(
    ("name", "baseline", "margin", "reachable"),
    [
        ("top1", 0.86, 1.0 - 1e-9, 0.86),  # accuracy falls to 0
        ("top1", 0.86, 0.86, 0.86),
        ("negative-flips", 0.1, 0.9, 0.9),  # a share rises to 1
        ("confidence-gap", -0.3, 0.7, 0.7),  # away from 0, on either side
        ("fpr95-energy", 1.0, 0.75, 0.0),
    ],
)
def test_a_margin_that_no_loss_from_fp32_can_exceed_is_refused(name, baseline, margin, reachable):
    said = f"from FP32's {baseline:.4g} no quantizer can lose more than {reachable:.4g}"
    with pytest.raises(SettingsError, match=f"m: a margin of .*, and {re.escape(said)}\n"):
        check_margin(metrics.get(name), margin, where="m", baseline=baseline)


@pytest.mark.parametrize(
    ("name", "baseline", "margin"),
    [
        ("top1", 0.86, 0.85),
        ("fpr95-energy", 0.9987, 0.135),  # FP32 has nothing to lose: not the margin's fault
        ("mce", 0.71, 0.6),
        ("nll", 0.5, 9999.0),  # unbounded: whatever FP32's value, more can be lost
        ("sqnr", None, 20.0),
        ("sqnr", 30.0, 20.0),  # a limit is no loss
    ],
)
def test_a_margin_that_can_fail_or_of_which_fp32_is_at_fault_is_not(name, baseline, margin):
    check_margin(metrics.get(name), margin, where="m", baseline=baseline)


def test_the_whole_matrix_is_held_against_stored_values(tmp_path):
    (tmp_path / "m.toml").write_text("[[margin]]\n[margin.metrics]\ntop1 = 0.9\n")
    margins, cases = load_margins(tmp_path / "m.toml"), [Cell("m", "rtn:w8", "id").case("top1")]
    margins.check_against(cases)
    margins.check_against(cases, {"m": {"id.top1": None}, "other": {"id.top1": 0.5}})
    with pytest.raises(SettingsError, match=r"m\.toml: id\.top1: a margin of 0\.9 fraction, and"):
        margins.check_against(cases, {"m": {"id.top1": 0.86}})


def test_an_excuse_that_excuses_nothing_is_refused(margins):
    with pytest.raises(SettingsError, match=r"'\*/rtn:w4a4/id\.top1' matches no case"):
        margins.check_against([Cell("m", "rtn:w8", "id").case("top1")])
    margins.check_against([Cell("m", "rtn:w4a4", "id").case("top1")])


def judge(metric, baseline, observed, margin=0.02):
    table = Predictions({"id": np.array(["a"])})
    empty = Tables(table, table)
    return judge_point(Evidence(metrics.get(metric), baseline, observed, margin, empty, empty))


@pytest.mark.parametrize(
    ("metric", "baseline", "observed", "verdict"),
    [
        ("top1", 0.9, 0.89, Verdict.PASS),
        ("top1", 0.9, 0.85, Verdict.FAIL),
        ("top1", 0.9, 0.95, Verdict.IMPROVED),
        ("ece", 0.1, 0.11, Verdict.PASS),
        ("ece", 0.1, 0.15, Verdict.FAIL),
        ("ece", 0.1, 0.05, Verdict.IMPROVED),
        ("confidence-gap", 0.05, -0.06, Verdict.PASS),
        ("confidence-gap", 0.05, -0.09, Verdict.FAIL),
        ("confidence-gap", -0.09, 0.01, Verdict.IMPROVED),
        ("ece", 0.1, math.nan, Verdict.NON_FINITE),
        ("nll", 0.1, math.inf, Verdict.NON_FINITE),
        ("ece", None, 0.1, Verdict.NON_FINITE),
        ("ece", math.nan, 0.1, Verdict.NON_FINITE),
    ],
)
def test_a_point_verdict_follows_the_oriented_loss(metric, baseline, observed, verdict):
    assert judge(metric, baseline, observed).verdict is verdict


def test_an_absolute_metric_is_judged_against_its_floor():
    assert judge("sqnr", None, 12.0, margin=10.0).verdict is Verdict.PASS
    assert judge("sqnr", None, math.inf, margin=10.0).verdict is Verdict.PASS
    failed = judge("sqnr", None, 8.0, margin=10.0)
    assert (failed.verdict, failed.estimate.loss) == (Verdict.FAIL, 2.0)
    assert judge("sqnr", None, math.nan, margin=10.0).verdict is Verdict.NON_FINITE


# -- what to type next ---------------------------------------------------------------------------

PROFILES = """\
[profiles.default]
exclude = ["*/rtn:w8a8/*"]
[profiles.quick]
probes = ["digits"]
"""
FAILED = Cell("vit-clean", "rtn:w8", "id").case("top1")


def placed(project, folder, name="clipq.toml", extra=""):
    """The settings of a project in a folder of a git repository."""
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    path = project.root / folder / name
    path.parent.mkdir(exist_ok=True)
    project.settings().rename(path)
    path.write_text(path.read_text() + extra)
    return load_settings(path)


def test_a_project_at_the_top_of_its_repository_is_found_without_its_settings(project):
    commands = Commands(placed(project, "."))
    gate = "clipq gate --model vit-clean --quantizer 'rtn:w8' -n0"
    assert commands.next(FAILED, Verdict.FAIL) == gate
    assert commands.next(FAILED, Verdict.MISSING) == "clipq baseline create vit-clean"
    assert commands.next(FAILED, Verdict.PASS) == ""


def test_a_project_without_a_repository_is_found_from_its_own_folder(project, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.root.parent))
    commands = Commands(load_settings(project.settings()))
    assert commands.next(FAILED, Verdict.DRIFTED) == "clipq baseline verify vit-clean"


@pytest.mark.parametrize("name", ["clipq.toml", "other.toml"])
@pytest.mark.parametrize("verdict", filter(POLICIES["release"].blocks, Verdict))
def test_every_command_names_the_settings_of_a_project_that_lies_deeper(project, name, verdict):
    commands = Commands(placed(project, "sub", name))
    assert commands.next(FAILED, verdict).startswith(f"clipq --config sub/{name} ")


def test_the_report_that_measured_too_little_is_named_from_the_top(project):
    command = Commands(placed(project, "sub")).next(FAILED, Verdict.INCONCLUSIVE)
    assert command.endswith(" power --record sub/.clipq/report/report.json")


@pytest.mark.parametrize(
    ("quantizer", "ends"), [("rtn:w8", "-n0"), ("rtn:w8a8", "-n0 --profile full")]
)
def test_a_case_that_the_default_profile_leaves_out_is_run_again_with_another(
    project, quantizer, ends
):
    commands = Commands(placed(project, ".", extra=PROFILES))
    assert commands.next(
        replace(FAILED.cell, quantizer=quantizer).case(FAILED.metric), Verdict.FAIL
    ).endswith(ends)


def test_a_release_is_run_again_as_a_release(project):
    settings = replace(placed(project, "."), policy="release")
    assert Commands(settings).next(FAILED, Verdict.FAIL).endswith("-n0 --policy release")


def test_globs_in_a_quantizer_are_taken_literally(project):
    case = replace(FAILED.cell, quantizer="rtn:w8,float=visual.*[0]").case(FAILED.metric)
    command = Commands(placed(project, ".")).next(case, Verdict.ERROR)
    assert "--quantizer 'rtn:w8,float=visual.[*][[]0]'" in command


def test_a_gate_gives_its_cases_the_command_and_the_baseline_s_place_from_the_top(project):
    settings = placed(project, "sub")
    gate = Gate(settings, evaluator=None)
    missing = gate.unexcused(FAILED)
    assert (
        gate.commands.next(FAILED, missing.verdict)
        == "clipq --config sub/clipq.toml baseline create vit-clean"
    )
    (project.root / "baselines").rename(settings.baselines)
    gone = replace(FAILED.cell, quantizer=FP32).case(FAILED.metric)
    vanished = Gate(settings, evaluator=None).unexcused(gone)
    stored = vanished.evidence["baselines"]["vit-clean"]
    assert stored["file"] == "sub/baselines/vit-clean.json"
