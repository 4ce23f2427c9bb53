"""The study at embedded scale: records of this repository's models, for `clipq study`.

    python benchmarks/embedded_study.py [--quick]                     # what needs no training
    python benchmarks/embedded_study.py --methods lsq-distil rot+lsq  # a part of what does
    python benchmarks/embedded_study.py --logit-scale --methods rtn   # each with a tuned scale, too
    python benchmarks/embedded_study.py --list                        # the plan, and what is there

One record per model, method and format, with all seeds and both scopes of it; a record that holds
what is asked for is left alone, so that an interrupted run goes on where it was. Predictions and
trained states are kept in this repository's cache. Then:

    clipq study claims .clipq/study/records/*.json
    clipq study table .clipq/study/records/*.json

The probes are those of clipq.toml and four of noise and blur alone, mild (severities 1 to 3) and
severe (4 and 5); FP32's baselines on them are made at first use, in the study's own folder. Seeds
are those of what a method draws: a rotation, noise, a training. Rounding to nearest draws nothing.

Goal: every case of the plan was measured.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from benchmark import Goals, Script, quiet
from embedded import embedded_settings

from clipq.evaluation.evaluator import Evaluator
from clipq.files import write_atomically
from clipq.gating.approve import approve_first, measure
from clipq.gating.baseline import json_path, save_baseline
from clipq.gating.families import Families
from clipq.gating.matrix import Matrix
from clipq.gating.run import assemble
from clipq.gating.session import Gate
from clipq.quant.spec import QuantizerSpec
from clipq.records import RunRecord, read_run
from clipq.settings import CorruptionSettings, ProbeSettings, Settings

SUFFIX = "+logit-scale"
FORMATS = ("w8a8", "w6a8", "w4a8", "w4a4")
TOWERS = {"vision": "@vision", "both": ""}
_CALIBRATION = ("ece", "ts-ece", "nll", "confidence-gap", "temperature-log-ratio")
_SPECTRA = (
    *("sqnr", "sqnr-low", "sqnr-mid", "sqnr-high", "effective-rank", "head-energy", "tail-energy"),
    *("top1-low", "top1-mid", "top1-high"),
)
METRICS = {
    "id": ("top1", *_CALIBRATION, *_SPECTRA),
    **dict.fromkeys(("near-ood", "textures", "digits"), ("auroc-mcm", "auroc-max-logit")),
    "corruptions": ("top1", "ece", "corruption-error"),
    "shifted": ("top1", "ece"),
    "backgrounds": ("top1", "relative-gap", "added-vulnerability"),
}
"""What is measured on this repository's probes."""
KINDS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
}
QUICK = ("id", "calibration", "textures", "blur", "proxy")
SEVERITIES = {"": (1, 2, 3), "-severe": (4, 5)}


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the plan: its text without format, its options, and what of it a seed changes."""

    method: str
    options: str = ""
    seeded: bool = False
    scopes: tuple[str, ...] = ("vision", "both")
    formats: tuple[str, ...] = FORMATS
    not_of: tuple[str, ...] = ()

    def texts(self, number_format: str, seeds: Sequence[int], scopes: Sequence[str]) -> list[str]:
        """Return the quantizers of one format, in canonical form."""
        found = []
        for scope in (scope for scope in self.scopes if scope in scopes):
            for seed in seeds if self.seeded else seeds[:1]:
                seeded = f",seed={seed}" if self.seeded else ""
                text = f"{self.method}:{number_format}{self.options}{seeded}{TOWERS[scope]}"
                found.append(str(QuantizerSpec.parse(text)))
        return found


_TRAINED = {"seeded": True, "scopes": ("vision",)}
METHODS = {
    "rtn": Method("rtn"),
    # No layer norm feeds a ModifiedResNet's layers, and it has no one residual stream to rotate.
    "smoothquant": Method("smoothquant", not_of=("resnet",)),
    "quarot": Method("quarot", seeded=True, scopes=("vision",), not_of=("resnet",)),
    "noise": Method("noise", seeded=True, scopes=("vision",)),
    **{
        f"lsq-{objective}": Method("lsq", f",objective={objective}", **_TRAINED)
        for objective in ("contrastive", "distil", "features", "reliability")
    },
    "rot+lsq": Method("rot+lsq", formats=("w8a8", "w4a8"), not_of=("resnet",), **_TRAINED),
}
UNTRAINED = ("rtn", "smoothquant", "quarot", "noise")


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="an hour without training, and some minutes a training")
    script.size("--models", full=("vit-clean", "vit-noisy", "resnet", "siglip"),
                quick=("vit-clean",), help="of clipq.toml")  # fmt: skip
    script.size("--methods", full=UNTRAINED, quick=("rtn",), help="of the plan",
                choices=tuple(METHODS))  # fmt: skip
    script.size("--formats", full=FORMATS, quick=("w8a8",), help="number formats")
    script.size("--scopes", full=tuple(TOWERS), quick=("vision",), help="towers",
                choices=tuple(TOWERS))  # fmt: skip
    script.size("--seeds", full=(0, 1, 2), quick=(0,), help="of what draws anything")
    script.size("--samples", full=0, quick=256, help="of a probe at most; 0 for all")
    script.add_argument("--options", default="", help="of trained quantizers: 'steps=400,lr=1e-4'")
    script.add_argument("--logit-scale", action="store_true", help="each also with a tuned scale")
    script.add_argument("--folder", type=Path, help="default: .clipq/study")
    script.add_argument("--list", action="store_true", help="show the plan, run nothing")
    options = script.options(arguments)
    if not options.quick or options.folder:
        return studied(options, options.folder)
    with TemporaryDirectory() as folder:  # this repository's cache and records are left alone
        return studied(options, Path(folder), cache=Path(folder) / "cache")


def studied(options, folder: Path | None, *, cache: Path | None = None) -> int:
    """Make the records of the plan in a folder; return the exit code."""
    goals = Goals(quick=options.quick)
    settings = study_settings(options)
    settings = settings if cache is None else replace(settings, cache=cache)
    folder = folder or settings.root / ".clipq/study"
    settings = replace(settings, baselines=folder / "baselines", margins=margins(settings, folder))
    units = list(plan(options))
    evaluator = None
    for done, (model, name, number_format, texts) in enumerate(units):
        path = folder / "records" / f"{model}-{name}-{number_format}.json"
        there = held(path, model) >= set(texts)
        label = f"{done + 1} of {len(units)}: {path.name}, {len(texts)} candidates"
        if there or options.list:
            print(f"{label}{': there' if there else ''}", flush=True)
            continue
        start = time.perf_counter()
        if evaluator is None or evaluator.settings.models[0].name != model:
            models = tuple(each for each in settings.models if each.name == model)
            evaluator = Evaluator(replace(settings, models=models))
        with quiet():
            record = measured(evaluator, texts)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(record.to_plain(), indent=1, allow_nan=False)
        write_atomically(path, content.encode())
        failed = [case for case in record.cases if case.verdict.value in ("error", "missing")]
        goals.exact(not failed)
        print(f"{label}: {time.perf_counter() - start:.0f} s", flush=True)
        for case in failed[:1]:
            print(f"  {len(failed)} cases were not measured: {case.id}: {case.reason}", flush=True)
    return goals.code


def plan(options) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield (model, method, format, quantizers), one per record.

    Model by model: what is made of one, its decoded images among it, is not made again.
    """
    for model, number_format, name in product(options.models, options.formats, options.methods):
        method = METHODS[name]
        if name not in UNTRAINED and options.options:
            method = replace(method, options=f"{method.options},{options.options}")
        if number_format in method.formats and model not in method.not_of:
            texts = method.texts(number_format, options.seeds, options.scopes)
            if options.logit_scale:
                texts = [text + end for text in texts for end in ("", SUFFIX)]
            if texts:
                yield model, name, number_format, texts


