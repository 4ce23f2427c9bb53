"""What LSQ's objectives cost and gain: accuracy, calibration, detection, corruption errors.

    python benchmarks/objectives.py [--quick]     # every objective, three seeds
    python benchmarks/objectives.py --models vit-clean --objectives reliability $ABLATED
    python benchmarks/objectives.py --log runs.jsonl    # go on with what a file holds

Vision towers of this repository's models, on its probes. `ABLATED` are names of `--objectives`,
too: reliability with a term removed, or with the distance of features added. AUROC is that of
maximum concept matching, as the mean of three probes; CE is the corruption error against FP32.

Before its trainings, each model's temperatures are shown: of the zero-shot head on the calibration
split, and of the proxy's captions in batches, which is what reliability's targets are made by.

Goal: in both formats, reliability is better than contrastive on at least two of ECE, AUROC and CE,
on the mean of seeds, without losing top-1 beyond the margin against FP32, for two models at least.
Nothing is selected here: every run is printed and, with --log, kept.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from benchmark import Goals, Script, quiet
from embedded import embedded_settings, kept_predictions, predictions
from tabulate import tabulate

from clipq.cases import Cell
from clipq.evaluation.evaluator import Evaluator
from clipq.gating.margins import load_margins
from clipq.metrics import metrics
from clipq.quant.spec import QuantizerSpec
from clipq.training.calibrated_targets import fitted_temperature
from clipq.training.caption_sets import distinct_captions, distinct_logits
from clipq.training.objective import Features
from clipq.training.objectives import objectives
from clipq.training.objectives_reliability import Reliability

COMPARED = ("contrastive", "distil", "features", "kl", "reliability")
ABLATED = {
    "no-calibration": Reliability(calibration=0),
    "no-robustness": Reliability(robustness=0),
    "no-outliers": Reliability(outliers=0),
    "with-features": Reliability(features=1),
}
FAR = ("near-ood", "textures", "digits")
MEASURED = {
    "top1": ("id", "top1"),
    "ECE": ("id", "ece"),
    "gap": ("id", "confidence-gap"),
    "NLL": ("id", "nll"),
    **{name: (name, "auroc-mcm") for name in FAR},
    "CE": ("corruptions", "corruption-error"),
    "shifted": ("shifted", "top1"),
}
SHOWN = ("top1", "ECE", "gap", "NLL", *FAR, "AUROC", "CE", "shifted")
FP32 = "fp32"

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One training, or FP32, and where it is shown."""

    model: str
    number_format: str
    objective: str
    seed: int

    def quantizer(self, options: str) -> str:
        """Return the text that names it, with options of all trainings."""
        if self.objective == FP32:
            return FP32
        given = f",{options}" if options else ""
        text = f"lsq:{self.number_format},objective={self.objective},seed={self.seed}{given}@vision"
        return str(QuantizerSpec.parse(text))


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="some minutes a training")
    script.size("--models", full=("vit-clean", "vit-noisy", "resnet", "siglip"),
                quick=("vit-clean",), help="of clipq.toml")  # fmt: skip
    script.size("--formats", full=("w4a8", "w4a4"), quick=("w4a8",), help="of numbers")
    script.size("--objectives", full=COMPARED, quick=("reliability", "no-outliers"),
                help="objectives and ablations", choices=(*COMPARED, *ABLATED))  # fmt: skip
    script.size("--seeds", full=(0, 1, 2), quick=(0,), help="of the order of pairs and of draws")
    script.size("--options", full="", quick="steps=2,batch=8,pairs=32", help="of all trainings")
    script.size("--samples", full=0, quick=256, help="of a probe at most; 0 for all")
    script.add_argument("--log", type=Path, help="JSON lines, one a run; runs in it are not done")
    script.add_argument("--cache", type=Path, help="where to keep what is trained and predicted")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    known = logged(options.log)
    found: dict[Run, Figures] = {}
    with ablations(), kept_predictions(options.cache, apart=options.quick) as cache:
        for model in options.models:
            evaluator = embedded(model, options.samples, cache)
            with quiet():
                print(temperatures(evaluator, model), flush=True)
            for run in runs(model, options):
                quantizer, start = run.quantizer(options.options), time.perf_counter()
                if (key := (run.model, quantizer)) not in known:
                    with quiet():
                        known[key] = figures(evaluator, model, quantizer)
                    keep(options.log, key, known[key], time.perf_counter() - start)
                found[run] = known[key]
                print(f"{model} {quantizer}: {told(found[run])}", flush=True)
    for number_format in options.formats:
        print(f"\n{number_format}, mean of {len(options.seeds)} seeds")
        print(table({r: f for r, f in found.items() if r.number_format == number_format}))
        won = [m for m in options.models if better(found, m, number_format, margin(number_format))]
        if {"contrastive", "reliability"} <= set(options.objectives):
            goals.measured(len(won) >= 2)
            print(f"reliability is better than contrastive on: {', '.join(won) or 'no model'}")
    return goals.code


