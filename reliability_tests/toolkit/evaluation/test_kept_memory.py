"""Freed memory is kept for the next batch, where nobody chose otherwise."""

import platform
import subprocess
import sys

import pytest

from clipq.evaluation.kept_memory import keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from clipq.evaluation.kept_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def batch():
    np.ones(6 << 20)  # 48 MiB: beyond what glibc keeps by itself
batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_of_a_batch_is_not_mapped_again(monkeypatch):
    for name in ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", FAULTS, how]))
        for how in ("kept", "as it is")
    }
    assert faults["kept"] < 100
    assert faults["as it is"] > 10 * max(1, faults["kept"])  # huge pages make them fewer


@pytest.mark.parametrize("name", ["MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_somebody_chose_is_left_alone(monkeypatch, name):
    monkeypatch.setenv(name, "65536")
    assert keep_freed_memory.__wrapped__() is False


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory.__wrapped__() is False
