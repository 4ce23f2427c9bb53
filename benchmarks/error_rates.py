"""How often verdicts are wrong, how often damage is found, how often intervals cover.

    python benchmarks/error_rates.py [--quick] [--kinds skew rare] [--samples 500 2000 10000]
    python benchmarks/error_rates.py --intervals --samples 500      # which interval, and why
    python benchmarks/error_rates.py --detection --gates 400        # is `clipq power` right

A gate is one draw from a simulated population (`simulated_pairs`), judged by the same code as a
real one on every resampled metric, corrected for their number. Null pairs are of two kinds:
`margin`, where the true loss is exactly the margin, and `equal`, where both models are equally good
and the margin is 0. A pass is then wrong, and so is a failure; only `inconclusive` is right.
Goals: at most 5 % wrong verdicts of each metric; with `--detection`, twice the margin fails in at
least 95 %. A small number of gates misses them by chance.

The truth is the expected loss at the probe's size: for accuracies, means and areas that is the
population's loss; calibration errors and FPR95 have a finite-sample bias that both sides share
only in part, and `off` says by how many standard errors the population's value lies elsewhere.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence

import numpy as np
from benchmark import Goals, Script
from embedded import corrected, evidence
from embedded import judge as gate_judge
from simulated_pairs import KINDS, Population, population
from tabulate import tabulate

from clipq.evaluation.resampling import Resampler, Tables, resolution
from clipq.gating.verdict import Judgement
from clipq.metrics import Metric, metrics
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
from clipq.verdicts import Verdict

SETTINGS = StatisticsSettings()
CHURN = ("flip-rate", "negative-flips", "kl-to-fp32", "top2-gap-shrinkage", "embedding-distance")
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


def point_losses(drawn: dict[str, tuple[Tables, Tables]], names: dict[str, Metric]) -> np.ndarray:
    exact = Exact(SETTINGS)
    return np.array([_losses(exact, metric, drawn)[0] for metric in names.values()])


def _losses(resampler: Resampler, metric: Metric, drawn) -> np.ndarray:
    fp32, quantized = drawn["ood" if metric.score else "id"]
    return metric.loss(resampler.replicates(metric, fp32), resampler.replicates(metric, quantized))


def judge(drawn, names: dict[str, Metric], margins: np.ndarray, resampler: Resampler) -> tuple:
    """Return the corrected verdicts and the judgements of one gate."""
    judging = gate_judge(SETTINGS, resampler, cases=len(names))
    exact = Exact(SETTINGS)
    judgements: dict[str, Judgement] = {}
    for (name, metric), margin in zip(names.items(), margins, strict=True):
        pair = drawn["ood" if metric.score else "id"]
        values = [float(exact.replicates(metric, tables)[0]) for tables in pair]
        judgements[name] = judging(evidence(metric, values, float(margin), pair))
    return corrected(judgements, SETTINGS), list(judgements.values())


def sized(kind: str, size: int, seed: int) -> Population:
    """Return a population of so many in-distribution samples."""
    return population(kind, seed=seed, samples=size, samples_ood=size // 2)


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
    size: int = 200_000,
) -> dict:
    """Return error rates per metric, in a dict of arrays, and `any_fail`, per gate."""
    people, names = sized(kind, size, seed), gate_metrics(suite)
    losses = np.array(
        [point_losses(d, names) for d in draws(people, samples, gates, equal=equal, seed=seed)]
    )
    whole = Tables(people.fp32, people.fp32), Tables(people.quantized, people.quantized)
    whole_ood = (
        Tables(people.fp32_ood, people.fp32),
        Tables(people.quantized_ood, people.quantized),
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
        estimates = [judged.estimate for judged in judgements]
        covered.append([e.low <= t <= e.high for e, t in zip(estimates, truth, strict=True)])
        errors.append([found.standard_error for found in estimates])
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


def interval_coverage(
    kind: str, samples: int, gates: int, seed: int = 0, size: int = 200_000
) -> list[tuple]:
    """Return, per metric, the coverage of each kind of interval at the settings' level."""
    people, names = sized(kind, size, seed), gate_metrics()
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
    only: Sequence[str] = (),
    size: int = 200_000,
    truths: int = 200,
) -> list[tuple]:
    """Return how often twice the margin fails at the number of samples that a pilot promises.

    Pilots differ in what they promise, so each of several gets its share of the gates; shown is the
    median promise. `only` narrows which metrics are tried; the correction still counts all of them.
    The true loss is the mean of `truths` draws.
    """
    people, names = sized(kind, size, seed), gate_metrics()
    tail = single_step(SETTINGS.tail, len(names), correction=SETTINGS.correction)
    truth = np.mean(
        [point_losses(d, names) for d in draws(people, 4000, truths, equal=False, seed=1)], axis=0
    )
    errors = []
    for drawn in draws(people, pilot, pilots, equal=False, seed=2):
        _, judgements = judge(drawn, names, truth / 2, Resampler(SETTINGS))
        errors.append([judged.estimate.standard_error or 0.0 for judged in judgements])
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
        judging = gate_judge(SETTINGS, Resampler(SETTINGS), cases=len(names))
        exact, found = Exact(SETTINGS), 0
        each = gates // pilots
        for number, promised in enumerate(promises):
            enough = max(promised, 100)  # two strata of at least 50 samples
            for drawn in draws(people, enough, each, equal=False, seed=3 + number):
                pair = drawn["ood" if metric.score else "id"]
                values = [float(exact.replicates(metric, tables)[0]) for tables in pair]
                judged = judging(evidence(metric, values, truth[i] / 2, pair))
                found += judged.verdict is Verdict.FAIL
        rows.append((name, truth[i], median, found / (each * pilots), ""))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about nine hours (--gates 100: half an hour)")
    script.size("--gates", full=2000, quick=4, help="simulated gates of each setting")
    script.size("--samples", full=(500, 2000, 10_000), quick=(200,), help="in-distribution")
    script.size("--kinds", full=KINDS, quick=KINDS[1:2], choices=KINDS, help="of population")
    script.size("--population", full=200_000, quick=4000, help="samples to draw gates from")
    script.size("--pilots", full=10, quick=2, help="with --detection: how many promise")
    script.size("--truths", full=200, quick=4, help="with --detection: draws for the true loss")
    script.size(
        "--metrics", full=("*",), quick=("top1", "nll"), help="with --detection; * for every one"
    )
    script.add_argument("--intervals", action="store_true", help="coverage of three intervals")
    script.add_argument("--detection", action="store_true", help="failures at twice the margin")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    started = time.perf_counter()
    if options.intervals:
        print_intervals(options)
    elif options.detection:
        print_detection(options, goals)
    else:
        print_false_alarms(options, goals)
    print(f"{time.perf_counter() - started:.0f} s")
    return goals.code


