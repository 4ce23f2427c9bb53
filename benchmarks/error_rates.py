"""How often verdicts are wrong, how often damage is found, how often intervals cover.

    python benchmarks/error_rates.py [--quick] [--kinds skew rare] [--samples 500 2000 10000]
    python benchmarks/error_rates.py --intervals --samples 500      # which interval, and why
    python benchmarks/error_rates.py --detection --gates 400        # is `clipq power` right
    python benchmarks/error_rates.py --hard                         # clusters, skew, few in a group

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from benchmark import Goals, Script
from embedded import corrected, evidence
from embedded import judge as gate_judge
from simulated_pairs import KINDS, Population, wide_population
from tabulate import tabulate

from clipq.errors import StatisticsError
from clipq.estimate import Estimate
from clipq.evaluation.resampling import Resampler, Tables
from clipq.evaluation.resolution import resolution
from clipq.gating.verdict import Judgement
from clipq.metrics import Metric, metrics
from clipq.settings import StatisticsSettings
from clipq.stats import (
    Interval,
    SamplingError,
    bca_interval,
    jackknife_weights,
    percentile_interval,
    samples_needed,
    single_step,
)
from clipq.verdicts import Verdict

# Passes and failures only: whether a case is suspect is another question.
SETTINGS = StatisticsSettings(suspicion=StatisticsSettings().tail)
# An accuracy from a band of ranks is a share, as top-1 is.
ALIKE = ("top1-low", "top1-mid", "top1-high")
# The MCM and energy scores behave as the max-logit score does: one of the three is simulated.
SCORES = ("max-logit", "entropy")
MEANS = ("nll", "brier", "kl-to-fp32", "top2-gap-shrinkage", "embedding-distance", "t2i-recall-1")
CHURN = (
    "flip-rate",
    "negative-flips",
    "kl-to-fp32",
    "top2-gap-shrinkage",
    "embedding-distance",
    "lost-captions",
)
OF_GROUPS = ("worst-group-top1", "group-top1-range", "group-top1-std", "group-ece-range")
OF_CLUSTERS = ("top1", "flip-rate", "nll", "kl-to-fp32", "brier", "confidence-gap", "ece", "aurc")
UNEVEN = ((500, 500, 500, 500, 5), (500, 500, 500, 500, 50), (200, 200, 200, 200, 200))
CLUSTERS = (10, 30, 100)
MEMBERS = 20
NULLS = ("margin", "equal")
_PAIR = dict[str, tuple[Tables, Tables]]


def gate_metrics(only: Sequence[str] = (), *, churn: bool = True) -> dict[str, Metric]:
    """Return every resampled metric of a gate.

    Args:
        only: names; empty for all.
        churn: whether metrics that compare with FP32 take part: in an `equal` pair neither is it.
    """
    found = {}
    for name in metrics.names():
        metric = metrics.get(name)
        kind = metric.statistic.kind if metric.statistic else "point"
        if kind == "point" or name in ALIKE or (name in CHURN and not churn):
            continue
        if metric.score and not name.endswith(SCORES):
            continue
        if not only or name in only:
            found[name] = metric
    return found


class Exact(Resampler):
    """One replicate in which every sample counts once: the point values, fast."""

    def _drawn(self, table, stream, piece):
        return np.ones((1, len(table)), np.uint8)


class Jackknife(Resampler):
    """Replicates that leave out one of 80 groups of either kind of sample."""

    def _drawn(self, table, stream, piece):
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
    """Return the corrected verdicts and the judgements of one gate; an error where refused."""
    judging = gate_judge(SETTINGS, resampler)
    exact = Exact(SETTINGS)
    judgements: dict[str, Judgement] = {}
    for (name, metric), margin in zip(names.items(), margins, strict=True):
        pair = drawn["ood" if metric.score else "id"]
        values = [float(exact.replicates(metric, tables)[0]) for tables in pair]
        try:
            judgements[name] = judging(evidence(metric, values, float(margin), pair))
        except StatisticsError as refusal:
            judgements[name] = Judgement(Verdict.ERROR, str(refusal))
    return corrected(judgements, SETTINGS), list(judgements.values())


def sized(kind: str, size: int, seed: int) -> Population:
    """Return a population of so many in-distribution samples."""
    return wide_population(kind, seed=seed, samples=size, samples_ood=size // 2)


@dataclass(frozen=True)
class Design:
    """How gates are drawn from a population, of which metrics.

    `draw` takes the population, a generator and whether both models are equal.
    """

    title: str
    draw: Callable[[Population, np.random.Generator, bool], _PAIR]
    only: Sequence[str] = ()


def samples_of(size: int, only: Sequence[str] = ()) -> Design:
    """Return the design of so many in-distribution and half as many other samples."""
    return Design(
        f"{size} samples",
        lambda people, rng, equal: people.draw(size, size // 2, rng, equal=equal),
        only,
    )


def clusters_of(count: int) -> Design:
    """Return the design of so many clusters whose members err together."""
    return Design(
        f"{count} clusters of {MEMBERS}",
        lambda people, rng, equal: people.draw_clusters(count, MEMBERS, rng, equal=equal),
        OF_CLUSTERS,
    )


def groups_of(sizes: Sequence[int]) -> Design:
    """Return the design of groups of such sizes."""
    return Design(
        f"groups of {', '.join(map(str, sizes))}",
        lambda people, rng, equal: people.draw_groups(sizes, rng, equal=equal),
        OF_GROUPS,
    )


def draws(people: Population, design: Design, gates: int, *, equal: bool, seed: int = 0):
    for gate in range(gates):
        yield design.draw(people, np.random.default_rng([seed, equal, gate]), equal)


def false_alarms(
    people: Population, design: Design, gates: int, *, equal: bool, seed: int = 0
) -> dict:
    """Return error rates per metric, in a dict of arrays, and `any_fail`, per gate."""
    names = gate_metrics(design.only, churn=not equal)
    if equal:
        truth = population_truth = np.zeros(len(names))
    else:
        drawn_losses = [
            point_losses(drawn, names)
            for drawn in draws(people, design, gates, equal=equal, seed=seed)
        ]
        truth = np.mean(drawn_losses, axis=0)
        whole = Tables(people.fp32, people.fp32), Tables(people.quantized, people.quantized)
        whole_ood = (
            Tables(people.fp32_ood, people.fp32),
            Tables(people.quantized_ood, people.quantized),
        )
        population_truth = point_losses({"id": whole, "ood": whole_ood}, names)
    resampler = Resampler(SETTINGS)
    passed, failed, covered, errors, refused = [], [], [], [], []
    for drawn in draws(people, design, gates, equal=equal, seed=seed):
        verdicts, judgements = judge(drawn, names, truth, resampler)
        passed.append([v in (Verdict.PASS, Verdict.IMPROVED) for v in verdicts])
        failed.append([v is Verdict.FAIL for v in verdicts])
        refused.append([v is Verdict.ERROR for v in verdicts])
        estimates = [judged.estimate for judged in judgements]
        covered.append([_covers(e, t) for e, t in zip(estimates, truth, strict=True)])
        errors.append([found.standard_error or math.nan for found in estimates])
    error = np.mean(errors, axis=0)
    return {
        "names": list(names),
        "truth": truth,
        "passed": np.mean(passed, axis=0),
        "failed": np.mean(failed, axis=0),
        "refused": np.mean(refused, axis=0),
        "covered": np.mean(covered, axis=0),
        "off": (population_truth - truth) / error,
        "error": error,
        "any_fail": float(np.mean(np.any(failed, axis=1))),
    }


def _covers(estimate: Estimate, truth: float) -> bool:
    return estimate.interval is not None and estimate.interval[0] <= truth <= estimate.interval[1]


def interval_coverage(
    kind: str, samples: int, gates: int, seed: int = 0, size: int = 200_000
) -> list[tuple]:
    """Return, per metric, the coverage of each kind of interval at the settings' level."""
    people, names, design = sized(kind, size, seed), gate_metrics(), samples_of(samples)
    level = 1 - SETTINGS.alpha
    losses = np.array([point_losses(d, names) for d in draws(people, design, gates, equal=False)])
    truth = losses.mean(axis=0)
    hits = np.zeros((len(names), 3))
    resampler = Resampler(SETTINGS)
    for row, drawn in zip(losses, draws(people, design, gates, equal=False), strict=True):
        left_out = Jackknife(SETTINGS)
        for i, metric in enumerate(names.values()):
            replicates = _losses(resampler, metric, drawn)
            worth = resolution(metric, drawn["ood" if metric.score else "id"][1])
            error = SamplingError(float(replicates.std())).widened(worth)
            intervals: tuple[Interval, ...] = (
                percentile_interval(replicates, level=level),
                bca_interval(row[i], replicates, _losses(left_out, metric, drawn), level=level),
                error.interval(row[i], level=level),
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
        [
            point_losses(drawn, names)
            for drawn in draws(people, samples_of(4000), truths, equal=False, seed=1)
        ],
        axis=0,
    )
    errors = []
    for drawn in draws(people, samples_of(pilot), pilots, equal=False, seed=2):
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
        judging = gate_judge(SETTINGS, Resampler(SETTINGS))
        exact, found = Exact(SETTINGS), 0
        each = gates // pilots
        for number, promised in enumerate(promises):
            enough = max(promised, 100)  # two strata of at least 50 samples
            for drawn in draws(people, samples_of(enough), each, equal=False, seed=3 + number):
                pair = drawn["ood" if metric.score else "id"]
                values = [float(exact.replicates(metric, tables)[0]) for tables in pair]
                judged = judging(evidence(metric, values, truth[i] / 2, pair))
                found += (judged.estimate.p_value or 0.0) <= tail
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
    script.add_argument("--hard", action="store_true", help="clusters, skewed means, uneven groups")
    script.size("--nulls", full=NULLS, quick=NULLS, choices=NULLS, help="kinds of null pairs")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    started = time.perf_counter()
    if options.intervals:
        print_intervals(options)
    elif options.detection:
        print_detection(options, goals)
    else:
        designs = hard_designs() if options.hard else [samples_of(n) for n in options.samples]
        print_false_alarms(options, designs, goals)
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


def hard_designs() -> list[Design]:
    """Return the designs in which intervals are most easily wrong."""
    return [
        *(clusters_of(count) for count in CLUSTERS),
        *(samples_of(size, MEANS) for size in (100, 250, 500)),
        *(groups_of(sizes) for sizes in UNEVEN),
    ]


def print_false_alarms(options, designs: Sequence[Design], goals: Goals) -> None:
    for kind in options.kinds:
        people = sized(kind, options.population, 0)
        for design in designs:
            for null in options.nulls:
                found = false_alarms(people, design, options.gates, equal=null == "equal")
                print(
                    f"\n{kind}, {design.title}, null `{null}`, {options.gates} gates: any "
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
                    "refused %": found["refused"] * 100,
                    "coverage %": found["covered"] * 100,
                    "off": found["off"],
                }
                formats = ("", ".4f", ".4f", ".2f", ".2f", ".2f", ".0f", ".1f", "+.2f")
                rows = list(zip(*columns.values(), strict=True))
                print(tabulate(rows, list(columns), floatfmt=formats), flush=True)
                goals.measured(bool((wrong <= SETTINGS.alpha).all()))


if __name__ == "__main__":
    sys.exit(main())
