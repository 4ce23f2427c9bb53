"""Which confidence a teacher may have: its probabilities at the temperature that fits the truth."""

from __future__ import annotations

import math

import torch

__all__ = ["calibrated_targets", "fitted_temperature"]

_LARGEST = 4.0
_HALVINGS = 40


def fitted_temperature(logits: torch.Tensor, own: torch.Tensor) -> float:
    """Return the temperature that minimises the mean negative log-likelihood (Guo et al. 2017).

    The likelihood is concave in 1 / T, so that the sign of its derivative is bisected, in float64
    and within [1/4, 4]: of a few rows that are all right, no finite temperature is best.

    Args:
        logits: (N, K), of a softmax.
        own: (N,) int64, the right column of each row.

    >>> logits = torch.tensor([[3.0, 0.0]]).expand(4, 2)  # sure, and right three times in four
    >>> round(fitted_temperature(logits, torch.tensor([0, 0, 0, 1])), 4)  # 3 / T = log 3
    2.7307
    """
    values = logits.detach().double()
    right = values.gather(1, own[:, None])[:, 0]
    low, high = -math.log(_LARGEST), math.log(_LARGEST)  # of log(1 / T)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = ((math.exp(middle) * values).softmax(dim=1) * values).sum(dim=1)
        if float((expected - right).mean()) > 0:  # too sure
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def calibrated_targets(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return the probabilities (N, K) of logits divided by `fitted_temperature`.

    >>> logits = torch.tensor([[3.0, 0.0]]).expand(4, 2)
    >>> calibrated_targets(logits, torch.tensor([0, 0, 0, 1]))[0].round(decimals=3).tolist()
    [0.75, 0.25]
    """
    return (logits.detach() / fitted_temperature(logits, own)).softmax(dim=1)
