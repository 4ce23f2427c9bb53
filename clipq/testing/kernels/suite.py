"""The checks of one kernel: how each of `CHECKS` is carried out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from clipq.kernels.kernel_spec import Kernel
from clipq.testing.checks import NotRun
from clipq.testing.kernels import contract_checks, launch_checks, memory_checks, value_checks
from clipq.testing.kernels.trial import Trial

__all__ = ["Suite"]

_IN_FLOAT32 = {  # beyond what half precision holds, or exact to the last bit
    "rounds-half-to-even",
    "saturates",
    "keeps-subnormals",
    "takes-extreme-scales",
    "accumulates-exactly",
    "survives-large-k",
}
_CARRIED_OUT: Mapping[str, Callable[[Trial], None]] = {
    "matches-reference": value_checks.matches_reference,
    "rounds-bfloat16": value_checks.rounds_bfloat16,
    "accumulates-exactly": value_checks.accumulates_exactly,
    "survives-large-k": value_checks.survives_large_k,
    "takes-strided-inputs": memory_checks.takes_strided_inputs,
    "takes-unaligned-pointers": memory_checks.takes_unaligned_pointers,
    "takes-empty-inputs": memory_checks.takes_empty_inputs,
    "writes-every-element": memory_checks.writes_every_element,
    "writes-nothing-else": memory_checks.writes_nothing_else,
    "keeps-earlier-results": memory_checks.keeps_earlier_results,
    "is-deterministic": launch_checks.is_deterministic,
    "ignores-program-order": launch_checks.ignores_program_order,
    "follows-the-stream": launch_checks.follows_the_stream,
    "captures-in-a-graph": launch_checks.captures_in_a_graph,
    "runs-on-any-device": launch_checks.runs_on_any_device,
    "addresses-far-rows": launch_checks.addresses_far_rows,
    "refuses-bad-input": contract_checks.refuses_bad_input,
    "gradient-matches": contract_checks.gradient_matches,
    "compiles-and-exports": contract_checks.compiles_and_exports,
}
"""The other checks compare the calls that an operation has for them."""


class Suite:
    """Checks of one kernel; their names are those of `CHECKS`."""

    def __init__(self, kernel: Kernel) -> None:
        self.trial = Trial(kernel)

    @property
    def where(self) -> str:
        """What numeric checks run on, for reports; "" where they cannot run."""
        return self.trial.where

    def check(self, name: str) -> Callable[[], None]:
        trial = self.trial

        def run() -> None:
            reason = trial.operation.not_about.get(name, "")
            if reason:
                raise NotRun(reason)
            if name in _IN_FLOAT32 and "float32" not in trial.spec.dtypes:
                raise NotRun("its cases are float32, which the kernel does not claim")
            with _quiet():
                if name in _CARRIED_OUT:
                    _CARRIED_OUT[name](trial)
                else:
                    value_checks.holds(trial, name)

        return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings, and filters that make errors of them, from deciding a check.

    numpy, by which the interpreter computes, warns of overflow; torch of its own tests' gradients.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
