"""Every planted bug of a kernel is caught by the check it belongs to; healthy twins pass all."""

from __future__ import annotations

import sys
import unittest
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clipq.errors import ClipqError
from clipq.kernels.device import use_interpreter
from clipq.kernels.kernel_spec import CHECKS, Kernel, KernelSpec
from clipq.testing import NotRun, Violation, check_kernel

if not torch.cuda.is_available():
    use_interpreter()
sys.path.insert(0, str(Path(__file__).parent))
import broken_kernels as library

sys.path.pop(0)
BROKEN = library.BROKEN | (library.BROKEN_ON_A_GPU if torch.cuda.is_available() else {})


def checks_of(kernel):
    return {check.invariant: check for check in check_kernel(kernel)}


@pytest.mark.parametrize("bug", BROKEN)
def test_a_planted_bug_is_caught(bug):
    check, kernel = BROKEN[bug]
    with pytest.raises(Violation):
        checks_of(kernel)[check]()


@pytest.mark.parametrize("name", library.HEALTHY)
def test_a_healthy_twin_passes_every_check_that_can_run(name):
    mine = library.HEALTHY[name].spec
    ran = set()
    for check in check_kernel(library.HEALTHY[name]):
        try:
            check()
        except NotRun:
            continue
        ran.add(check.invariant)
    assert {check for check, kernel in library.BROKEN.values() if kernel.spec == mine} <= ran


def test_at_least_twelve_bugs_are_planted():
    assert len(library.BROKEN) >= 12


def test_every_check_is_named_once_and_carries_its_reason():
    checks = checks_of(library.HEALTHY["fake-quantize"])
    assert list(checks) == list(CHECKS)
    with pytest.raises(NotRun, match="adds no integers"):
        checks["survives-large-k"]()
    assert issubclass(NotRun, unittest.SkipTest)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checks_of(library.fake_quantize), "fake_quantize without a spec"),
        (
            lambda: list(check_kernel(library.HEALTHY["fake-quantize"], library.ROUNDING)),
            "and another",
        ),
        (lambda: KernelSpec(operation="quantise"), "did you mean 'quantize'"),
        (lambda: KernelSpec(operation="quantize", bits=()), "claims no dtype"),
        (lambda: list(check_kernel("triton-quantise")), "did you mean 'triton-quantize'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ClipqError, match=message):
        call()


def test_a_kernel_that_needs_a_gpu_is_not_run_without_one():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    kernel = Kernel(library.fake_quantize, KernelSpec(operation="fake-quantize"))
    with pytest.raises(NotRun, match="no GPU, and the kernel has no interpreter"):
        checks_of(kernel)["matches-reference"]()


def test_a_kernel_of_half_precision_alone_is_never_given_floats():
    def halves(x, *given, **named):
        if x.dtype != torch.float16:
            raise ValueError(f"x is {x.dtype}")
        found = library.fake_quantize(x.float(), *given, **named)
        return found.half()

    spec = replace(library.ROUNDING, dtypes=("float16",), out=False)
    ran, reasons = set(), set()
    for check in check_kernel(halves, spec):
        try:
            check()
        except NotRun as error:
            reasons.add(str(error))
            continue
        ran.add(check.invariant)
    assert {"matches-reference", "shows-nan", "takes-strided-inputs", "addresses-far-rows"} <= ran
    assert "its cases are float32, which the kernel does not claim" in reasons
