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
from clipq.kernels.kernel_spec import CHECKS, OPERATIONS, Kernel, KernelSpec
from clipq.testing import NotRun, Violation, check_kernel
from clipq.testing.kernels.real_shapes import Shape
from clipq.testing.kernels.trial import Trial

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


def test_bugs_are_planted_in_every_operation():
    assert len(library.BROKEN) >= 75
    assert {kernel.spec.operation for _, kernel in library.BROKEN.values()} == set(OPERATIONS)


def test_the_interpreter_runs_no_more_programs_than_a_shape_allows_and_says_so():
    """A kernel with a program a row gets fewer rows: thousands would take minutes."""
    rows = []

    def counted(x, scale, **given):
        rows.append(x.shape[:-1].numel())
        return library.fake_quantize(x, scale, **given)

    trial = Trial(Kernel(counted, library.ROUNDING))
    if not trial.interpreted:
        pytest.skip("there is a GPU")
    trial.agrees_at(Shape(4097, 8, dims=3, programs=16), trial.operation.first(), torch.float32, 0)
    assert rows[0] == 4097
    assert 1 <= rows[-1] <= 16
    assert "fewer rows" in trial.where


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
