"""What paired resampling costs: at ImageNet size against looping libraries, and per case.

    python benchmarks/resampling_time.py [--quick]

1. 1,000 paired replicates of every resampled metric (six scores against one OOD probe) on 50,000
   in-distribution and 10,000 out-of-distribution samples, weights included, on two threads.
   Goals: at most 3 s for means, calibration errors and detection; under 1 GiB of memory for all.
2. The same statistics by calling the metrics' own functions (netcal, scikit-learn and the rest) on
   resampled rows, timed over a few replicates side by side and scaled up. Goal: at least 50 times
   slower.
3. The judge on this repository's own probes (2,048 and 768 samples) with its own settings, per
   case of one model's matrix, one thread, FP32's replicates included. Goal: at most 2 ms.

The limit for detection: 60,000 samples x 1,000 replicates x 2 tables = 1.2e8 weights per score;
each is gathered (1 byte), summed up (4 bytes) and read again, about 20 bytes of cache traffic: six
scores, ranked from either end, move 29 GB, 1.5 s on two threads at 10 GB/s each. Drawing the
weights adds 6e7 bounded integers and as many increments. Selective risks need each replicate's
samples in order of confidence: 1e8 of them, sorted once, written out one by one.
"""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from benchmark import Goals, Script
from embedded import embedded_settings, judge, kept_predictions, prepared_cases
from simulated_pairs import wide_population
from tabulate import tabulate

from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.resampling import Resampler, Tables
from clipq.metrics import Metric, metrics
from clipq.settings import Settings, StatisticsSettings

GOAL_SECONDS, GOAL_RATIO, GOAL_GIBIBYTES, GOAL_CASE_MILLISECONDS = 3.0, 50.0, 1.0, 2.0
JUDGED = ("means", "binned errors", "detection")
"""The families that the goal of time is stated for."""
_FAMILIES = {
    "means": ("share", "mean", "mean-gap", "skewness"),
    "binned errors": ("ece", "ace", "mce"),
    "detection": ("auroc", "aupr", "aupr-out", "fpr95"),
    "smooth error": ("smooth-ece",),
    "selective risks": ("aurc", "augrc", "coverage"),
}
_PAIRS = Mapping[str, tuple[Tables, Tables]]


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about ten minutes on 2 cores")
    script.size("--samples", full=50_000, quick=400, help="in-distribution samples")
    script.size("--samples-ood", full=10_000, quick=200, help="out-of-distribution samples")
    script.size("--replicates", full=1000, quick=20, help="paired replicates")
    script.size("--looped", full=5, quick=1, help="replicates by looping")
    script.size("--rounds", full=3, quick=1, help="of the engine; medians are shown")
    few = ("id", "calibration", "digits")
    script.size("--quantizers", full=("*",), quick=("rtn:w8",), help="of the cases; * for all")
    script.size("--probes", full=("*",), quick=few, help="of the cases; * for all")
    script.add_argument("--cache", type=Path, help="where the cases' predictions are kept")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    at_size(options, goals)
    with kept_predictions(options.cache, apart=options.quick) as cache:
        settings = embedded_settings(
            models=1,
            quantizers=() if "*" in options.quantizers else options.quantizers,
            probes=() if "*" in options.probes else options.probes,
            cache=cache,
        )
        per_case(settings, goals)
    return goals.code


