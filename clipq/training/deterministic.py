"""A training decides nothing by the process it runs in, and leaves nothing behind in it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["deterministic"]

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Have torch choose deterministic algorithms; yield what seeds all global generators.

    clipq's own code draws from generators of its own. A model's or an objective's code may not; it
    is seeded before each step, so that what it draws does not depend on what was drawn before.
    On leaving, generators and settings are as they were. Threads stay as the caller set them.

    Args:
        device: that is trained on; what has no deterministic algorithm there is torch's error.

    >>> before = torch.random.get_rng_state()
    >>> with deterministic(torch.device("cpu")) as seed_all:
    ...     seed_all(3)
    ...     torch.are_deterministic_algorithms_enabled()
    True
    >>> torch.equal(before, torch.random.get_rng_state())
    True
    """
    devices = [device] if device.type == "cuda" else []
    python, numpys = random.getstate(), np.random.get_state()
    modes: Any = torch.utils.deterministic
    before = (
        torch.get_deterministic_debug_mode(),
        modes.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )
    workspace = os.environ.get(_CUBLAS)
    with torch.random.fork_rng(devices):
        try:
            if devices:
                os.environ.setdefault(_CUBLAS, ":4096:8")
            torch.use_deterministic_algorithms(True)
            modes.fill_uninitialized_memory = False  # it costs, and finds bugs
            torch.backends.cudnn.benchmark = False
            yield _seed_all
        finally:
            torch.set_deterministic_debug_mode(before[0])
            modes.fill_uninitialized_memory = before[1]
            torch.backends.cudnn.benchmark = before[2]
            random.setstate(python)
            np.random.set_state(numpys)
            if workspace is None:
                os.environ.pop(_CUBLAS, None)


def _seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
