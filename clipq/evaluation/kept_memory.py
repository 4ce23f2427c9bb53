"""Memory that a forward pass gives back stays with the process, for the next one.

Each layer of each batch takes and returns a few megabytes. By default glibc hands such memory back
to the system and is given other pages, which the system must clear first: 3 to 24 % of the
processor time of the embedded models, by model and by what else is in memory. No number depends on
where it lies.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT_BYTES = 512 << 20
"""As much as is kept: two batches' activations of a ViT-L."""
_HEAP_BYTES = 32 << 20
"""Larger pieces are mapped one by one all the same: glibc takes no higher threshold."""
_OWN_CHOICE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 512 MiB that was freed; return whether it does.

    Once in a process. Not where somebody has chosen otherwise (`MALLOC_TRIM_THRESHOLD_` and the
    like, `GLIBC_TUNABLES`), and not where the C library is another.

    >>> keep_freed_memory() is keep_freed_memory()
    True
    """
    chosen = any(name in os.environ for name in _OWN_CHOICE)
    if chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        choose = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, musl, Windows
        return False
    # The first turns off that thresholds move by themselves, so that both must be told.
    mapped, trimmed = choose(_MMAP_THRESHOLD, _HEAP_BYTES), choose(_TRIM_THRESHOLD, _KEPT_BYTES)
    return bool(mapped == trimmed == 1)
