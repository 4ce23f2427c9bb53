"""What it costs that quantizers are contained and that their batches are compared.

Every cell of a few candidates is evaluated, each time with an empty cache, in turn as a gate does
and without two things: what notes, compares and puts back this process around a quantizer, with the
FP32 witness, and the second look at 32 images and texts in other batches. What is compared is
processor time, so that a busy machine does not decide. Judging is left out: it would make the share
smaller.

Goal: with both, at most 1.10 x the time without either.

    python benchmarks/guard_price.py [--quick] [--models 4] [--rounds 3]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmark import Goals, Script
from embedded import embedded_settings, without_batch_check, without_containment

from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import plan
from clipq.settings import Settings

GOAL = 1.10
QUANTIZERS = ["rtn:w8", "rtn:w8a8d", "gptq:w4"]
PROBES = ("id", "calibration", "digits")


def seconds(settings: Settings) -> float:
    """Return the processor time of evaluating every cell of the default profile."""
    with TemporaryDirectory() as folder:
        evaluator = Evaluator(replace(settings, cache=Path(folder)))
        cells = dict.fromkeys(case.cell for case in plan(settings, profile="default"))
        start = time.process_time()
        for cell in cells:
            evaluator.evaluate(cell)
        return time.process_time() - start


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and return the exit code."""
    script = Script(__doc__, takes="five minutes")
    script.size("--models", full=1, quick=1, help="of this repository")
    script.size("--rounds", full=2, quick=1, help="of each form")
    script.size("--quantizers", full=QUANTIZERS, quick=QUANTIZERS[:1], help="what is evaluated")
    script.size("--samples", full=0, quick=256, help="of a probe at most; 0 for all")
    options = script.options(arguments)
    settings = embedded_settings(
        models=options.models,
        quantizers=options.quantizers,
        probes=PROBES if options.quick else (),
        samples=options.samples,
    )
    forms = {
        "without either": (without_containment, without_batch_check),
        "contained": (without_batch_check,),
        "both": (),
    }
    taken: dict[str, list[float]] = {name: [] for name in forms}
    seconds(embedded_settings(models=1, quantizers=QUANTIZERS[:1], probes=PROBES, samples=256))
    for _ in range(options.rounds):
        for name, left_out in forms.items():
            with ExitStack() as stack:
                for leave_out in left_out:
                    stack.enter_context(leave_out())
                taken[name].append(seconds(settings))
    middle = {name: statistics.median(each) for name, each in taken.items()}
    for name, value in middle.items():
        print(f"{name:15} {value:7.2f} s of processor time")
    goals = Goals(quick=options.quick)
    ratio = middle["both"] / middle["without either"]
    contained = middle["contained"] / middle["without either"]
    met = goals.measured(ratio <= GOAL)
    verdict = "met" if met else "missed"
    print(
        f"contained: {contained:.3f} x; with batches compared: {ratio:.3f} x "
        f"(goal {GOAL:.2f}: {verdict})"
    )
    return goals.code


if __name__ == "__main__":
    sys.exit(main())
