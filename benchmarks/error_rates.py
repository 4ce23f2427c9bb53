"""How often verdicts are wrong, how often damage is found, how often intervals cover.

    python benchmarks/error_rates.py [--gates 2000] [--samples 500 2000 10000] [--kinds skew rare]
    python benchmarks/error_rates.py --intervals          # which interval, and why
    python benchmarks/error_rates.py --detection          # does `clipq power` keep its promise

A gate is one draw from a simulated population (`simulated_pairs`), judged by the same code as a
real one on every resampled metric, corrected for their number. Null pairs are of two kinds:
`margin`, where the true loss is exactly the margin, and `equal`, where both models are equally good
and the margin is 0. A pass is then wrong, and so is a failure; only `inconclusive` is right.

The truth is the expected loss at the probe's size: for accuracies, means and areas that is the
population's loss; calibration errors and FPR95 have a finite-sample bias that both sides share
only in part, and `off` says by how many standard errors the population's value lies elsewhere.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from simulated_pairs import KINDS, Population, population
from tabulate import tabulate

from clipq.cases import Cell
from clipq.evaluation.resampling import Resampler, Sample, resolution
from clipq.gating.interval import IntervalJudge
from clipq.gating.verdict import Evidence, Judgement, finalise
from clipq.metrics import Metric, metrics
from clipq.records import CaseResult, Verdict
from clipq.settings import StatisticsSettings
from clipq.stats import (
    Interval,
    bca_interval,
    jackknife_weights,
    normal_interval,
    percentile_interval,
    samples_needed,
    single_step,
    standard_error,
)

SETTINGS = StatisticsSettings()
CHURN = ("flip-rate", "negative-flips", "kl-to-fp32", "margin-shrinkage", "embedding-drift")
# An accuracy from a band of ranks is a share, as top-1 is.
ALIKE = ("top1-low", "top1-mid", "top1-high")
SUITE = (
    "aurc",
    "augrc",
    "coverage-at-5",
    "smooth-ece",
    "worst-group-top1",
    "group-top1-range",
    "group-top1-std",
    "group-ece-range",
    "group-tpr-range",
    "relative-gap",
    "added-vulnerability",
    "corruption-error",
    "aupr-out-max-logit",
    "aupr-out-entropy",
)
# The MCM and energy scores behave as the max-logit score does: one of the three is simulated.
SCORES = ("max-logit", "entropy")


def gate_metrics(suite: bool | None = None) -> dict[str, Metric]:
    """Return every resampled metric of a gate; churn is no null pair's business.

    Args:
        suite: only those of `SUITE`, or only the others; None for all.
    """
    found = {}
    for name in metrics.names():
        metric = metrics.get(name)
        kind = metric.statistic.kind if metric.statistic else "point"
        if kind == "point" or name in CHURN or name in ALIKE or metric.roles == {"retrieval"}:
            continue
        if suite is not None and (name in SUITE) is not suite:
            continue
        if metric.score and not name.endswith(SCORES):
            continue
        found[name] = metric
    return found


class Exact(Resampler):
    """One replicate in which every sample counts once: the point values, fast."""

    def _drawn(self, table, stream):
        return np.ones((1, len(table)), np.uint8)


class Jackknife(Resampler):
    """Replicates that leave out one of 80 groups of either kind of sample."""

    def _drawn(self, table, stream):
        own = jackknife_weights(len(table), groups=80, seed=SETTINGS.seed, stream=stream)
        rest = np.ones_like(own)
        return np.concatenate([own, rest] if stream == 0 else [rest, own])


def point_losses(drawn: dict[str, tuple[Sample, Sample]], names: dict[str, Metric]) -> np.ndarray:
    exact = Exact(SETTINGS)
    return np.array([_losses(exact, metric, drawn)[0] for metric in names.values()])


def _losses(resampler: Resampler, metric: Metric, drawn) -> np.ndarray:
    fp32, quantized = drawn["ood" if metric.score else "id"]
    return metric.loss(resampler.replicates(metric, fp32), resampler.replicates(metric, quantized))


def judge(drawn, names: dict[str, Metric], margins: np.ndarray, resampler: Resampler) -> tuple:
    """Return the corrected verdicts and the judgements of one gate."""
    judge_ = IntervalJudge(SETTINGS, resampler, cases=len(names))
    exact = Exact(SETTINGS)
    judgements: list[Judgement] = []
    for metric, margin in zip(names.values(), margins, strict=True):
        fp32, quantized = drawn["ood" if metric.score else "id"]
        judgements.append(
            judge_(
                Evidence(
                    metric,
                    float(exact.replicates(metric, fp32)[0]),
                    float(exact.replicates(metric, quantized)[0]),
                    float(margin),
                    fp32,
                    quantized,
                )
            )
        )
    cases = [
        CaseResult(Cell("m", "q", "p").case(name), j.verdict, estimate=j.estimate)
        for name, j in zip(names, judgements, strict=True)
    ]
    return [case.verdict for case in finalise(cases, SETTINGS)], judgements


def draws(people: Population, samples: int, gates: int, *, equal: bool, seed: int = 0):
    for gate in range(gates):
        rng = np.random.default_rng([seed, samples, equal, gate])
        yield people.draw(samples, samples // 2, rng, equal=equal)


def false_alarms(
    kind: str,
    samples: int,
    gates: int,
    *,
    equal: bool,
    seed: int = 0,
    suite: bool | None = None,
) -> dict:
    """Return error rates per metric, in a dict of arrays, and `any_fail`, per gate."""
    people, names = population(kind, seed=seed), gate_metrics(suite)
    losses = np.array(
        [point_losses(d, names) for d in draws(people, samples, gates, equal=equal, seed=seed)]
    )
    whole = Sample(people.fp32, people.fp32), Sample(people.quantized, people.quantized)
    whole_ood = (
        Sample(people.fp32_ood, people.fp32),
        Sample(people.quantized_ood, people.quantized),
    )
    if equal:
        truth = population_truth = np.zeros(len(names))
    else:
        truth = losses.mean(axis=0)
        population_truth = point_losses({"id": whole, "ood": whole_ood}, names)
    resampler = Resampler(SETTINGS)
    passed, failed, covered, errors, any_fail = [], [], [], [], []
    for drawn in draws(people, samples, gates, equal=equal, seed=seed):
        verdicts, judgements = judge(drawn, names, truth, resampler)
        passed.append([v in (Verdict.PASS, Verdict.IMPROVED) for v in verdicts])
        failed.append([v is Verdict.FAIL for v in verdicts])
        covered.append(
            [j.estimate.low <= t <= j.estimate.high for j, t in zip(judgements, truth, strict=True)]
        )
        errors.append([j.estimate.standard_error for j in judgements])
        any_fail.append(any(failed[-1]))
    error = np.mean(errors, axis=0)
    return {
        "names": list(names),
        "truth": truth,
        "passed": np.mean(passed, axis=0),
        "failed": np.mean(failed, axis=0),
        "covered": np.mean(covered, axis=0),
        "off": (population_truth - truth) / error,
        "error": error,
        "any_fail": float(np.mean(any_fail)),
    }


def interval_coverage(kind: str, samples: int, gates: int, seed: int = 0) -> list[tuple]:
    """Return, per metric, the coverage of each kind of interval at the settings' level."""
    people, names = population(kind, seed=seed), gate_metrics()
    level = 1 - SETTINGS.alpha
    losses = np.array([point_losses(d, names) for d in draws(people, samples, gates, equal=False)])
    truth = losses.mean(axis=0)
    hits = np.zeros((len(names), 3))
    resampler = Resampler(SETTINGS)
    for row, drawn in zip(losses, draws(people, samples, gates, equal=False), strict=True):
        left_out = Jackknife(SETTINGS)
        for i, metric in enumerate(names.values()):
            replicates = _losses(resampler, metric, drawn)
            worth = resolution(metric, drawn["ood" if metric.score else "id"][1])
            error = standard_error(replicates, resolution=worth)
            intervals: tuple[Interval, ...] = (
                percentile_interval(replicates, level=level),
                bca_interval(row[i], replicates, _losses(left_out, metric, drawn), level=level),
                normal_interval(row[i], error, level=level),
            )
            hits[i] += [found.low <= truth[i] <= found.high for found in intervals]
    return [(name, *hits[i] / gates) for i, name in enumerate(names)]


