"""A number that somebody wrote into a baseline decides no case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from clipq.cases import Case
from clipq.evaluation.evaluator import Evaluated
from clipq.gating import comparable
from clipq.gating.baseline import load_baseline
from clipq.gating.comparable import Comparability
from clipq.metrics import Predictions
from clipq.verdicts import Verdict


@pytest.fixture(scope="module")
def stored():
    return load_baseline(Path(__file__).parents[3] / "baselines", "vit-clean")


@pytest.fixture
def obstacle(stored, monkeypatch):
    """What stands between a case and a comparison, where FP32 is what the repository stores."""
    found = {
        name: Evaluated(table, stored.identity_of(name), {})
        for name, table in stored.predictions.items()
    }
    evaluator = SimpleNamespace(
        evaluate=lambda cell: found[cell.probe], live_reference=lambda model, samples: None
    )
    monkeypatch.setattr(comparable, "drift", lambda live, baseline, known: "")

    def look(baseline, key):
        case = Case.parse(f"vit-clean/rtn:w4/{key}")
        value = baseline.values[key]
        return Comparability(evaluator, "id", "calibration").obstacle(
            case, baseline, value, found[case.probe]
        )

    return look


def edited(stored, key, value, **scalars):
    """Return a baseline whose JSON somebody edited."""
    table = stored.predictions["id"]
    other = Predictions(table.columns, {**table.scalars, **scalars})
    values = {**stored.values, key: replace(stored.values[key], value=value)}
    return replace(stored, values=values, predictions={**stored.predictions, "id": other})


@pytest.mark.parametrize("key", ["id.top1", "id.effective-rank", "corruptions.top1"])
def test_what_was_stored_may_be_compared(stored, obstacle, key):
    assert obstacle(stored, key) is None


def test_a_value_that_does_not_follow_from_its_columns_is_named(stored, obstacle):
    found = obstacle(edited(stored, "id.top1", 0.5), "id.top1")
    assert found.verdict is Verdict.INCOMPARABLE
    assert "the baseline says 0.5, its own columns give 0.858" in found.reason


def test_a_value_edited_with_the_number_that_it_follows_from_is_named(stored, obstacle):
    baseline = edited(stored, "id.effective-rank", 2.0, effective_rank=2.0)
    found = obstacle(baseline, "id.effective-rank")
    assert found.verdict is Verdict.INCOMPARABLE
    assert "effective_rank of FP32 is 2.0, here it is 16.18" in found.reason


def test_another_machine_may_differ_a_little(stored, obstacle):
    near = stored.predictions["id"].scalars["effective_rank"] * 1.001
    baseline = edited(stored, "id.effective-rank", near, effective_rank=near)
    assert obstacle(baseline, "id.effective-rank") is None
