"""The place of what is true among what is more alike."""

from __future__ import annotations

import numpy as np

__all__ = ["ranks"]


def ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the place (N,) of the true label, 0-based, in the falling order of the logits.

    Of equal logits the class that is listed first stands first, as for argmax: rank 0 is the
    prediction of `numpy.argmax` and `torch.argmax`, so accuracy is that of any other evaluation.

    Args:
        logits: (N, C), finite.
        labels: (N,) int in [0, C).

    >>> ranks(np.array([[0.5, 0.5, 0.1]] * 3), np.array([0, 1, 2])).tolist()
    [0, 1, 2]
    """
    true = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1]) < labels[:, None]
    return np.asarray(((logits > true) | ((logits == true) & before)).sum(axis=1))
