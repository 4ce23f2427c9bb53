"""What one more metric costs on cached predictions, and how often images are decoded.

    python benchmarks/metric_cost.py [--quick]

Uses this repository's clipq.toml, one model, three quantizers, every probe and a fresh cache.
Prints the number of decoded images against the number of images in the probes (goal: equal,
whatever the number of quantizers), and the milliseconds that each metric takes on a probe of its
role (median of 9 after one warm-up; goal: under 5 ms each). A probe's images are those that a model
sees: a corrupted or attacked image is one of its own.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from benchmark import Goals, Script
from embedded import embedded_settings, predictions
from PIL.Image import Image

from clipq.data.decoding import decode_image
from clipq.evaluation.evaluator import Evaluator
from clipq.metrics import Metric, metrics
from clipq.settings import Settings

GOAL_MILLISECONDS, ROUNDS = 5.0, 9
_PREFERRED = ("in-distribution", "ood", "spurious", "groups", "corruption", "retrieval")
_ONE_OF_A_ROLE = (
    "id",
    "calibration",
    "digits",
    "backgrounds",
    "four-groups",
    "corruptions",
    "captions",
)


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about three minutes on 2 cores")
    script.size("--quantizers", full=("rtn:w8", "rtn:w8a8", "rtn:w4a8"), quick=("rtn:w8",),
                help="that are evaluated")  # fmt: skip
    script.size("--samples", full=0, quick=256, help="of a probe at most; 0 for all")
    script.size("--probes", full=("*",), quick=_ONE_OF_A_ROLE, help="that are evaluated; * for all")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    with TemporaryDirectory() as folder:
        settings = embedded_settings(
            models=1,
            probes=() if "*" in options.probes else options.probes,
            samples=options.samples,
            cache=Path(folder),
        )
        evaluator = Evaluator(settings)
        with counted_decodes() as decodes:
            for quantizer in options.quantizers:
                for probe in (settings.calibration, *settings.evaluated):
                    predictions(evaluator, settings.models[0].name, quantizer, probe.name)
        images = sum(len(probe) for probe in evaluator.inputs.probes.values())
        print(
            f"{len(options.quantizers)} quantizers and FP32 on {images:,} images: {decodes():,} "
            f"decoded, {decodes() / images:.2f} per image (goal 1.00)"
        )
        goals.exact(decodes() == images)
        slowest = 0.0
        for metric in map(metrics.get, metrics.names()):
            milliseconds = cost(metric, evaluator, settings, options.quantizers[0])
            slowest = max(slowest, milliseconds)
            print(f"{metric.name:24s} {milliseconds:7.3f} ms")
    print(f"slowest metric: {slowest:.3f} ms (goal < {GOAL_MILLISECONDS:g} ms)")
    goals.measured(slowest < GOAL_MILLISECONDS)
    return goals.code


@contextmanager
def counted_decodes() -> Iterator[Callable[[], int]]:
    """Yield a function that says how many images of probes were decoded meanwhile."""
    calls: deque[None] = deque()  # decoding is threaded, and its `append` is atomic

    def counting(encoded: bytes, where: str) -> Image:
        calls.append(None)
        return decode_image(encoded, where)

    with patch("clipq.data.probe.decode_image", counting):
        yield lambda: len(calls)


def cost(metric: Metric, evaluator: Evaluator, settings: Settings, quantizer: str) -> float:
    """Return the milliseconds that a metric takes on the first probe of a role it has."""
    role = next(role for role in _PREFERRED if role in metric.roles)
    tables = [
        predictions(evaluator, settings.models[0].name, quantizer, name)
        for name in (settings.probes_of(role)[0].name, settings.in_distribution.name)
    ]
    seconds = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        metric.compute(*tables)
        seconds.append(time.perf_counter() - started)
    return 1e3 * statistics.median(seconds[1:])


if __name__ == "__main__":
    sys.exit(main())
