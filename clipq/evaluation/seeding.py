"""Seeds of the generators that a whole process shares."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["seeded"]


@contextmanager
def seeded(text: str) -> Iterator[None]:
    """Give the global generators of torch, numpy and Python a seed of their own for a while.

    Args:
        text: what the seed follows from.

    What is drawn meanwhile depends on nothing that was drawn before, and leaves no trace.

    >>> with seeded("a quantizer"):
    ...     first = torch.rand(1)
    >>> with seeded("a quantizer"):
    ...     print(torch.equal(torch.rand(1), first))
    True
    """
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    ours, theirs = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(theirs)
