"""The FP32 sentinel: does FP32, run here and now, still give what the baseline says?

A driver, a library or a processor can move FP32 itself; quantizers are then not to blame. Before
anything of a model is judged, a few in-distribution samples are encoded in FP32 now, whatever the
cache holds, and compared with the baseline's columns. If they moved, every case of the model is
`drifted`.
"""

from __future__ import annotations

import numpy as np

from clipq.gating.baseline import Baseline
from clipq.metrics import Predictions

__all__ = ["SAMPLES", "TOLERANCES", "drift"]

SAMPLES = 128
"""In-distribution samples that are encoded again."""

TOLERANCES = {"max_logit": 1e-4, "mcm": 1e-5, "confidence": 1e-3}
"""Largest accepted difference per column.

Measured on an embedded ViT: another instruction set, thread count or batch size moves cosines by
up to 1.5e-7 and confidences by 1.2e-6; rounding weights to 8 bits, the mildest quantizer, moves
them by up to 1.7e-3 and 1.7e-2. The tolerances lie between, hundreds of times above the noise.
"""


def drift(live: Predictions, baseline: Baseline, probe: str) -> str:
    """Return how live FP32 differs from the baseline, or "" where it does not.

    Args:
        live: predictions of the first samples, computed now.
        baseline: the model's baseline.
        probe: name of the in-distribution probe.
    """
    stored = baseline.predictions[probe]
    count = len(live)
    if not np.array_equal(live.column("id"), stored.column("id")[:count]):
        return "the baseline's samples differ from the probe's"
    for column, tolerance in TOLERANCES.items():
        difference = np.abs(live.column(column) - stored.column(column)[:count])
        worst = float(difference.max(initial=0.0))
        if not worst <= tolerance:
            return (
                f"FP32 itself moved: {column} differs by up to {worst:.2g} on {count} samples "
                f"(accepted: {tolerance:g})"
            )
    return ""
