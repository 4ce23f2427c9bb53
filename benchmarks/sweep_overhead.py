"""What a unit of a sweep costs, and how much of that is neither quantizing, encoding nor metrics.

Units of an embedded model run in this process one after the other, as a worker runs them: cases
planned, evaluated and judged together, the part written. In turn with each, the same is done bare:
the quantizer's method, its model over every image, text and attack, the tables of predictions, and
each case's value and interval; no cache, no containment, no second batch size, no evidence, no
part. Seconds are the processor's. What the units of a model share (the loaded model, decoded
images, FP32's features and attacks) is there before, in both.

Goals: a unit at most 1.10 x bare; at most 5 h on 2 cores for 700,000 such cells, so 0.0514 s each.

    python benchmarks/sweep_overhead.py [--quick] [--models vit-clean] [--probes id digits]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmark import Goals, Script, lacking
from embedded import REPOSITORY, embedded_settings, kept_predictions, without_containment

from clipq.cases import Candidate, Case
from clipq.evaluation.candidate_facts import replaced_towers
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import Selection, plan
from clipq.evaluation.pooling import pool
from clipq.evaluation.predict import Encoded, build_predictions, calibrated_temperature
from clipq.evaluation.resampling import Tables
from clipq.gating.session import Gate
from clipq.metrics import Predictions
from clipq.quant import quantize
from clipq.settings import Settings
from clipq.sweep.measuring import UnitWork
from clipq.sweep.units import Unit

GOAL, CELL_GOAL = 1.10, 5 * 3600 * 2 / 700_000
QUANTIZERS = ["rtn:w8a8", "rtn:w8", "gptq:w4"]
PHASES = ("quantize", "encode", "metrics")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and return the exit code."""
    script = Script(__doc__, takes="five minutes")
    models = ["vit-clean", "resnet", "siglip"]
    script.size("--models", full=models, quick=models[:1], help="by name")
    script.size("--quantizers", full=QUANTIZERS, quick=["rtn:w8"], help="one unit of a model each")
    script.size("--probes", full=["*"], quick=["digits"], help="globs of what is measured")
    script.size("--metrics", full=["*"], quick=["auroc-*"], help="likewise")
    script.add_argument("--cache", type=Path, help="where FP32's features are, or will be, kept")
    options = script.options(arguments)
    try:
        import clipq.sweep.part_store  # noqa: F401
    except ImportError as error:
        lacking(f"the extra `sweep`: {error}")
    goals = Goals(quick=options.quick)
    ratios, each = [], []
    # Not this repository's cache: what a gate has left there would cost a unit nothing.
    with (
        kept_predictions(options.cache, apart=True) as cache,
        TemporaryDirectory() as parts,
    ):
        settings = embedded_settings(cache=cache)
        narrow = tuple(options.probes), tuple(options.metrics)
        for model in options.models:
            units = UnitWork(REPOSITORY / "clipq.toml", parts, *narrow)
            units._settings = settings  # as loaded, but for the cache
            units.measured(Unit(model, "rtn:w8t"))  # what the units of a model share
            by_hand = Bare(settings, model, *narrow)
            for quantizer in options.quantizers:
                start = time.process_time()
                units(Unit(model, quantizer))
                taken = time.process_time() - start
                phases, cells = by_hand.measured(quantizer)
                alone = sum(phases.values())
                ratios.append(taken / alone)
                each.append(taken / cells)
                said = ", ".join(f"{name} {phases[name]:.2f}" for name in PHASES)
                print(
                    f"{model}/{quantizer}: {cells} cells in {taken:.2f} s, {taken / cells:.4f} s "
                    f"each; bare {alone:.2f} s ({said}): {taken / alone:.3f} x",
                    flush=True,
                )
    hours = sum(each) / len(each) * 700_000 / 2 / 3600
    met = goals.measured(median(ratios) <= GOAL) and goals.measured(hours <= 5.0)
    print(
        f"median {median(ratios):.3f} x bare (goal {GOAL:g}); 700,000 cells: {hours:.1f} h on two "
        f"cores (goal 5 h, {CELL_GOAL:.4f} s a cell): {'met' if met else 'missed'}"
    )
    return goals.code


@dataclass
class Bare:
    """A model's units without what a sweep puts around them."""

    settings: Settings
    model: str
    probes: tuple[str, ...]
    metrics: tuple[str, ...]

    @cached_property
    def evaluator(self) -> Evaluator:
        """What opens probes and decodes images; it evaluates FP32 alone."""
        return Evaluator(replace(self.settings, models=(self.settings.model(self.model),)))

    def measured(self, quantizer: str) -> tuple[dict[str, float], int]:
        """Return the seconds of each phase, and how many cells there are."""
        evaluator, candidate = self.evaluator, Candidate(self.model, quantizer)
        encoders, inputs = evaluator.encoders, evaluator.inputs
        known, split = self.settings.in_distribution.name, self.settings.calibration.name
        cases = self._cases(candidate)
        asked = {known: None} | dict.fromkeys(case.probe for case in cases)
        pooled = {name: inputs.pooled[name] for name in asked if name in inputs.pooled}
        members = [one for origins in pooled.values() for one in origins]
        names = [name for name in dict.fromkeys([*asked, *members]) if name not in pooled]
        reference = {of: evaluator.encodings.encoded(candidate.reference.on(of)) for of in names}
        gate = Gate(self.settings, evaluator, figures=False)
        phases, start = {}, time.process_time()

        def lap(name: str) -> None:
            nonlocal start
            phases[name], start = time.process_time() - start, time.process_time()

        made = quantize(encoders.model(self.model).model, quantizer, encoders.given(candidate))
        encoder = encoders.wrap(candidate, made.model)
        lap("quantize")
        encode = evaluator.encodings.encode
        with without_containment():
            head = encoder.head(inputs.known)
            features = {of: encode(encoder, candidate.on(of)) for of in [split, *names]}
            texts = {
                of: evaluator.encodings.encode_captions(encoder, of)
                for of in names
                if inputs.probes[of].role == "retrieval"
            }
        lap("encode")
        temperature = calibrated_temperature(features[split], head, inputs.known_labels)
        tables: dict[str, Predictions] = {}
        for of in names:
            observed = Encoded(features[of], head, features[split], temperature, texts.get(of))
            tables[of] = build_predictions(
                inputs.probes[of].role,
                inputs.sample_info(of),
                observed,
                reference[of],
                known=inputs.known_labels,
                towers=replaced_towers(candidate, self.settings),
                known_clusters=inputs.calibration.clusters,
            )
        for name, origins in pooled.items():
            tables[name] = pool({of: tables[of] for of in origins}, origins)
        for case in cases:
            gate.judge(case, Tables(tables[case.probe], tables[known]))
        lap("metrics")
        return phases, len(cases)

    def _cases(self, candidate: Candidate) -> list[Case]:
        narrow = replace(
            self.settings,
            models=(self.settings.model(self.model),),
            quantizers=(candidate.quantizer,),
        )
        selected = Selection((), (), self.probes, self.metrics)
        found = plan(narrow, selection=selected, profile="full")
        return [case for case in found if case.candidate == candidate]


if __name__ == "__main__":
    sys.exit(main())
