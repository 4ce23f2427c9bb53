"""clipq's zero-shot evaluation beside CLIP_benchmark's: same shards, same model, one run.

    python benchmarks/zero_shot.py [--quick]   # speed and equal accuracy
    python benchmarks/zero_shot.py --memory    # peak memory of a large probe

Shards of JPEG images (400 x 320) are written once to a temporary folder; the model is ViT-B-32
with random weights, which costs what a trained one costs. Both tools read the shards, build the
zero-shot head and return top-1. Rounds alternate; the bounds are decoding alone and the model
alone; each runs in a process of its own, but with --quick. Both use two threads for the model, and
clipq encodes 16 images more, of its calibration split. Goals: at most 1.05 x the larger bound,
0.95 x CLIP_benchmark, equal top-1; under 2 GiB of memory beyond the model, whatever the number of
images.
"""

from __future__ import annotations

import importlib.util
import io
import json
import resource
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from benchmark import Goals, Script, lacking, quiet
from embedded import REPOSITORY, predictions
from PIL import Image
from random_models import SMALL, image_size
from safetensors.torch import save_file

from clipq.evaluation.evaluator import Evaluator
from clipq.metrics import metrics
from clipq.settings import load_settings

CLASSES = ("a fox", "an owl", "a newt", "a hare", "a crow", "an eel", "a bee", "a toad")
TEMPLATES = ("a photo of {c}.", "a drawing of {c}.", "a blurry photo of {c}.")
_SMALL_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "patch_size": 32, "width": 64, "layers": 2},
    "text_cfg": {"width": 64, "heads": 2, "layers": 2},
}
SETTINGS = """
[clipq]
threads = {threads}
batch_size = 64
[matrix]
quantizers = ["rtn:w8"]
metrics = ["top1"]
[[models]]
name = "model"
source = "local-dir:{model}"
[[probes]]
name = "id"
role = "in-distribution"
source = "webdataset:data"
[[probes]]
name = "calibration"
role = "calibration"
source = "webdataset:data"
split = "calibration"
"""


