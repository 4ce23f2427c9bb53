"""Verdicts say how sure they are: pass, fail, improved, or that the samples cannot tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_results import judged_alone

from clipq.errors import StatisticsError
from clipq.evaluation.resampling import Resampler, Tables
from clipq.gating.interval import IntervalJudge
from clipq.gating.loss_estimator import discordance
from clipq.gating.verdict import Evidence
from clipq.metrics import Metric, Predictions, Statistic, metrics
from clipq.settings import StatisticsSettings
from clipq.verdicts import Verdict

SETTINGS = StatisticsSettings(replicates=200)


def tables(count=1000, worse=0, better=0, seed=0, **columns):
    """Two in-distribution tables of which so many samples got worse and better."""
    rng = np.random.default_rng(seed)
    before = (rng.uniform(size=count) < 0.7).astype(int)
    right, wrong = np.flatnonzero(before), np.flatnonzero(1 - before)
    after = before.copy()
    after[right[:worse]] = 0
    after[wrong[:better]] = 1
    confidence = rng.uniform(0.2, 0.9, count)

    def table(correct):
        return Predictions(
            {
                "id": np.arange(count),
                "rank": 1 - correct,
                "correct": correct,
                "confidence": confidence,
                "nll": np.where(correct == 1, 0.2, 1.5),
                **columns,
            }
        )

    return table(before), table(after)


def evidence(metric, first, second, margin, **more):
    chosen = metric if isinstance(metric, Metric) else metrics.get(metric)
    return Evidence(
        chosen,
        chosen.compute(first),
        chosen.compute(second),
        margin,
        Tables(first, first),
        Tables(second, second),
        **more,
    )


def judge(*arguments, cases=1, settings=SETTINGS, **more):
    return judged_alone(evidence(*arguments, **more), settings, cases=cases)


@pytest.mark.parametrize(
    ("worse", "better", "verdict"),
    [
        (0, 0, Verdict.PASS),
        (10, 10, Verdict.PASS),
        (60, 0, Verdict.FAIL),
        (20, 0, Verdict.INCONCLUSIVE),
        (15, 15, Verdict.PASS),
        (0, 60, Verdict.IMPROVED),
        (0, 20, Verdict.PASS),
    ],
)
@pytest.mark.parametrize("metric", ["top1", "confidence-gap", "nll"])
def test_the_verdict_follows_where_the_interval_lies(metric, worse, better, verdict):
    first, second = tables(worse=worse, better=better)
    if metric == "confidence-gap":  # under-confident: a gained sample widens the gap
        assert metrics.get(metric).compute(first) < 0
        first, second = tables(worse=better, better=worse)
    margin = {"top1": 0.02, "confidence-gap": 0.02, "nll": 0.02 * 1.3}[metric]
    found = judge(metric, first, second, margin)
    assert found.verdict is verdict, found
    assert found.estimate.low <= found.estimate.loss <= found.estimate.high


def test_an_inconclusive_case_says_how_many_samples_would_decide():
    first, second = tables(count=1000, worse=20)
    found = judge("top1", first, second, 0.03)
    assert found.verdict is Verdict.INCONCLUSIVE
    many = tables(
        count=2 * found.estimate.samples_needed,
        worse=round(0.02 * 2 * found.estimate.samples_needed),
    )
    assert judge("top1", *many, 0.03).verdict is Verdict.PASS
    exactly = judge("top1", *tables(count=1000, worse=30), 0.03)
    assert (exactly.verdict, exactly.estimate.samples_needed) == (Verdict.INCONCLUSIVE, None)


def test_the_more_cases_the_surer_a_failure_must_be():
    first, second = tables(worse=34, better=0)
    assert judge("top1", first, second, 0.02).verdict is Verdict.FAIL
    many = judge("top1", first, second, 0.02, cases=2000)
    assert many.verdict is Verdict.SUSPECT
    alone = replace(SETTINGS, correction="none")
    assert judge("top1", first, second, 0.02, cases=2000, settings=alone).verdict is Verdict.FAIL
    # A pass needs no correction.
    passing = tables(worse=5, better=5)
    assert judge("top1", *passing, 0.02, cases=2000).verdict is Verdict.PASS


@pytest.mark.parametrize("worse", [0, 60, 400])
@pytest.mark.parametrize("margin", [0.02, -0.02])
def test_no_verdict_rests_on_a_margin_below_fp32s_own_noise(worse, margin):
    found = judge("top1", *tables(worse=worse), margin, noise=0.03)
    assert found.verdict is Verdict.ERROR
    assert f"noise, 0.03, times noise_factor 3 exceeds the margin {margin:g}" in found.reason


@pytest.mark.parametrize("noise", [0.0, 1e-6, 0.0066])
def test_noise_below_the_margin_changes_nothing(noise):
    first, second = tables(worse=34)
    assert judge("top1", first, second, 0.02, noise=noise) == judge("top1", first, second, 0.02)
    assert judge("top1", first, second, -0.02, noise=noise).estimate.margin == -0.02


def test_nan_is_never_a_pass():
    first, second = tables()
    second.columns["nll"][3] = np.nan
    assert judge("nll", first, second, 0.1).verdict is Verdict.NON_FINITE


def test_a_share_counts_discordant_samples_in_the_direction_of_the_metric():
    first, second = tables(worse=7, better=3)
    counts = discordance(evidence("top1", first, second, 0.01))
    assert (counts.worse, counts.better, counts.samples) == (7, 3, 1000)
    flips = Predictions({"id": np.arange(100), "agrees": np.ones(100), "kl": np.zeros(100)})
    flipped = Predictions(
        {"id": np.arange(100), "agrees": np.arange(100) >= 9, "kl": np.zeros(100)}
    )
    counts = discordance(evidence("flip-rate", flips, flipped, 0.01))
    assert (counts.worse, counts.better) == (9, 0)


def test_clustered_samples_make_a_verdict_less_sure():
    changed = {"worse": 300, "better": 100, "count": 4000}
    alone = judge("top1", *tables(**changed), 0.05)
    clusters = np.arange(4000) // 80
    grouped = judge("top1", *tables(**changed, cluster=clusters), 0.05)
    assert grouped.estimate.standard_error > 1.5 * alone.estimate.standard_error
    assert discordance(evidence("top1", *tables(cluster=clusters[:1000]), 0.05)) is None


def test_clusters_of_one_sample_are_samples():
    alone = judge("top1", *tables(worse=10, better=10), 0.05)
    own = judge("top1", *tables(worse=10, better=10, cluster=np.arange(1000)), 0.05)
    assert own == alone


def test_no_change_in_a_few_clusters_is_not_certainty():
    clusters = np.arange(4000) // 80
    found = judge("top1", *tables(count=4000, cluster=clusters), 0.05)
    assert found.estimate.high > 2.5 / 50  # fifty independent units, not 4,000
    first, second = tables(count=4000, cluster=clusters)
    second.columns["rank"][::80] = 1 - second.columns["rank"][::80]
    little = judge("top1", first, second, 0.05)
    assert little.estimate.standard_error < 0.3 / 50  # of these clusters, an eightieth changes


def test_too_few_clusters_are_refused_however_many_samples_they_hold():
    first, second = tables(count=800, cluster=np.arange(800) // 400)
    with pytest.raises(StatisticsError, match="800 samples of 2 independent clusters are too few"):
        judge("top1", first, second, 0.05)
    lopsided = np.where(np.arange(800) < 700, 0, np.arange(800))
    first, second = tables(count=800, cluster=lopsided)
    with pytest.raises(StatisticsError, match=r"101 clusters, worth 1\.31 of equal size"):
        judge("top1", first, second, 0.05)
    enough = tables(count=48 * 20, cluster=np.arange(960) // 20)
    assert judge("top1", *enough, 0.2).verdict is Verdict.PASS


def test_a_metric_without_a_statistic_is_resampled_by_its_own_function():
    slow = Metric("slow", "", "nats", "lower", (0, 9), frozenset({"x"}), f"{__name__}:mean_nll")
    first, second = tables(worse=40, better=10, seed=2)
    import sys

    sys.modules.setdefault(__name__, sys.modules[mean_nll.__module__])
    slowly, fast = judge(slow, first, second, 0.02), judge("nll", first, second, 0.02)
    assert slowly.estimate.loss == pytest.approx(fast.estimate.loss)
    assert slowly.estimate.standard_error == pytest.approx(fast.estimate.standard_error, rel=0.15)


def mean_nll(predictions):
    return float(predictions.column("nll").mean())


def ood(count, shift, seed, equal=False):
    rng = np.random.default_rng(seed)
    scores = np.ones(count) if equal else rng.normal(shift, 1, count)
    return Predictions({"id": np.arange(count), "mcm": scores})


def test_bad_pairs_are_refused_with_what_is_wrong():
    resampler = Resampler(SETTINGS)
    metric = metrics.get("auroc-mcm")
    good = Tables(ood(200, 0, 1), ood(300, 1, 2))
    resampler.check(good, good, metric)
    other = Predictions({"id": np.arange(200)[::-1], "mcm": np.arange(200.0)})
    for first, second, message in (
        (good, Tables(other, good.in_distribution), "in another order, first at row 0"),
        (good, Tables(ood(150, 0, 1), good.in_distribution), "50 samples are in one of them only"),
        (good, Tables(good.predictions, ood(250, 1, 2)), "50 samples are in one of them only"),
        (Tables(ood(20, 0, 1), ood(300, 1, 2)),) * 2 + ("20 samples are too few",),
        (Tables(ood(200, 0, 1, True), ood(300, 0, 1, True)),) * 2 + ("FP32's scores are all 1",),
    ):
        with pytest.raises(StatisticsError, match=message):
            resampler.check(first, second, metric)


def test_a_quantizer_with_constant_scores_fails_it_is_not_an_error():
    metric = metrics.get("auroc-mcm")
    fp32 = Tables(ood(200, 0, 1), ood(300, 1, 2))
    flat = Tables(ood(200, 0, 1, True), ood(300, 0, 1, True))
    values = [metric.compute(both.predictions, both.in_distribution) for both in (fp32, flat)]
    found = IntervalJudge(SETTINGS, Resampler(SETTINGS))(
        Evidence(metric, *values, 0.02, fp32, flat)
    )
    assert values[1] == 0.5
    assert found.verdict is Verdict.FAIL


@pytest.mark.parametrize("level", [0, 1])
def test_all_right_and_all_wrong_are_judged(level):
    same = np.full(300, level)
    table = Predictions(
        {
            "id": np.arange(300),
            "rank": 1 - same,
            "correct": same,
            "confidence": np.linspace(0.2, 0.9, 300),
        }
    )
    for name in ("top1", "ece", "mce", "ace", "confidence-gap"):
        found = judge(name, table, table, 0.05)
        assert (found.verdict, found.estimate.loss) == (Verdict.PASS, 0.0)
        assert found.estimate.high > 0  # no change among 300 samples is not certainty


# -- declared statistics --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "median", "columns": ("nll",)}, "unknown kind of statistic 'median'"),
        ({"kind": "mean"}, r"'mean' with columns \(\)"),
        ({"kind": "ece", "columns": ("confidence",)}, "one column each for: confidence, correct"),
        ({"kind": "share", "columns": ("rank",)}, "below = None"),
        ({"kind": "mean", "columns": ("nll",), "below": 1.0}, r"below = 1\.0"),
    ],
)
def test_a_statistic_that_cannot_be_computed_is_refused(arguments, message):
    from clipq.errors import ClipqError

    with pytest.raises(ClipqError, match=message):
        Statistic(**arguments)


def test_p_values_are_those_of_the_margin():
    first, second = tables(worse=20)
    value = metrics.get("nll").compute
    at = judge("nll", first, second, value(second) - value(first)).estimate
    assert at.p_value == pytest.approx(0.5, abs=0.03)  # skewed: the mean is not the median
    beyond = judge("nll", first, second, at.high).estimate
    assert beyond.p_value >= 1 - SETTINGS.tail - 1e-9  # skewness may only widen
    below = judge("nll", first, second, at.low).estimate
    assert below.p_value == pytest.approx(SETTINGS.tail)
