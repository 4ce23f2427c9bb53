"""What one more metric costs on cached predictions, and how often images are decoded.

    python benchmarks/metric_cost.py

Uses this repository's clipq.toml, one model, three quantizers and a fresh cache. Prints
milliseconds per metric (median of 9 after one warm-up; goal: under 5 ms each) and the number of
decoded images against the number of images in the probes (goal: equal, whatever the number of
quantizers).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image

import clipq.data.webdataset_source as shards
from clipq.evaluation.evaluator import Evaluator
from clipq.metrics import metrics
from clipq.settings import load_settings

QUANTIZERS = ("rtn:w8", "rtn:w8a8", "rtn:w4a8")


def main() -> None:
    decoded = 0
    original = Image.open

    def counting(*arguments, **keywords):
        nonlocal decoded
        decoded += 1
        return original(*arguments, **keywords)

    shards.Image.open = counting
    settings = load_settings(Path(__file__).parents[1] / "clipq.toml")
    model = settings.models[0].name
    with tempfile.TemporaryDirectory() as cache:
        evaluator = Evaluator(replace(settings, cache=Path(cache)))
        for quantizer in QUANTIZERS:
            for probe in settings.probes:
                evaluator.evaluate(model, quantizer, probe.name)
        images = sum(len(probe) for probe in evaluator.inputs.probes.values())
        print(
            f"{len(QUANTIZERS)} quantizers and FP32 on {images} images: {decoded} images decoded, "
            f"{decoded / images:.2f} per image (goal 1.00)"
        )
        known = evaluator.evaluate(model, QUANTIZERS[0], settings.in_distribution.name)
        ood = settings.probes_of("ood")[0].name
        other = evaluator.evaluate(model, QUANTIZERS[0], ood)
        slowest = 0.0
        for name in metrics.names():
            metric = metrics.get(name)
            target = other if metric.score else known
            metric.compute(target.predictions, known.predictions)
            times = []
            for _ in range(9):
                started = time.perf_counter()
                metric.compute(target.predictions, known.predictions)
                times.append(1e3 * (time.perf_counter() - started))
            slowest = max(slowest, statistics.median(times))
            print(f"{name:24s} {statistics.median(times):7.3f} ms")
        print(f"slowest metric: {slowest:.3f} ms (goal < 5 ms)")


if __name__ == "__main__":
    main()
