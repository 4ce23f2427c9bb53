"""Conformance suites for parts that third parties bring, and Hypothesis strategies to test them.

A quantizer of your own is checked by a test such as::

    import pytest
    from clipq.testing import check_quantizer

    @pytest.mark.parametrize("check", check_quantizer("mine:w4"), ids=str)
    def test_mine(check):
        check()

torch and open_clip are imported when a name below is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clipq.testing.checks import Check, NotRun, Violation
from clipq.testing.profiles import load_profile

if TYPE_CHECKING:
    from clipq.testing import strategies
    from clipq.testing.identity_checks import check_identity
    from clipq.testing.kernels import check_kernel
    from clipq.testing.models import SMALL_CLIPS, SmallInputs, small_clip
    from clipq.testing.quantizer import check_quantizer
    from clipq.testing.rounding_checks import check_rounding

__all__ = [
    "SMALL_CLIPS",
    "Check",
    "NotRun",
    "SmallInputs",
    "Violation",
    "check_identity",
    "check_kernel",
    "check_quantizer",
    "check_rounding",
    "load_profile",
    "small_clip",
    "strategies",
]

_LAZY = {
    "SMALL_CLIPS": "models",
    "SmallInputs": "models",
    "check_identity": "identity_checks",
    "check_kernel": "kernels",
    "check_quantizer": "quantizer",
    "check_rounding": "rounding_checks",
    "small_clip": "models",
}


def __getattr__(name: str) -> Any:
    if name == "strategies":
        return import_module("clipq.testing.strategies")
    if name in _LAZY:
        return getattr(import_module(f"clipq.testing.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