def print_intervals(options) -> None:
    samples = options.samples[0]
    for kind in options.kinds:
        rows = interval_coverage(kind, samples, options.gates, size=options.population)
        print(f"coverage at 95 %, {kind}, {samples} samples, {options.gates} gates")
        print(tabulate(rows, ("metric", "percentile", "BCa", "normal"), floatfmt=".3f"))


def print_detection(options, goals: Goals) -> None:
    for kind in options.kinds:
        rows = detection(
            kind,
            options.gates,
            pilots=options.pilots,
            only=() if "*" in options.metrics else options.metrics,
            size=options.population,
            truths=options.truths,
        )
        print(f"failures at twice the margin, {kind}, {options.gates} gates, ", end="")
        print(f"{options.pilots} pilots")
        headers = ("metric", "true loss", "samples promised", "failed", "")
        print(tabulate(rows, headers, floatfmt=".3f"))
        goals.measured(all(rate >= SETTINGS.power for *_, rate, reason in rows if not reason))


def print_false_alarms(options, goals: Goals) -> None:
    for kind in options.kinds:
        for samples in options.samples:
            for equal in (False, True):
                found = false_alarms(
                    kind, samples, options.gates, equal=equal, size=options.population
                )
                null = "equal" if equal else "margin"
                print(
                    f"\n{kind}, {samples} samples, null `{null}`, {options.gates} gates: any "
                    f"false failure in {found['any_fail']:.2%} of gates"
                )
                wrong = found["passed"] + found["failed"]
                columns = {
                    "metric": found["names"],
                    "true loss": found["truth"],
                    "error": found["error"],
                    "false pass %": found["passed"] * 100,
                    "false fail %": found["failed"] * 100,
                    "wrong %": wrong * 100,
                    "coverage %": found["covered"] * 100,
                    "off": found["off"],
                }
                formats = ("", ".4f", ".4f", ".2f", ".2f", ".2f", ".1f", "+.2f")
                rows = list(zip(*columns.values(), strict=True))
                print(tabulate(rows, list(columns), floatfmt=formats), flush=True)
                goals.measured(bool((wrong <= SETTINGS.alpha).all()))


if __name__ == "__main__":
    sys.exit(main())
