"""How well one share, or one AUROC, of clustered samples is known."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import norm, t
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from clipq.gating.known_numbers import known_auroc, known_share
from clipq.metrics import Predictions


def table(clusters=None, **columns):
    if clusters is not None:
        columns["cluster"] = np.array([f"video={one}" for one in clusters])
    return Predictions({name: np.asarray(values) for name, values in columns.items()})


def drawn(rng, *, share, within, clusters, size):
    """Hits (N,) of equal clusters, beta-binomial with the correlation `within` a cluster."""
    spread = (1.0 - within) / within
    chances = rng.beta(share * spread, (1.0 - share) * spread, clusters)
    return (rng.random((clusters, size)) < chances[:, None]).ravel()


def test_a_share_is_worth_its_cluster_robust_error():
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(80), rng.integers(1, 16, 80))
    hits = rng.random(len(codes)) < rng.beta(2.0, 1.0, 80)[codes]
    found = known_share(hits, table(codes), chance=0.1)

    fit = sm.OLS(hits.astype(float), np.ones(len(hits)))
    fit = fit.fit(cov_type="cluster", cov_kwds={"groups": codes})
    p, count, variance = hits.mean(), len(hits), fit.bse[0] ** 2
    units = count**2 / (np.bincount(codes) ** 2).sum()
    few = (norm.ppf(0.975) / t.ppf(0.975, units - 1)) ** 2
    korn_graubard = p * (1 - p) / variance * few
    assert found.worth == pytest.approx(korn_graubard, rel=0.02)
    imagined = (p * (1 - p) + 1 / count) / (variance + 1 / (count * units)) * few
    assert found.worth == pytest.approx(imagined)
    shown = proportion_confint(p * found.worth, found.worth, method="wilson")
    assert (found.low, found.high) == pytest.approx(shown)
    assert units < found.worth < len(hits)


@pytest.mark.parametrize("hits", [0, 600])
def test_without_hits_or_misses_clusters_are_counted(hits):
    found = known_share(np.arange(600) < hits, table(np.arange(600) // 10), chance=0.1)
    assert found.worth == pytest.approx(60 * (norm.ppf(0.975) / t.ppf(0.975, 59)) ** 2)


def test_one_cluster_is_one_sample_and_clusters_of_one_are_none():
    hits = np.arange(100) % 2 == 0
    assert known_share(hits, table(np.zeros(100, int)), chance=0.1).worth == 1.0
    alone = known_share(hits, table(np.arange(100)), chance=0.1)
    assert alone == known_share(hits, table(rank=hits), chance=0.1)
    assert alone.worth == 100.0


def test_clusters_that_mean_nothing_hardly_widen():
    hits = np.random.default_rng(0).permutation(np.arange(640) < 518)
    alone = known_share(hits, table(rank=hits), chance=0.1)
    for size in (4, 20):
        found = known_share(hits, table(np.arange(640) // size), chance=0.1)
        assert found.high - found.low < 1.25 * (alone.high - alone.low)


@pytest.mark.parametrize(("share", "within"), [(0.02, 0.3), (0.1, 0.9), (0.8, 0.01), (0.5, 0.3)])
def test_intervals_keep_their_level(share, within):
    rng, clusters = np.random.default_rng(1), table(np.arange(600) // 15)
    held = 0
    for _ in range(400):
        hits = drawn(rng, share=share, within=within, clusters=40, size=15)
        found = known_share(hits, clusters, chance=0.0)
        held += found.low <= share <= found.high
    assert held / 400 > 0.92  # 0.95, less three standard errors


def obuchowski(inside, outside, first, second):
    """The standard error of a clustered AUROC, cluster by cluster (Obuchowski 1997, eq. 3)."""
    wins = (inside[:, None] > outside).astype(float) + 0.5 * (inside[:, None] == outside)
    area, units = wins.mean(), np.union1d(first, second)
    known, other = len(inside), len(outside)
    x = {u: (wins.mean(1)[first == u] - area).sum() for u in units}
    y = {u: (wins.mean(0)[second == u] - area).sum() for u in units}
    a, b, both = len(set(first)), len(set(second)), len(units)
    variance = a / (a - 1) * sum(v**2 for v in x.values()) / known**2
    variance += b / (b - 1) * sum(v**2 for v in y.values()) / other**2
    variance += 2 * both / (both - 1) * sum(x[u] * y[u] for u in units) / known / other
    return np.sqrt(variance)


@pytest.mark.parametrize("apart", [100, 20])
def test_an_auroc_is_worth_its_error_by_clusters_of_both_sides(apart):
    rng = np.random.default_rng(4)
    first, second = np.repeat(np.arange(40), 8), apart + np.repeat(np.arange(40), 5)
    own = rng.normal(size=200)
    inside = rng.normal(0.6, 1.0, len(first)) + own[first]
    outside = rng.normal(0.0, 1.0, len(second)) + own[second]
    found = known_auroc("mcm", table(second, mcm=outside), table(first, mcm=inside))
    area = roc_auc_score(np.repeat([1, 0], [320, 200]), np.concatenate([inside, outside]))
    assert found.value == pytest.approx(area)
    error = obuchowski(inside, outside, first, second)
    half = (found.high - found.low) / 2
    assert half == pytest.approx(t.ppf(0.975, 39) * error, rel=0.06)  # Wilson's is no t interval
    unclustered = known_auroc("mcm", table(mcm=outside), table(mcm=inside))
    assert half > 1.5 * (unclustered.high - unclustered.low) / 2


def test_six_clusters_of_a_hundred_equal_scores_are_six():
    rng = np.random.default_rng(5)
    inside, own = table(mcm=rng.normal(0.2, 1.0, 600)), rng.normal(size=6)
    codes = np.repeat(np.arange(6), 100)
    found = known_auroc("mcm", table(codes, mcm=own[codes]), inside)
    assert found.worth < 12
    assert found.low < 0.32 < 0.8 < found.high


def test_a_perfect_auroc_counts_the_units_of_the_smaller_side():
    inside = table(mcm=np.arange(100.0, 200.0))
    alone = known_auroc("mcm", table(mcm=np.arange(50.0)), inside)
    assert alone.worth == pytest.approx(50, rel=0.1)
    few = known_auroc("mcm", table(np.repeat([0, 1, 2], 20), mcm=np.arange(60.0)), inside)
    assert few.low < 0.5
