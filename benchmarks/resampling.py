"""What paired resampling costs: at ImageNet size against looping libraries, and per case.

    python benchmarks/resampling.py

1. 1,000 paired replicates of every resampled gate metric (four scores against one OOD probe) on
   50,000 in-distribution and 10,000 out-of-distribution samples, weights included, on two threads.
   Goals: at most 3 s, under 1 GiB of additional memory.
2. The same statistics by calling netcal, scikit-learn and torch-uncertainty on resampled rows,
   timed over a few replicates side by side and scaled to 1,000. Goal: at least 50 times slower.
3. The judge on this repository's own probes (2,048 and 768 samples) with its own settings, per
   case of one model's matrix, one thread, FP32's replicates included. Goal: at most 2 ms.

The limit for (1): 60,000 samples x 1,000 replicates x 2 tables = 1.2e8 weights per score; each is
gathered (1 byte), summed up (4 bytes) and read again, about 20 bytes of cache traffic: 4 scores
move 10 GB, 0.5 s on two threads at 10 GB/s each. Drawing the weights adds 6e7 bounded integers and
as many increments.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import torch
from netcal.metrics import ACE, ECE, MCE
from simulated_pairs import population
from sklearn.metrics import average_precision_score, roc_auc_score
from torch_uncertainty.metrics import FPR95

from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import plan
from clipq.evaluation.resampling import Resampler
from clipq.gating.baseline import load_baseline
from clipq.gating.interval import IntervalJudge
from clipq.gating.margins import load_margins
from clipq.gating.verdict import Evidence, Sample
from clipq.metrics import metrics
from clipq.settings import StatisticsSettings, load_settings

REPLICATES, LOOPED = 1000, 5
SCORES = ("mcm", "max_logit", "energy", "neg_entropy")


def main() -> None:
    warnings.filterwarnings("ignore", "Metric `FPR95` will save")
    people = population("skew", seed=0, samples=50_000, samples_ood=10_000)
    drawn = people.draw(50_000, 10_000, np.random.default_rng(0))
    times = [engine(drawn) for _ in range(3)]
    tracemalloc.start()
    engine(drawn)
    peak = tracemalloc.get_traced_memory()[1] / 2**30
    tracemalloc.stop()
    ours = statistics.median(times)
    looped = loop(drawn) / LOOPED * REPLICATES
    print(
        f"{REPLICATES} paired replicates, 50,000 + 10,000 samples: {ours:.2f} s (of 3: "
        f"{min(times):.2f} to {max(times):.2f}; goal 3), {peak:.2f} GiB allocated at most (goal 1)"
    )
    print(f"looping the libraries: {looped:.0f} s, {looped / ours:.0f} times as long (goal 50)")
    cases, seconds = embedded()
    print(
        f"embedded probes, {StatisticsSettings().replicates} replicates: "
        f"{seconds / cases * 1e3:.2f} ms per case over {cases} cases of one model (goal 2)"
    )


def engine(drawn) -> float:
    """Return the seconds of one paired resampling of everything."""
    started = time.perf_counter()
    resampler = Resampler(StatisticsSettings(replicates=REPLICATES), threads=2)
    count = 0
    for name in metrics.names():
        metric = metrics.get(name)
        if metric.statistic is None or metric.statistic.kind == "point":
            continue
        fp32, quantized = drawn["ood" if metric.score else "id"]
        metric.loss(resampler.replicates(metric, fp32), resampler.replicates(metric, quantized))
        count += 1
    return time.perf_counter() - started


def loop(drawn) -> float:
    """Return the seconds of `LOOPED` paired replicates, one library call per metric."""
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    for _ in range(LOOPED):
        rows, others = rng.integers(0, 50_000, 50_000), rng.integers(0, 10_000, 10_000)
        for ood in drawn["ood"]:
            known, unknown = ood.in_distribution.columns, ood.predictions.columns
            correct = known["correct"][rows]
            for column in ("confidence", "ts_confidence"):
                values = known[column][rows]
                ECE(bins=15).measure(values, correct)
                if column == "confidence":
                    ACE(bins=15).measure(values, correct)
                    MCE(bins=15).measure(values, correct)
            for column in ("correct", "nll", "brier", "confidence", "kl", "margin_loss"):
                known[column][rows].mean()
            target = np.repeat([1, 0], [len(rows), len(others)])
            for score in SCORES:
                values = np.concatenate([known[score][rows], unknown[score][others]])
                roc_auc_score(target, values)
                average_precision_score(target, values)
                metric = FPR95(pos_label=1)
                metric.update(torch.from_numpy(values), torch.from_numpy(target))
                metric.compute()
    return time.perf_counter() - started


def embedded() -> tuple[int, float]:
    """Return how many cases of one model were judged, and the seconds of judging."""
    settings = load_settings(Path(__file__).parents[1] / "clipq.toml")
    model, reference = settings.models[0].name, settings.in_distribution.name
    evaluator, margins = Evaluator(settings), load_margins(settings.margins)
    baseline = load_baseline(settings.baselines, model)
    prepared = []
    for case in plan(settings):
        if case.model != model or baseline is None:
            continue
        metric = metrics.get(case.metric)
        stored = baseline.values[f"{case.probe}.{case.metric}"].value
        found = evaluator.evaluate(model, case.quantizer, case.probe).predictions
        known = evaluator.evaluate(model, case.quantizer, reference).predictions
        prepared.append(
            Evidence(
                metric,
                stored,
                metric.compute(found, known),
                margins.margin(case),
                Sample(baseline.predictions[case.probe], baseline.predictions[reference]),
                Sample(found, known),
            )
        )
    judge = IntervalJudge(settings.statistics, Resampler(settings.statistics), cases=len(prepared))
    started = time.perf_counter()
    for evidence in prepared:
        judge(evidence)
    return len(prepared), time.perf_counter() - started


if __name__ == "__main__":
    main()
