"""Out-of-distribution scores, one per sample: higher = more in-distribution.

MCM, max-logit and energy act on cosines without the model's logit scale (Ming et al. 2022,
"Delving into Out-of-Distribution Detection with Vision-Language Representations"); entropy is that
of the classifier's own softmax, logit scale included.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, softmax, xlogy

__all__ = ["energy", "max_logit", "mcm", "neg_entropy"]


def mcm(cosine: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """Maximum concept matching: max softmax(cosine / T) of cosines (N, C); in [1/C, 1].

    >>> cosine = np.array([[0.3, 0.1]])
    >>> mcm(cosine).round(3).tolist(), mcm(cosine, temperature=0.1).round(3).tolist()
    ([0.55], [0.881])
    """
    return np.asarray(softmax(cosine / temperature, axis=1).max(axis=1))


def max_logit(cosine: np.ndarray) -> np.ndarray:
    """Largest cosine (N,) of cosines (N, C); in [-1, 1].

    >>> max_logit(np.array([[0.3, 0.1]])).tolist()
    [0.3]
    """
    return np.asarray(cosine.max(axis=1))


def energy(cosine: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """Negative free energy T log sum exp(cosine / T) (N,) of cosines (N, C) (Liu et al. 2020).

    >>> energy(np.zeros((1, 4))).round(4).tolist()  # log 4
    [1.3863]
    """
    return np.asarray(temperature * logsumexp(cosine / temperature, axis=1))


def neg_entropy(logits: np.ndarray) -> np.ndarray:
    """Negative entropy, in nats, of softmax(logits) (N,) of logits (N, C); in [-log C, 0].

    >>> neg_entropy(np.array([[0.0, 0.0], [2.0, 0.0]])).round(4).tolist()  # -log 2 is the lowest
    [-0.6931, -0.3653]
    """
    probability = softmax(logits, axis=1)
    return np.asarray(xlogy(probability, probability).sum(axis=1))
