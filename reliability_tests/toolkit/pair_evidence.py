"""Evidence on one metric, from tables of FP32 and of a quantized model."""

from __future__ import annotations

from clipq.evaluation.resampling import Tables
from clipq.gating.verdict import Evidence
from clipq.metrics import metrics


def evidence(name, first, second, margin=0.05):
    metric = metrics.get(name)
    if not metric.score:
        first, second = (Tables(t.in_distribution, t.in_distribution) for t in (first, second))
    values = [metric.compute(t.predictions, t.in_distribution) for t in (first, second)]
    return Evidence(metric, values[0], values[1], margin, first, second)
