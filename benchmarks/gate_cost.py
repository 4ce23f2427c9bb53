"""What a gate costs beside encoding: cold and warm, over bare FP32 encoding of the same images.

A gate of a few quantizers runs with an empty cache and again with what the first one kept, each in
processes of its own, as `pytest -n` runs it. Beside them FP32 encodes, once for each candidate, the
images that the gate's cells hold: a plain loop over decoded images, with nothing around it; an
adversarial probe counts with its images, and not with what the attack asks. All are seconds of
processor time, with everything in the gate's: imports, decoding, FP32's own features, quantizing,
attacks, judging, reports.

What a gate takes whatever the number of candidates weighs more here than in a whole matrix. It is
told apart by a gate of one quantizer, and the ratios are also given for as many candidates as the
settings plan. With --whole all of these are gated, of every model, and nothing is projected.
Artifacts are in neither: they have a benchmark of their own.

Goals, for the whole matrix: at most 2.0 cold, 0.35 warm.

    python benchmarks/gate_cost.py [--quick] [--models vit-clean resnet] [--workers 2]
    python benchmarks/gate_cost.py --whole
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from benchmark import Goals, Script
from embedded import REPOSITORY, embedded_settings

from clipq.evaluation.cache import Cache
from clipq.evaluation.inputs import Inputs
from clipq.evaluation.plan import plan, planned_candidates

GOALS = {"cold": 2.0, "warm": 0.35}
QUANTIZERS = ["rtn:w8", "rtn:w8a8", "gptq:w4"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and return the exit code."""
    script = Script(__doc__, takes="ten minutes on 2 cores")
    script.size("--models", full=["vit-clean"], quick=["vit-clean"], help="by name")
    script.size("--quantizers", full=QUANTIZERS, quick=QUANTIZERS[:1], help="what is gated")
    script.size("--probe", full="*", quick="digits", help="one alone; * for all")
    script.size("--workers", full=2, quick=0, help="processes, pytest's -n")
    script.add_argument("--whole", action="store_true", help="the matrix of the settings (7 min)")
    script.add_argument("--part", choices=("bare", "gate"), help="what this process is to measure")
    script.add_argument("--folder", type=Path, help="where that part keeps its cache and report")
    options = script.options(arguments)
    if options.part == "bare":
        print(json.dumps(bare(options.models, options.probe, options.folder)))
        return 0
    if options.part == "gate":
        print(json.dumps(gate(options.models, options.quantizers, options)))
        return 0
    goals = Goals(quick=options.quick)
    if options.whole:
        return whole(options, goals)
    few = options.quantizers[:1]
    found: dict[tuple[str, int], float] = {}
    with TemporaryDirectory() as folder:
        for size, quantizers in sorted(
            {1: few, len(options.quantizers): options.quantizers}.items()
        ):
            taken = gated(options, Path(folder) / str(size), quantizers, goals)
            found |= {(state, size): seconds for state, seconds in taken.items()}
        alone = measured("bare", options, Path(folder) / "1")
    each = alone["seconds"] / len(options.models)
    print(f"bare: {alone['images']:,} images of {len(options.models)} models, {each:.2f} s each")
    planned = len(planned_candidates(embedded_settings()))
    for state, goal in GOALS.items():
        seconds = {size: taken for (of, size), taken in found.items() if of == state}
        ratio = told(state, seconds, len(options.models), each, planned)
        goals.measured(ratio <= goal)
    return goals.code


def whole(options: Namespace, goals: Goals) -> int:
    """Gate every candidate of the settings, cold and warm; print the ratios."""
    planned = planned_candidates(embedded_settings())
    counts = Counter(candidate.model for candidate in planned)
    options.models = list(counts)
    quantizers = dict.fromkeys(candidate.quantizer for candidate in planned)
    with TemporaryDirectory() as folder:
        found = gated(options, Path(folder), list(quantizers), goals)
        bare_s = 0.0
        for model, count in counts.items():
            options.models = [model]
            alone = measured("bare", options, Path(folder))
            bare_s += count * alone["seconds"]
            print(f"bare, {alone['images']:,} images of {model}: {alone['seconds']:.2f} s")
    each = bare_s / len(planned)
    for state, seconds in found.items():
        ratio = told(state, {len(planned): seconds}, 1, each, len(planned))
        goals.measured(ratio <= GOALS[state])
    return goals.code