@contextmanager
def ablations() -> Iterator[None]:
    """Register the ablated objectives, for as long as they are measured."""
    for name, objective in ABLATED.items():
        objectives.add(name, lambda objective=objective: objective)
    try:
        yield
    finally:
        for name in ABLATED:
            objectives.remove(name)


def runs(model: str, options) -> list[Run]:
    trained = product(options.formats, options.objectives, options.seeds)
    return [Run(model, number_format, FP32, 0) for number_format in options.formats] + [
        Run(model, *each) for each in trained
    ]


def embedded(model: str, samples: int, cache: Path | None) -> Evaluator:
    """Return what evaluates one model on the probes that are measured here."""
    names = ("calibration", "proxy", *{probe for probe, _ in MEASURED.values()})
    settings = embedded_settings(probes=names, cache=cache)
    if samples:
        cut = [p if p.role == "proxy" else replace(p, samples=samples) for p in settings.probes]
        settings = replace(settings, probes=tuple(cut))
    models = tuple(each for each in settings.models if each.name == model)
    return Evaluator(replace(settings, models=models))


def temperatures(evaluator: Evaluator, model: str, *, batch: int = 128, draws: int = 20) -> str:
    """Say how FP32's temperature on captions compares with that on classes."""
    of_classes = evaluator.encodings.encoded(Cell(model, FP32, "id")).temperature
    loaded = evaluator.encoders.model(model)
    pairs = evaluator.inputs.pairs(loaded.preprocess)
    with torch.inference_mode():
        image = torch.cat(
            [
                loaded.model.encode_image(
                    loaded.preprocess.normalise(pairs.images[at : at + batch])
                )
                for at in range(0, len(pairs.images), batch)
            ]
        )
        text = loaded.model.encode_text(loaded.tokenizer(list(pairs.captions)))
    _, kinds = np.unique(np.array(pairs.captions)[np.argsort(pairs.owners)], return_inverse=True)
    scale, rng, found = torch.tensor(loaded.logit_scale), np.random.default_rng(0), []
    for _ in range(draws):
        rows = torch.from_numpy(rng.choice(len(image), batch, replace=False))
        captions = torch.from_numpy(kinds)[rows]
        drawn = Features(image[rows], text[np.argsort(pairs.owners)[rows]], scale)
        _, own = distinct_captions(captions)
        found.append(fitted_temperature(distinct_logits(drawn, captions), own))
    return (
        f"{model}: temperature {of_classes:.3f} on classes, {mean(found):.3f} on captions "
        f"({stdev(found):.3f} from batch to batch)"
    )


def figures(evaluator: Evaluator, model: str, quantizer: str) -> dict[str, float]:
    """Return what `SHOWN` names."""
    inside = predictions(evaluator, model, quantizer, "id")
    found = {}
    for name, (probe, metric) in MEASURED.items():
        table = inside if probe == "id" else predictions(evaluator, model, quantizer, probe)
        found[name] = round(float(metrics.get(metric).compute(table, inside)), 5)
    found["AUROC"] = round(mean(found[name] for name in FAR), 5)
    return found


def logged(path: Path | None) -> dict[tuple[str, str], Figures]:
    """Return the runs that a log holds, by model and quantizer."""
    if path is None or not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {(line["model"], line["quantizer"]): line["figures"] for line in lines}


def keep(path: Path | None, key: tuple[str, str], found: Figures, seconds: float) -> None:
    if path is not None:
        line = {"model": key[0], "quantizer": key[1], "figures": found, "seconds": round(seconds)}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def told(found: Figures) -> str:
    return ", ".join(f"{name} {found[name]:.4f}" for name in SHOWN)


def table(found: Mapping[Run, Figures]) -> str:
    """Return means over seeds, by model and objective."""
    grouped: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    for run, values in found.items():
        grouped[run.model, run.objective].append(values)
    rows = [
        (*names, *(mean(each[name] for each in values) for name in SHOWN))
        for names, values in grouped.items()
    ]
    return tabulate(rows, ("model", "objective", *SHOWN), floatfmt=".4f")


def margin(number_format: str) -> float:
    """Return the top-1 that a format may lose."""
    settings = embedded_settings()
    case = Cell("vit-clean", f"lsq:{number_format}@vision", "id").case("top1")
    return load_margins(settings.margins).margin(case)


def better(found: Mapping[Run, Figures], model: str, number_format: str, margin: float) -> bool:
    """Return whether the goal is met for one model and format."""

    def of(objective: str, name: str) -> float:
        values = [
            figures[name]
            for run, figures in found.items()
            if (run.model, run.number_format, run.objective) == (model, number_format, objective)
        ]
        return mean(values) if values else float("nan")

    wins = [
        of("reliability", "ECE") < of("contrastive", "ECE"),
        of("reliability", "AUROC") > of("contrastive", "AUROC"),
        of("reliability", "CE") < of("contrastive", "CE"),
    ]
    return sum(wins) >= 2 and of(FP32, "top1") - of("reliability", "top1") <= margin


if __name__ == "__main__":
    sys.exit(main())