def at_size(options, goals: Goals) -> None:
    """Print what the engine and looping cost on simulated samples."""
    sizes = options.samples, options.samples_ood
    people = wide_population("skew", seed=0, samples=sizes[0], samples_ood=sizes[1])
    drawn = people.draw(*sizes, np.random.default_rng(0))
    rounds = [engine(drawn, options.replicates) for _ in range(options.rounds)]
    tracemalloc.start()
    engine(drawn, options.replicates)
    peak = tracemalloc.get_traced_memory()[1] / 2**30
    tracemalloc.stop()
    looped = loop(drawn, options.looped)
    rows = []
    for family, members in families().items():
        ours = statistics.median(found[family] for found in rounds)
        theirs = looped[family] / options.looped * options.replicates
        rows.append((family, len(members), f"{ours:.2f}", f"{theirs:.0f}", f"{theirs / ours:.0f}"))
    print(tabulate(rows, ("family", "metrics", "s", "looped, s", "ratio"), disable_numparse=True))
    of_judged = [sum(found[family] for family in JUDGED) for found in rounds]
    middle, everything = statistics.median(of_judged), [sum(found.values()) for found in rounds]
    whole = statistics.median(everything)
    ratio = sum(looped.values()) / options.looped * options.replicates / whole
    print(
        f"{options.replicates:,} paired replicates, {sizes[0]:,} + {sizes[1]:,} samples: "
        f"{', '.join(JUDGED)} {middle:.2f} s (of {options.rounds}: {min(of_judged):.2f} to "
        f"{max(of_judged):.2f}; goal {GOAL_SECONDS:g}); every metric {whole:.2f} s "
        f"({min(everything):.2f} to {max(everything):.2f})"
    )
    print(f"memory: {peak:.2f} GiB allocated at most (goal {GOAL_GIBIBYTES:g})")
    print(f"looping the metrics' functions: {ratio:.0f} times as long (goal {GOAL_RATIO:g})")
    goals.measured(middle <= GOAL_SECONDS)
    goals.measured(peak < GOAL_GIBIBYTES)
    goals.measured(ratio >= GOAL_RATIO)


def families() -> dict[str, list[Metric]]:
    """Return the resampled metrics by what they share; the first family also draws the weights."""
    found: dict[str, list[Metric]] = {family: [] for family in _FAMILIES}
    for metric in map(metrics.get, metrics.names()):
        if metric.statistic is None or metric.statistic.kind == "point":
            continue
        kind = metric.statistic.kind
        family = next((name for name, kinds in _FAMILIES.items() if kind in kinds), "groups")
        found.setdefault(family, []).append(metric)
    return found


def engine(drawn: _PAIRS, replicates: int) -> dict[str, float]:
    """Return the seconds of one paired resampling, by family."""
    resampler = Resampler(StatisticsSettings(replicates=replicates), threads=2)
    seconds = {}
    for family, members in families().items():
        started = time.perf_counter()
        for metric in members:
            fp32, quantized = drawn["ood" if metric.score else "id"]
            metric.loss(resampler.replicates(metric, fp32), resampler.replicates(metric, quantized))
        seconds[family] = time.perf_counter() - started
    return seconds


def loop(drawn: _PAIRS, replicates: int) -> dict[str, float]:
    """Return the seconds of paired replicates by calling each metric's function, by family."""
    rng = np.random.default_rng(0)
    seconds = dict.fromkeys(families(), 0.0)
    few = [
        table.drawn(np.arange(100))
        for table in (drawn["ood"][0].predictions, drawn["id"][0].predictions)
    ]
    for metric in (member for members in families().values() for member in members):
        metric.compute(few[0 if metric.score else 1], few[1])  # imports its library
    for _ in range(replicates):
        for tables in drawn["ood"]:
            known, other = tables.in_distribution, tables.predictions
            rows, others = (
                table.drawn(rng.integers(0, len(table), len(table))) for table in (known, other)
            )
            for family, members in families().items():
                started = time.perf_counter()
                for metric in members:
                    metric.compute(others if metric.score else rows, rows)
                seconds[family] += time.perf_counter() - started
    return seconds


def per_case(settings: Settings, goals: Goals) -> None:
    """Print what judging a case of the embedded matrix costs."""
    prepared = list(prepared_cases(settings, Evaluator(settings)))
    judging = judge(settings.statistics, Resampler(settings.statistics))
    started = time.perf_counter()
    for case in prepared:
        judging(case)
    milliseconds = 1e3 * (time.perf_counter() - started) / len(prepared)
    print(
        f"embedded probes, {settings.statistics.replicates} replicates: {milliseconds:.2f} ms per "
        f"case over {len(prepared)} cases of one model (goal {GOAL_CASE_MILLISECONDS:g})"
    )
    goals.measured(milliseconds <= GOAL_CASE_MILLISECONDS)


if __name__ == "__main__":
    sys.exit(main())