def gated(
    options: Namespace, folder: Path, quantizers: Sequence[str], goals: Goals
) -> dict[str, float]:
    """Gate with an empty cache and again; return the seconds of each state."""
    found = {}
    for state in GOALS:
        made = measured("gate", options, folder, "--quantizers", *quantizers)
        goals.exact(made["code"] == 0)
        found[state] = made["seconds"]
        print(f"{state}, {made['cases']:,} cases: {made['seconds']:.1f} s", flush=True)
    return found


def told(state: str, seconds: dict[int, float], models: int, each: float, planned: int) -> float:
    """Print a state's ratios; return the one that the goal is about."""
    most = max(seconds)
    ratio = seconds[most] / (most * models * each)
    print(f"{state}: {ratio:.2f} x bare encoding for {most * models} candidates", end="")
    if len(seconds) == 1:
        print(f" (goal {GOALS[state]:g})")
        return ratio
    further = (seconds[most] - seconds[1]) / ((most - 1) * models)
    fixed = seconds[1] - further * models
    whole = (fixed + further * planned) / (planned * each)
    print(
        f"; {further:.2f} s for each further one, {further / each:.2f} x; "
        f"projected to {planned} candidates {whole:.2f} x (goal {GOALS[state]:g})"
    )
    return whole


def measured(part: str, options: Namespace, folder: Path, *more: str) -> dict[str, float]:
    """Return what a part says that runs in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--part", part, "--folder", str(folder),
         "--probe", options.probe, "--workers", str(options.workers),
         "--models", *options.models, *more],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def gate(models: Sequence[str], quantizers: Sequence[str], options: Namespace) -> dict[str, float]:
    """Gate candidates; return cases, exit code and processor seconds, of workers too."""
    import pytest

    folder: Path = options.folder
    before = sum(os.times()[:4])
    code = pytest.main(
        ["-q", "-n", str(options.workers), "-p", "no:cacheprovider",
         f"--rootdir={REPOSITORY}", str(REPOSITORY / "reliability_tests" / "test_reliability.py"),
         f"--clipq-cache={folder / 'cache'}", f"--clipq-report={folder / 'report'}",
         f"--clipq-probe={options.probe}",
         *(f"--clipq-model={name}" for name in models),
         *(f"--clipq-quantizer={text}" for text in quantizers)]
    )  # fmt: skip
    record = json.loads((folder / "report" / "report.json").read_text())
    seconds = sum(os.times()[:4]) - before
    return {"cases": len(record["cases"]), "code": int(code), "seconds": seconds}


def bare(models: Sequence[str], probe: str, folder: Path) -> dict[str, float]:
    """Encode the images of the default profile's cells in FP32; return seconds and images."""
    import torch

    from clipq.models import load_declared

    settings = embedded_settings()
    torch.set_num_threads(settings.threads)
    inputs = Inputs(settings, Cache(folder / "cache"))
    seconds, images = 0.0, 0
    for name in models:
        loaded = load_declared(settings.model(name), root=settings.root, device="cpu")
        asked = (case.probe for case in plan(settings, profile="default") if case.model == name)
        names = [one for one in dict.fromkeys(asked) if one not in inputs.pooled]
        for of in [*names, settings.calibration.name]:
            if probe not in ("*", of) and of != settings.calibration.name:
                continue
            pixels = np.array(inputs.images(of, loaded.preprocess))
            images += len(pixels)
            start = time.process_time()
            with torch.inference_mode():
                for first in range(0, len(pixels), settings.batch_size):
                    block = pixels[first : first + settings.batch_size]
                    loaded.model.encode_image(loaded.preprocess.normalise(block))  # type: ignore[operator]
            seconds += time.process_time() - start
    return {"seconds": seconds, "images": images}


if __name__ == "__main__":
    sys.exit(main())
