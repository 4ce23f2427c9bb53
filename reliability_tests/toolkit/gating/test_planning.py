"""Planning: what the stored baselines say about margins before anything is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_results import made_result

from clipq.evaluation.plan import plan, planned_candidates
from clipq.gating.margins import load_margins
from clipq.gating.planning import plan_power
from clipq.records import RunRecord
from clipq.settings import load_settings
from clipq.verdicts import Verdict

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def settings():
    return load_settings(REPOSITORY / "clipq.toml")


@pytest.fixture(scope="module")
def cases(settings):
    return [case for case in plan(settings) if case.model == "vit-clean"]


def planned(settings, cases, margins="", record=None, tmp_path=None):
    path = settings.margins
    if margins:
        path = tmp_path / "m.toml"
        path.write_text(f"[[margin]]\n[margin.metrics]\n{margins}\n")
    found = plan_power(settings, cases, load_margins(path), record)
    return {(power.key, power.margin): power for power in found}


def test_margins_are_judged_by_what_the_samples_can_decide(settings, cases, tmp_path):
    found = planned(settings, cases, '"*" = 0.1\nece = 0.004\ntop1 = 0.0003', tmp_path=tmp_path)
    assert found["id.ece", 0.004].problem == "too small to pass"
    assert found["id.ece", 0.004].needed > 2048
    assert found["id.top1", 0.0003].problem == "less than one sample"
    wide = found["digits.auroc-mcm", 0.1]
    assert (wide.problem, wide.samples) == ("", 768)
    own = [each for each in planned_candidates(settings) if each.model == "vit-clean"]
    assert wide.cases == len(own)
    assert wide.needed < 768
    assert 0 < wide.passes_from < wide.margin < wide.blocks_from


def test_more_disagreement_needs_more_samples(settings, cases, tmp_path):
    needed = []
    for share in (0.005, 0.02, 0.08):
        statistics = replace(settings.statistics, disagreement=share)
        found = planned(
            replace(settings, statistics=statistics),
            cases,
            '"*" = 0.05\ntop1 = 0.001',
            tmp_path=tmp_path,
        )
        needed.append(found["id.nll", 0.05].needed)
        assert f"{share:.1%}" in found["id.nll", 0.05].basis
    assert needed == sorted(needed)
    assert needed[2] > 3 * needed[0]


def test_a_format_that_may_cost_more_is_assumed_to_change_more(settings, cases, tmp_path):
    """The standard error grows with the root of the share that changes, the format's top-1 margin;
    with the samples that are needed, a harmful one's error is that of four times as many."""
    errors = []
    for margin in (0.02, 0.08):
        found = planned(settings, cases, f'"*" = 0.05\ntop1 = {margin}', tmp_path=tmp_path)
        nll = found["id.nll", 0.05]
        assert nll.changed == margin
        errors.append(nll.standard_error)
        to_block = (nll.blocks_from - nll.margin) / (2 * nll.standard_error)
        assert to_block == pytest.approx(1.2816 + 1.6449, rel=1e-3)  # z of 0.1 and of 95 % power
    assert errors[1] == pytest.approx(2 * errors[0], rel=1e-6)


def test_point_metrics_and_unknowable_churn_are_left_out(settings, cases, tmp_path):
    keys = {key for key, _ in planned(settings, cases, '"*" = 0.05', tmp_path=tmp_path)}
    assert "id.sqnr" not in keys
    assert "id.kl-to-fp32" not in keys
    assert "id.flip-rate" in keys


def test_a_run_replaces_assumptions_by_what_it_measured(settings, cases, tmp_path):
    measured = made_result(
        "vit-clean", "rtn:w8", "id", "kl-to-fp32", Verdict.PASS, standard_error=0.001
    )
    record = RunRecord("ci", 1, (measured,))
    found = planned(settings, cases, '"*" = 0.05', record=record, tmp_path=tmp_path)
    assert set(found) == {("id.kl-to-fp32", 0.05)}
    assert found["id.kl-to-fp32", 0.05].standard_error == 0.001
    assert found["id.kl-to-fp32", 0.05].basis == "standard errors as measured"


def test_a_model_without_a_baseline_is_left_to_the_gate(settings, cases, tmp_path):
    assert planned(replace(settings, baselines=tmp_path), cases) == {}
