"""Whether FP32 is under- or over-confident: measured, never assumed.

The bias is mean confidence minus accuracy on the in-distribution probe, from the bins of the
reliability diagram that a record carries: counts n_b, mean confidences c_b, accuracies a_b,

    bias = sum n_b (c_b - a_b) / N,

exactly. Its variance is that of confidence minus correctness of one sample, over N. Within a bin
only the means are known, so that the standard deviation there is bounded: that of correctness is
sqrt(a_b (1 - a_b)), that of confidences between the bin's ends l and h at most
sqrt((h - c_b) (c_b - l)) (Bhatia and Davis 2000), that of their difference at most the sum. Samples
count as independent: where they come in clusters, of which bins say nothing, it is too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from clipq.study.effects import Effect

__all__ = ["confidence_bias"]


def confidence_bias(bins: Mapping[str, Sequence[Any]]) -> Effect | None:
    """Return FP32's mean confidence minus accuracy; positive = over-confident. None of no sample.

    Args:
        bins: equal bins over [0, 1]: ``samples``, and ``confidence`` and ``accuracy``, which are
            None where a bin is empty.

    >>> bins = {"samples": [0, 400], "confidence": [None, 0.9], "accuracy": [None, 0.8]}
    >>> bias = confidence_bias(bins)
    >>> round(bias.value, 3), [round(bound, 3) for bound in bias.interval()]
    (0.1, [0.041, 0.159])
    """
    counts = bins["samples"]
    filled = [
        (index, count, float(c), float(a))
        for index, (count, c, a) in enumerate(
            zip(counts, bins["confidence"], bins["accuracy"], strict=True)
        )
        if count and c is not None and a is not None
    ]
    samples = sum(count for _, count, _, _ in filled)
    if not samples:
        return None
    mean = sum(count * (c - a) for _, count, c, a in filled) / samples
    square = 0.0
    for index, count, c, a in filled:
        low, high = index / len(counts), (index + 1) / len(counts)
        within = math.sqrt(max(0.0, (high - c) * (c - low))) + math.sqrt(max(0.0, a * (1 - a)))
        square += count * (within**2 + (c - a) ** 2)
    # Two imagined samples, one wrong each way: where all are right, a sample shows no variance.
    variance = max(0.0, square / samples - mean**2) / samples + 2 / samples**2
    return Effect(mean, math.sqrt(variance))
