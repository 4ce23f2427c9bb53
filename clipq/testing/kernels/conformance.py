"""Conformance of a kernel to the reference semantics of the operation it claims to implement.

Numeric checks run on a GPU where there is one; else on the CPU, for kernels in Triton by its
interpreter. A check that cannot run raises `NotRun` with the reason, which unittest and pytest take
for a skip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from torch import Tensor

from clipq.errors import ClipqError, KernelError
from clipq.kernels.device import unusable, use_interpreter
from clipq.kernels.kernel_spec import CHECKS, Kernel, KernelSpec, kernels
from clipq.records import KernelResult
from clipq.testing.checks import Check, NotRun, Violation
from clipq.testing.kernels.suite import Suite

__all__ = ["check_kernel", "judge", "load_kernel"]


def check_kernel(
    kernel: Kernel | Callable[..., Tensor] | str, spec: KernelSpec | None = None
) -> Iterator[Check]:
    """Yield the conformance checks of a kernel, as test cases: one for each of `CHECKS`.

    A call raises `Violation` where the kernel breaks its spec, and `NotRun` where it cannot be
    told.

    Args:
        kernel: the name of a registered kernel, a `Kernel`, or any callable with a `spec`; called
            by the argument names that docs/kernels.md lists.
        spec: what a bare callable claims.

    Raises:
        KernelError: no spec, or two.
        UnknownNameError: no kernel is registered under the name.

    >>> from clipq.kernels.kernel_spec import KernelSpec
    >>> checks = check_kernel(my_kernel, KernelSpec(operation="quantize"))  # doctest: +SKIP
    """
    subject = kernel if isinstance(kernel, str) else ""
    if isinstance(kernel, str):
        kernel = load_kernel(kernel)
    if isinstance(kernel, Kernel):
        if spec is not None:
            raise KernelError("a kernel that has a spec, and another", hint="give one of them")
    elif spec is None:
        name = getattr(kernel, "__name__", repr(kernel))
        raise KernelError(
            f"{name} without a spec", hint="say what it claims: check_kernel(kernel, spec)"
        )
    else:
        kernel = Kernel(kernel, spec)
    subject = subject or getattr(kernel.call, "__name__", kernel.spec.operation)
    suite = Suite(kernel)
    for name in CHECKS:
        yield Check(subject, name, suite.check(name))


def judge(kernel: str, check: str) -> KernelResult:
    """Run one check of a registered kernel and return what came of it, whatever it was.

    >>> found = judge("no-such-kernel", "edges")
    >>> found.outcome, found.reason.splitlines()[0]
    ('fail', "unknown kernel 'no-such-kernel'")
    """
    outcome, reason, where, source = "fail", "", "", ""
    try:
        implementation = load_kernel(kernel)
        source, suite = implementation.source, Suite(implementation)
        where = suite.where
        suite.check(check)()
        outcome = "pass"
    except NotRun as error:
        outcome, reason = "not-run", str(error)
    except (Violation, ClipqError) as error:
        reason = str(error)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    return KernelResult(kernel, check, outcome, reason=reason, where=where, source=source)


def load_kernel(name: str) -> Kernel:
    """Return a registered kernel; without a GPU, for Triton's interpreter where that can be.

    Raises:
        UnknownNameError: no kernel has that name.

    >>> load_kernel("no-such-kernel")
    Traceback (most recent call last):
    clipq.errors.UnknownNameError: unknown kernel 'no-such-kernel'
    ...
    """
    if not torch.cuda.is_available() and unusable(torch.device("cpu")):
        # Triton decides when a kernel's module is imported; without it, checks say why not.
        with suppress(KernelError):
            use_interpreter()
    return kernels.get(name)