def write_data(root: Path, split: str, count: int, *, seed: int, size: tuple[int, int]) -> None:
    """Write shards of smooth random JPEG images: they decode at the speed of photographs."""
    rng = np.random.default_rng(seed)
    folder = root / "data" / split
    folder.mkdir(parents=True)
    each = max(16, min(1000, count // 4))  # a loader's workers need a shard each
    shards = -(-count // each)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for index in range(shard * each, min(count, (shard + 1) * each)):
                coarse = rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
                stream = io.BytesIO()
                image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
                image.save(stream, "JPEG", quality=90)
                label = str(index % len(CLASSES)).encode()
                for kind, content in (("jpg", stream.getvalue()), ("cls", label)):
                    info = tarfile.TarInfo(f"{split}-{index:06d}.{kind}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    (folder / "nshards.txt").write_text(str(shards))
    (folder.parent / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    path = folder.parent / "zeroshot_classification_templates.txt"
    path.write_text("\n".join(TEMPLATES) + "\n")


def write_model(root: Path, name: str) -> Path:
    """Save an architecture with random weights in open_clip's local layout."""
    folder = root / "model"
    folder.mkdir()
    torch.manual_seed(0)
    small = name == SMALL
    model = open_clip.CLIP(**_SMALL_CONFIG) if small else open_clip.create_model(name)
    save_file(
        {name: value.clone() for name, value in model.state_dict().items()},
        str(folder / "open_clip_model.safetensors"),
    )
    config = {
        "model_cfg": _SMALL_CONFIG if small else open_clip.get_model_config(name),
        "preprocess_cfg": {
            "size": image_size(model),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def ours(root: Path) -> float:
    """Evaluate with clipq from nothing: open, hash, decode, encode, build the head, compute."""
    settings = load_settings(root / "clipq.toml")
    shutil.rmtree(settings.cache, ignore_errors=True)
    evaluator = Evaluator(settings)
    return metrics.get("top1").compute(predictions(evaluator, "model", "fp32", "id"))


def theirs(root: Path, workers: int, threads: int) -> float:
    """Evaluate with CLIP_benchmark's own loader and metric."""
    from clip_benchmark.datasets.builder import build_wds_dataset
    from clip_benchmark.metrics.zeroshot_classification import (
        run_classification,
        zero_shot_classifier,
    )

    torch.set_num_threads(threads)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{root / 'model'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{root / 'model'}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "WebDataset.shardshuffle")
        data = str(root / "data")
        dataset = build_wds_dataset("wds/data", transform, split="test", data_dir=data)
    loader = torch.utils.data.DataLoader(
        dataset.batched(64),
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        multiprocessing_context="fork",  # as by default, but for a process that was spawned
    )
    head = zero_shot_classifier(
        model.eval(), tokenizer, dataset.classes, dataset.templates, "cpu", amp=False
    )
    # Its `accuracy`, which comes next, fails with numpy >= 2.4; this is what it does.
    logits, target = run_classification(model, head, loader, "cpu", amp=False)
    return float((logits.argmax(dim=1) == target).double().mean())


def decoding_alone(root: Path) -> None:
    settings = load_settings(root / "clipq.toml")
    evaluator = Evaluator(settings)
    transform = evaluator.encoders.model("model").preprocess
    for image in evaluator.inputs.probes["id"].images():
        transform.to_uint8(image)


def model_alone(root: Path, images: int, threads: int) -> None:
    evaluator = Evaluator(load_settings(root / "clipq.toml"))
    loaded = evaluator.encoders.model("model")
    batch = torch.rand(64, 3, *image_size(loaded.model))
    torch.set_num_threads(threads)
    with torch.inference_mode():
        for start in range(0, images, 64):
            loaded.model.encode_image(batch[: images - start])


def timed(of: Callable[..., object], *arguments: object, alone: bool) -> tuple[float, float, Any]:
    """Return seconds, processor seconds and the outcome of a call, `alone` in a process of its own.

    What one tool sets in its process, or leaves there, then serves no other. Imports are not timed.
    """
    if not alone:
        return _timed(of, *arguments)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_timed, of, *arguments).result()


def _timed(of: Callable[..., object], *arguments: object) -> tuple[float, float, Any]:
    if importlib.util.find_spec("clip_benchmark") is not None:
        import clip_benchmark.datasets.builder
        import clip_benchmark.metrics.zeroshot_classification  # noqa: F401
    before, start = _processor_seconds(), time.perf_counter()
    with quiet():
        found = of(*arguments)
    return time.perf_counter() - start, _processor_seconds() - before, found


def _processor_seconds() -> float:
    """Return those of this process and of the children that it waited for."""
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def compare(root: Path, options, goals: Goals) -> None:
    """Print what both tools and the bounds take."""
    if importlib.util.find_spec("clip_benchmark") is None:
        lacking("CLIP_benchmark is not installed: pip install clip-benchmark")
    images, threads = options.images, options.threads
    model = write_model(root, options.model)
    (root / "clipq.toml").write_text(SETTINGS.format(model=model, threads=threads))
    write_data(root, "test", images, seed=0, size=(400, 320))
    write_data(root, "calibration", 16, seed=1, size=(400, 320))
    tools = {"clipq": (ours, root)}
    for workers in (1, 2):
        name = f"CLIP_benchmark, {workers} workers, {threads} threads"
        tools[name] = (theirs, root, workers, threads)
    bounds = {
        "decoding alone": (decoding_alone, root),
        "model alone": (model_alone, root, images, threads),
    }
    found: dict[str, list[float]] = {}
    used: dict[str, list[float]] = {}
    accuracies = set()
    for number in range(options.rounds):
        for name, call in (tools | bounds).items():
            seconds, processor, outcome = timed(*call, alone=not options.quick)
            found.setdefault(name, []).append(seconds)
            used.setdefault(name, []).append(processor)
            if name in tools:
                accuracies.add(round(float(outcome), 12))
        for what, kept in (("", found), (", processor", used)):
            shown = {name: round(times[-1], 1) for name, times in kept.items()}
            print(f"round {number + 1}{what}:", shown, flush=True)
    median = {name: statistics.median(times) for name, times in found.items()}
    bound = max(median["decoding alone"], median["model alone"])
    print(f"{images} images; medians:", {name: round(value, 1) for name, value in median.items()})
    spent = {name: statistics.median(times) for name, times in used.items()}
    print("processor seconds:", {name: round(value, 1) for name, value in spent.items()})
    print(f"clipq / max(decoding, model): {median['clipq'] / bound:.2f} (goal <= 1.05)")
    fastest = min(value for name, value in median.items() if name.startswith("CLIP"))
    print(f"clipq / CLIP_benchmark at its faster: {median['clipq'] / fastest:.2f} (goal <= 0.95)")
    goals.measured(median["clipq"] <= 1.05 * bound)
    goals.measured(median["clipq"] <= 0.95 * fastest)
    goals.exact(len(accuracies) == 1)
    print(f"top-1 of all runs: {sorted(accuracies)} ({'equal' if len(accuracies) == 1 else 'NOT'})")


def memory(root: Path, options, goals: Goals) -> None:
    """Print the peak of resident memory beyond the loaded model, for a large probe."""
    model = REPOSITORY / "fixtures" / "models" / "vit-clean"
    (root / "clipq.toml").write_text(SETTINGS.format(model=model, threads=options.threads))
    images = options.memory_images
    write_data(root, "test", images, seed=0, size=(64, 64))
    write_data(root, "calibration", min(512, images), seed=1, size=(64, 64))
    evaluator = Evaluator(load_settings(root / "clipq.toml"))
    evaluator.encoders.model("model")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * resource.getpagesize() / 1024  # now, not the peak that loading had
    start = time.perf_counter()
    predictions(evaluator, "model", "fp32", "id")
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gibibytes = (after - before) / 2**20
    print(f"{images} images: {gibibytes:.2f} GiB beyond the model (goal < 2), {seconds:.0f} s")
    goals.measured(gibibytes < 2)


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about five minutes on 2 cores; --memory one minute")
    script.size("--model", full="ViT-B-32", quick=SMALL, help="as open_clip names it")
    script.size("--images", full=640, quick=32, help="of the probe")
    script.size("--rounds", full=3, quick=1, help="of everything; medians are shown")
    script.size("--threads", full=2, quick=1, help="of torch")
    script.size("--memory-images", full=50_000, quick=64, help="of the probe, with --memory")
    script.add_argument("--memory", action="store_true", help="measure memory instead")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        (memory if options.memory else compare)(Path(folder), options, goals)
    return goals.code


if __name__ == "__main__":
    sys.exit(main())
