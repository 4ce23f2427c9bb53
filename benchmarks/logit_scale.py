"""What a tuned logit scale does to calibration on the embedded models, and what it costs.

    python benchmarks/logit_scale.py [--quick] [--models 4] [--cache FOLDER]

1. Scale, bias, ECE, NLL, temperature-scaled ECE and confidence gap on `id`, before and after, of
   FP32 and of 4-bit weights in both towers and in either. Goal: top-1 and temperature-scaled ECE
   are those of the candidate without it.
2. The same of FP32 with batches of other sizes, beside the scale at which the NLL of `id` itself is
   least, which no proxy knows.
3. Seconds to evaluate a tuned candidate whose base and pairs are in the cache. Goal: at most 2 s.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from benchmark import Goals, Script
from embedded import embedded_settings, kept_predictions
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from tabulate import tabulate

from clipq.cases import TUNED, Candidate
from clipq.evaluation import scale_fit
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.predict import cosine_logits
from clipq.metrics import Predictions, metrics
from clipq.metrics.classify import classification_columns

GOAL_SECONDS = 2.0
_QUANTIZERS = ("fp32", "rtn:w4a8", "rtn:w4a8@vision", "rtn:w4a8@text")
_SHOWN = {"ece": 4, "nll": 3, "ts-ece": 4, "confidence-gap": 3}


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="five minutes on 2 cores")
    script.size("--models", full=4, quick=1, help="embedded models, the first ones")
    script.size("--quantizers", full=_QUANTIZERS, quick=("fp32",), help="with and without it")
    script.size("--batches", full=(16, 32, 64, 128, 256, 1000), quick=(64,), help="of pairs")
    script.size("--samples", full=0, quick=128, help="of each probe, 0 for all")
    script.add_argument("--cache", type=Path, help="folder of what was encoded before")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    probes = ["id", "calibration"]
    if not options.quick:  # there the calibration split has to do: pairs are rendered first
        probes.append("proxy")
    with kept_predictions(options.cache, apart=options.quick) as cache:
        settings = embedded_settings(
            models=options.models, probes=probes, samples=options.samples, cache=cache
        )
        return _measured(Evaluator(settings), options.quantizers, options.batches, goals)


def _measured(
    evaluator: Evaluator, quantizers: Sequence[str], batches: Sequence[int], goals: Goals
) -> int:
    """Print both tables and the time; return the exit code."""
    rows, seconds = [], []
    for model in evaluator.settings.models:
        for quantizer in quantizers:
            base, tuned = (Candidate(model.name, f"{quantizer}{end}") for end in ("", TUNED))
            before = _values(evaluator, base)
            evaluator.encodings.tuning(tuned)
            start = time.perf_counter()
            after = _values(evaluator, tuned)
            seconds.append(time.perf_counter() - start)
            same = all(abs(after[name] - before[name]) < 1e-4 for name in ("top1", "ts-ece"))
            tuning = evaluator.encodings.tuning(tuned)
            rows.append(
                (
                    *(model.name, quantizer),
                    f"{tuning.scale_before:.1f} -> {tuning.scale:.1f}",
                    f"{tuning.bias_before:.1f} -> {tuning.bias:.1f}" if tuning.bias else "-",
                    *(f"{before[n]:.{d}f} -> {after[n]:.{d}f}" for n, d in _SHOWN.items()),
                    "yes" if goals.exact(same) else "no",
                )
            )
    kept = "top-1, ts-ECE kept"
    print(tabulate(rows, ("model", "quantizer", "scale", "bias", *_SHOWN, kept)))
    slowest = max(seconds)
    met = "met" if goals.measured(slowest <= GOAL_SECONDS) else "missed"
    print(f"\na tuned candidate beside its base: {slowest:.2f} s at most (goal 2 s, {met})\n")
    sizes = [f"{size} pairs" for size in batches]
    table = list(_batches(evaluator, batches))
    print(tabulate(table, ("model", "own scale, ECE", *sizes, "least NLL")))
    return goals.code


def _values(evaluator: Evaluator, candidate: Candidate) -> dict[str, float]:
    found = evaluator.evaluate(candidate.on("id")).predictions
    return {name: metrics.get(name).compute(found, found) for name in (*_SHOWN, "top1")}


def _batches(evaluator: Evaluator, sizes: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Yield, for each model in FP32, the scale and the ECE of `id` by the batch of the fit."""
    usual = scale_fit.BATCH
    for model in evaluator.settings.models:
        fp32 = Candidate(model.name, "fp32")
        cosine, _ = cosine_logits(
            evaluator.encodings.features(fp32.on("id")), evaluator.encodings.head(fp32)
        )
        labels = evaluator.inputs.known.labels
        shown = []
        try:
            for size in sizes:
                scale_fit.BATCH = size
                shown.append(_shown(cosine, labels, evaluator.encodings.fitted(fp32).scale))
        finally:
            scale_fit.BATCH = usual
        own = _shown(cosine, labels, evaluator.encodings.head(fp32).logit_scale)

        def loss(scale: float, cosine: np.ndarray = cosine, labels: np.ndarray = labels) -> float:
            return -float(
                log_softmax(scale * cosine, axis=1)[np.arange(len(labels)), labels].mean()
            )

        best = minimize_scalar(loss, bounds=(1.0, 300.0), method="bounded").x
        yield (model.name, own, *shown, _shown(cosine, labels, float(best)))


def _shown(cosine: np.ndarray, labels: np.ndarray, scale: float) -> str:
    columns = classification_columns(scale * cosine, labels, temperature=1.0)
    return f"{scale:.1f}, {metrics.get('ece').compute(Predictions(columns)):.4f}"


if __name__ == "__main__":
    sys.exit(main())
