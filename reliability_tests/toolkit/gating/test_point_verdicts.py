"""Numbers of a whole probe are judged by the errors that the candidate's table states."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_results import judged_alone, made_result
from scipy import stats

from clipq.errors import StatisticsError
from clipq.evaluation.resampling import Tables
from clipq.gating.loss_offset import temperature_error
from clipq.gating.verdict import Evidence, judge_point
from clipq.history.pairs import _estimate
from clipq.metrics import Predictions, metrics
from clipq.metrics.temperature_error import confidence_slope
from clipq.settings import StatisticsSettings
from clipq.verdicts import Verdict

SETTINGS = StatisticsSettings(replicates=100)


def evidence(metric, baseline, observed, margin, *, error=0.1, freedom=39.0, samples=100, **more):
    known = metrics.get(metric)
    scalar = known.statistic.scalar
    scalars = {scalar: observed, f"{scalar}.error": error, f"{scalar}.freedom": freedom}
    scalars |= {f"{scalar}.{name}": value for name, value in more.items()}
    ids = {"id": np.arange(samples)}
    tables = (Predictions(ids, {scalar: baseline}), Predictions(ids, scalars))
    return Evidence(known, baseline, observed, margin, *(Tables(t, t) for t in tables))


def judged(*arguments, **more):
    return judged_alone(evidence(*arguments, **more), SETTINGS)


@pytest.mark.parametrize(
    ("observed", "verdict"), [(11.99, "pass"), (11.75, "inconclusive"), (11.2, "fail")]
)
def test_a_loss_is_judged_by_its_interval(observed, verdict):
    found = judged("effective-rank", 12.0, observed, 0.3)
    assert found.verdict.value == verdict
    reach = stats.t.ppf(0.975, 39) * 0.1
    assert found.estimate.high == pytest.approx(12.0 - observed + reach)
    assert found.estimate.low == pytest.approx(12.0 - observed - reach)
    expected = stats.t.sf((12.0 - observed - 0.3) / 0.1, 39)
    assert found.estimate.p_value == pytest.approx(expected)


def test_what_cannot_be_told_says_how_many_samples_could():
    assert judged("effective-rank", 12.0, 11.8, 0.3).estimate.samples_needed > 100


@pytest.mark.parametrize(
    ("observed", "verdict"), [(25.0, "pass"), (20.1, "inconclusive"), (15.0, "fail")]
)
def test_a_limit_is_judged_by_the_interval_of_the_distance_to_it(observed, verdict):
    found = judged("sqnr", None, observed, 20.0, error=0.3)
    assert found.verdict.value == verdict
    assert found.estimate.margin == 20.0
    assert found.estimate.high == pytest.approx(20.0 - observed + stats.t.ppf(0.975, 39) * 0.3)


def test_nothing_beats_a_limit_by_more_than_a_margin():
    assert judged("sqnr", None, 60.0, 20.0, error=0.1).verdict.value == "pass"


def test_an_infinite_ratio_passes_as_it_stands():
    found = judged("sqnr", None, math.inf, 20.0, error=math.nan)
    assert (found.verdict.value, found.estimate.loss) == ("pass", None)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_temperature_may_lie_to_either_side(sign):
    near, far = (
        judged("temperature-log-ratio", 0.0, sign * ratio, 0.1, error=0.02, freedom=255.0)
        for ratio in (0.03, 0.3)
    )
    assert (near.verdict.value, far.verdict.value) == ("pass", "fail")


def test_a_temperature_that_no_split_determines_is_inconclusive():
    found = judged("temperature-log-ratio", 0.0, 1.0, 0.1, error=math.inf, freedom=255.0)
    assert found.verdict.value == "inconclusive"
    assert found.estimate.samples_needed is None
    assert found.estimate.finite().interval is None


def test_samples_of_a_temperature_are_those_of_the_calibration_split():
    found = judged("temperature-log-ratio", 0.0, 0.08, 0.1, error=0.02, freedom=255.0)
    assert found.estimate.samples_needed > 256
    assert "256 calibration samples" in found.reason
    with pytest.raises(StatisticsError, match="20 samples are too few"):
        judged("temperature-log-ratio", 0.0, 0.0, 0.1, error=0.02, freedom=19.0)


def test_few_samples_are_refused():
    with pytest.raises(StatisticsError, match="30 samples are too few"):
        judged("effective-rank", 12.0, 12.0, 0.3, samples=30)


def test_a_number_whose_error_is_lost_may_fail_and_cannot_pass():
    within = judged("effective-rank", 12.0, 11.8, 0.3, error=math.nan)
    assert (within.verdict.value, within.estimate.high) == ("inconclusive", None)
    assert "standard error is not known" in within.reason
    assert judged("effective-rank", 12.0, 11.5, 0.3, error=math.nan).verdict.value == "fail"


def test_what_is_surely_equal_passes():
    found = judged("head-energy", 0.5, 0.5, 0.02, error=0.0)
    assert (found.verdict.value, found.estimate.interval) == ("pass", (0.0, 0.0))


def test_an_offset_widens_the_interval_to_the_population():
    plain, off = (
        judged("classwise-ece", 0.02, 0.021, 0.003, error=5e-4, offset=o) for o in (0, -0.001)
    )
    assert plain.verdict.value == "pass"
    assert off.verdict.value == "inconclusive"
    assert off.estimate.high - plain.estimate.high == pytest.approx(0.001)
    assert off.estimate.low == pytest.approx(plain.estimate.low)
    assert off.estimate.samples_needed > 100


def test_meeting_a_demand_is_no_improvement_beyond_it():
    found = judge_point(evidence("effective-rank", 12.0, 12.011, -0.01, error=math.nan))
    assert found.verdict.value == "pass"
    found = judge_point(evidence("effective-rank", 12.0, 12.005, -0.01, error=math.nan))
    assert found.verdict.value == "fail"


def test_a_later_run_is_not_paired_by_an_error_against_fp32():
    case = made_result(
        "vit", "rtn:w8", "id", "effective-rank", Verdict.PASS, metric_version=1, standard_error=0.1
    )
    tables = Tables(*[Predictions({"id": np.arange(100)})] * 2)
    assert _estimate(None, [tables, tables], case, case) is None


# -- the error of fitted temperatures in temperature-scaled ECE ------------------------------------


def scaled(logits, labels, temperature):
    scaled_logits = logits / temperature
    probability = np.exp(scaled_logits - scaled_logits.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    right = (logits.argmax(axis=1) == labels).astype(int)
    return {"ts_confidence": probability.max(axis=1), "correct": right}


def test_the_temperatures_error_is_what_moving_them_does():
    rng = np.random.default_rng(3)
    labels, logits = rng.integers(0, 4, 400), rng.normal(size=(400, 4))
    logits[np.arange(400), labels] += 1.5
    forms = {"fp32_": logits, "": 2.0 * logits + 0.3 * rng.normal(size=logits.shape)}
    ece, step = metrics.get("ts-ece").compute, 1e-5
    columns, moves = {}, {}
    for name, form in forms.items():
        at = [Predictions(scaled(form, labels, 0.8 * np.exp(h))) for h in (-step, step)]
        moves[name] = (ece(at[1]) - ece(at[0])) / (2 * step)
        columns[f"{name}ts_slope"] = confidence_slope(form, 0.8)
    fp32 = Predictions(scaled(forms["fp32_"], labels, 0.8))
    scalars = {"variance": 0.02, "fp32_variance": 0.01, "covariance": 0.005}
    ours = Predictions(
        scaled(forms[""], labels, 0.8) | columns,
        {f"log_temperature.{name}": value for name, value in scalars.items()},
    )
    known = Evidence(metrics.get("ts-ece"), 0.1, 0.1, 0.01, Tables(fp32, fp32), Tables(ours, ours))
    gradient = np.array([moves[""], -moves["fp32_"]])
    covariance = np.array([[0.02, 0.005], [0.005, 0.01]])
    expected = np.sqrt(gradient @ covariance @ gradient)
    assert temperature_error(known) == pytest.approx(expected, rel=1e-3)


def test_nothing_is_added_where_no_temperature_is_read():
    table = Predictions({"confidence": np.full(100, 0.8), "correct": np.ones(100)})
    tables = Tables(table, table)
    assert temperature_error(Evidence(metrics.get("ece"), 0.2, 0.2, 0.01, tables, tables)) == 0.0