def study_settings(options) -> Settings:
    """Return this repository's settings with the study's models, probes and metrics."""
    settings = embedded_settings()
    chosen = []
    for probe in settings.probes:
        if probe.name in METRICS:
            chosen.append(replace(probe, metrics=METRICS[probe.name]))
        elif probe.role in ("calibration", "proxy"):
            chosen.append(probe)
    chosen += [
        ProbeSettings(
            f"{name}{suffix}",
            "corruption",
            settings.in_distribution.source,
            metrics=("top1",),
            samples=1024,
            corruption=CorruptionSettings(kinds, severities, draws=1),
        )
        for name, kinds in KINDS.items()
        for suffix, severities in SEVERITIES.items()
    ]
    if options.quick:
        chosen = [probe for probe in chosen if probe.name in QUICK]
    if options.samples:
        chosen = [
            replace(p, samples=min(p.samples or options.samples, options.samples)) for p in chosen
        ]
    return replace(
        settings,
        models=tuple(model for model in settings.models if model.name in options.models),
        probes=tuple(chosen),
        metrics=("*",),
        kernels=(),
    )


def margins(settings: Settings, folder: Path) -> Path:
    """Write this repository's margins without what it expects to fail, and return where.

    The study takes values and standard errors from its records, no verdicts; and expectations name
    cases that it does not measure.
    """
    path = folder / "margins.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text, _, _ = settings.margins.read_text(encoding="utf-8").partition("[[expected-failure]]")
    write_atomically(path, text.encode())
    return path


def measured(evaluator: Evaluator, texts: Sequence[str]) -> RunRecord:
    """Return the record of quantizers of the model that an evaluator is for."""
    settings = replace(evaluator.settings, quantizers=tuple(texts))
    model = settings.models[0].name
    began, start = datetime.datetime.now(datetime.UTC), time.perf_counter()
    if not json_path(settings.baselines, model).exists():
        # FP32's noise over batch sizes and threads matters to verdicts, of which none are taken.
        with mock.patch("clipq.gating.approve._variants", return_value={}):
            baseline = approve_first(measure(evaluator, model), date=began.date().isoformat())
        save_baseline(settings.baselines, baseline)
    matrix = Matrix(settings, profile="full")
    families = Families(settings.statistics, matrix.cases, whole=matrix.whole)
    gate = Gate(settings, evaluator, families=families)
    results = [gate.check(case) for case in matrix.cases]
    return assemble(
        matrix,
        results,
        planned=len(matrix.cases),
        began=began,
        seconds=time.perf_counter() - start,
    )


def held(path: Path, model: str) -> set[str]:
    """Return the quantizers of a model that a record holds; none where there is no record."""
    if not path.exists():
        return set()
    cases = read_run(path).cases
    failed = {case.quantizer for case in cases if case.verdict.value in ("error", "missing")}
    return {case.quantizer for case in cases if case.case.candidate.model == model} - failed


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
