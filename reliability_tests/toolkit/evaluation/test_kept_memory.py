"""Freed memory stays with a process that encodes, unless somebody has chosen otherwise."""

from __future__ import annotations

import ctypes

import pytest

from clipq.evaluation import kept_memory
from clipq.evaluation.kept_memory import keep_freed_memory

TOLD = {-3: 32 << 20, -1: 512 << 20}  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h


class Library:
    """A C library that notes what it is told."""

    def __init__(self) -> None:
        self.told: dict[int, int] = {}

    def mallopt(self, what: int, value: int) -> int:
        self.told[what] = value
        return 1


@pytest.fixture
def library(monkeypatch):
    for name in (*kept_memory._OWN_CHOICE, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    found = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: found)
    return found


def test_both_thresholds_are_told(library):
    assert keep_freed_memory.__wrapped__()
    assert library.told == TOLD


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")],
)
def test_what_somebody_chose_stays(library, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory.__wrapped__()
    assert not library.told


def test_another_c_library_is_left_alone(monkeypatch, library):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory.__wrapped__()
