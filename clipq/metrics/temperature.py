"""Temperature scaling (Guo et al. 2017): one number, fitted on a held-out split."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from clipq.errors import ClipqError

__all__ = ["TEMPERATURE_RANGE", "fit_temperature"]

TEMPERATURE_RANGE = (0.01, 100.0)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature in `TEMPERATURE_RANGE` that minimises the held-out NLL.

    The NLL is convex in 1 / T, so the bounded search over log T finds its only minimum. Where it
    falls without end, the end of the range is returned: the lower where every prediction is right,
    the upper where they are worse than chance. Where no logit of a sample differs from another,
    every temperature is equally good and 1 is returned.

    Args:
        logits: (N, C) of the calibration split, never of the evaluation split.
        labels: (N,) int in [0, C).

    Raises:
        ClipqError: the split is empty or holds non-finite logits, or labels do not fit.

    >>> logits = np.array([[2.0, 0.0]] * 4) * np.log(3)  # 90 % sure of the first class
    >>> round(fit_temperature(logits, np.array([0, 0, 0, 1])), 3)  # right in 75 %
    2.0
    """
    if len(logits) == 0 or not np.isfinite(logits).all():
        raise ClipqError(
            f"cannot fit a temperature to {len(logits)} samples with "
            f"{int((~np.isfinite(logits)).sum())} non-finite logits",
            hint="the calibration split must hold samples with finite logits",
        )
    if labels.shape != logits.shape[:1] or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ClipqError(
            f"labels of shape {labels.shape} from {labels.min()} to {labels.max()} do not fit "
            f"logits of shape {logits.shape}",
            hint="give one label in [0, C) per row of logits (N, C)",
        )
    if (logits == logits[:, :1]).all():
        return 1.0
    rows = np.arange(len(labels))

    def nll(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-scaled[rows, labels].mean())

    low, high = np.log(TEMPERATURE_RANGE)
    optimum = minimize_scalar(nll, bounds=(low, high), method="bounded", options={"xatol": 1e-7})
    best = min((low, high, float(optimum.x)), key=nll)  # the search itself never returns an end
    return float(np.exp(best))