def detection(
    kind: str,
    gates: int,
    *,
    seed: int = 0,
    pilot: int = 2000,
    pilots: int = 10,
    only: tuple[str, ...] = (),
) -> list[tuple]:
    """Return how often twice the margin fails at the number of samples that a pilot promises.

    Pilots differ in what they promise, so each of several gets its share of the gates; shown is the
    median promise. `only` narrows which metrics are tried; the correction still counts all of them.
    """
    people, names = population(kind, seed=seed), gate_metrics()
    tail = single_step(SETTINGS.tail, len(names), correction=SETTINGS.correction)
    truth = np.mean(
        [point_losses(d, names) for d in draws(people, 4000, 200, equal=False, seed=1)], axis=0
    )
    errors = []
    for drawn in draws(people, pilot, pilots, equal=False, seed=2):
        _, judgements = judge(drawn, names, truth / 2, Resampler(SETTINGS))
        errors.append([judgement.estimate.standard_error or 0.0 for judgement in judgements])
    rows = []
    for i, (name, metric) in enumerate(names.items()):
        if only and name not in only:
            continue
        promises = [
            samples_needed(pilot, error[i], truth[i] / 2, tail=tail, power=SETTINGS.power) or 10**9
            for error in errors
        ]
        median = int(np.median(promises))
        if truth[i] <= 0 or median > 20_000:
            reason = "improves" if truth[i] <= 0 else "out of reach"
            rows.append((name, truth[i], median, math.nan, reason))
            continue
        judge_ = IntervalJudge(SETTINGS, Resampler(SETTINGS), cases=len(names))
        exact, found = Exact(SETTINGS), 0
        each = gates // pilots
        for number, promised in enumerate(promises):
            size = max(promised, 100)  # two strata of at least 50 samples
            for drawn in draws(people, size, each, equal=False, seed=3 + number):
                fp32, quantized = drawn["ood" if metric.score else "id"]
                values = [float(exact.replicates(metric, s)[0]) for s in (fp32, quantized)]
                judged = judge_(Evidence(metric, *values, truth[i] / 2, fp32, quantized))
                found += judged.verdict is Verdict.FAIL
        rows.append((name, truth[i], median, found / (each * pilots), ""))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gates", type=int, default=2000)
    parser.add_argument("--samples", type=int, nargs="+", default=[500, 2000, 10_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--intervals", action="store_true")
    parser.add_argument("--detection", action="store_true")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.intervals:
        for kind in options.kinds:
            rows = interval_coverage(kind, options.samples[0], options.gates)
            print(f"coverage at 95 %, {kind}, {options.samples[0]} samples, {options.gates} gates")
            print(tabulate(rows, ("metric", "percentile", "BCa", "normal"), floatfmt=".3f"))
    elif options.detection:
        for kind in options.kinds:
            print(f"failures at twice the margin, {kind}, {options.gates} gates, 10 pilots")
            headers = ("metric", "true loss", "samples promised", "failed", "")
            print(tabulate(detection(kind, options.gates), headers, floatfmt=".3f"))
    else:
        for kind in options.kinds:
            for samples in options.samples:
                for equal in (False, True):
                    found = false_alarms(kind, samples, options.gates, equal=equal)
                    null = "equal" if equal else "margin"
                    print(
                        f"\n{kind}, {samples} samples, null `{null}`, {options.gates} gates: any "
                        f"false failure in {found['any_fail']:.2%} of gates"
                    )
                    wrong = found["passed"] + found["failed"]
                    columns = (
                        found["names"],
                        found["truth"],
                        found["error"],
                        *(found[key] * 100 for key in ("passed", "failed")),
                        wrong * 100,
                        found["covered"] * 100,
                        found["off"],
                    )
                    headers = (
                        "metric",
                        "true loss",
                        "error",
                        "false pass %",
                        "false fail %",
                        "wrong %",
                        "coverage %",
                        "off",
                    )
                    formats = ("", ".4f", ".4f", ".2f", ".2f", ".2f", ".1f", "+.2f")
                    rows = list(zip(*columns, strict=True))
                    print(tabulate(rows, headers, floatfmt=formats), flush=True)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
