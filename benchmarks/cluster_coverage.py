"""How often intervals hold the true loss where samples come in clusters, told and not told so.

    python benchmarks/cluster_coverage.py [--quick]

Made-up patients, each with 1 to 11 scans in distribution and half of them with 6 out of it, whose
losses share what is the patient's: half the variance of how far a quantizer moves their logits. The
true loss is the mean over all draws. Goal: told of `cluster`, intervals at nominal 95 % hold it in
92 % of the draws or more. Without, coverage is what a gate would have that knows no patients.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from benchmark import Goals, Script
from tabulate import tabulate

from clipq.evaluation.resampling import Resampler, Tables
from clipq.gating.loss_estimator import LossEstimator
from clipq.gating.verdict import Evidence
from clipq.metrics import Predictions, metrics
from clipq.settings import StatisticsSettings

NAMES = ("nll", "top1", "ece", "worst-group-top1", "auroc-mcm", "aupr-mcm", "fpr95-mcm")
LOWEST = 0.92
FAR = 1.0
"""A margin that no loss comes near, so that every case has the first draws alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about two minutes on 2 cores")
    script.size("--draws", full=200, quick=4, help="of patients")
    script.size("--patients", full=(30,), quick=(30,), help="in distribution")
    options = script.options(arguments)
    goals, rows = Goals(quick=options.quick), []
    for patients in options.patients:
        covered, ratios = measured(patients, options.draws)
        for name, (told, untold), ratio in zip(NAMES, covered, ratios, strict=True):
            rows.append((patients, name, f"{told:.1%}", f"{untold:.1%}", f"{ratio:.2f}"))
            goals.measured(told >= LOWEST)
    headers = ("patients", "metric", "covered, told", "not told", "standard error, times as large")
    print(tabulate(rows, headers, disable_numparse=True))
    return goals.code


def measured(patients: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Return coverage with and without clusters (K, 2), and ratios of standard errors (K,)."""
    found = np.array([one_draw(seed, patients) for seed in range(draws)])
    losses, low, high, errors = np.moveaxis(found, -1, 0)  # each (draws, 2, K)
    truth = losses[:, :1].mean(axis=0, keepdims=True)
    covered = ((low <= truth) & (truth <= high)).mean(axis=0)
    return covered.T, np.median(errors[:, 0] / errors[:, 1], axis=0)


def one_draw(seed: int, patients: int) -> list[list[tuple[float, ...]]]:
    """Return loss, ends of its interval and standard error, told and not, by metric."""
    settings = StatisticsSettings(replicates=200)
    scans = drawn(seed, patients)
    found = []
    for sides in (scans, [unclustered(side) for side in scans]):
        known = [Tables(side.in_distribution, side.in_distribution) for side in sides]
        estimate = LossEstimator(settings, Resampler(settings))
        row: list[tuple[float, ...]] = []
        for metric in map(metrics.get, NAMES):
            both = sides if metric.score else known
            values = [metric.compute(side.predictions, side.in_distribution) for side in both]
            loss = metric.loss(*values)
            one = estimate(Evidence(metric, *values, FAR, *both), loss, margin=FAR)
            row.append((loss, one.low or 0.0, one.high or 0.0, one.standard_error or 0.0))
        found.append(row)
    return found


def drawn(seed: int, patients: int) -> tuple[Tables, Tables]:
    """Return tables of FP32 and of a quantizer that moved its logits, of one draw of patients."""
    rng = np.random.default_rng(seed)
    inside = np.repeat(np.arange(patients), rng.integers(1, 12, patients))
    outside = np.repeat(np.arange(patients // 2, patients + patients // 2), 6)
    effect, drift = rng.normal(size=(2, 2 * patients))
    known, other = (rng.normal(size=len(of)) for of in (inside, outside))
    sure = rng.uniform(0.7, 1.0, len(inside))
    sides = []
    for moved in (0.0, 0.5):
        logit = 1.2 + effect[inside] + known - 0.3 * moved
        logit += moved * (drift[inside] + rng.normal(size=len(inside)))
        correct = (logit > 0.0).astype(np.int64)
        score = effect[outside] + other
        score += moved * (drift[outside] + rng.normal(size=len(outside)))
        sides.append(
            Tables(
                Predictions({"cluster": names(outside), "mcm": score}),
                Predictions(
                    {
                        "cluster": names(inside),
                        "group": np.array(["old", "young"])[np.arange(len(inside)) % 2],
                        "rank": 1 - correct,
                        "correct": correct,
                        "confidence": sure,
                        "nll": np.log1p(np.exp(-logit)),
                        "mcm": logit,
                    }
                ),
            )
        )
    return sides[0], sides[1]


def names(patients: np.ndarray) -> np.ndarray:
    return np.array([f"patient={number}" for number in patients])


def unclustered(tables: Tables) -> Tables:
    inside, outside = (
        Predictions({name: v for name, v in table.columns.items() if name != "cluster"})
        for table in (tables.in_distribution, tables.predictions)
    )
    return Tables(outside, inside)


if __name__ == "__main__":
    sys.exit(main())
