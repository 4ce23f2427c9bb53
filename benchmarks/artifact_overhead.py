"""What it costs to gate an artifact in its own process, and what `clipq artifact check` takes.

    python benchmarks/artifact_overhead.py [--quick] [overhead] [integers] [check]

overhead: an artifact's features as a gate makes them (uint8 images, normalised, handed to the
process of the runtime and back) beside the bare loop over a session in one process, on float
tensors in memory; A B A B ..., the same files, threads and batches. The figure is the time of clipq
over that of the bare loop, per round. Goal: at most 1.1 in the median, with ONNX Runtime and with
OpenVINO, and equal features. Printed beside it: what a candidate costs once (process, lint, hashes,
opening), and what of a round was spent outside of the runtime.

integers: the same images through 8-bit artifacts, as a gate does, and through FP32 in torch in this
process. The figure is the time of the artifact over that of FP32; goal: below 1.

check: seconds of `clipq artifact check` on 8-bit artifacts of an embedded model, as a command.
Goal: below 30.

Physical limit of the first: images of ViT-B-32 at batch 64 are 38 MB, which two copies move in
about 10 ms; the model takes them a second or more.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from benchmark import Goals, Script, lacking, quiet
from embedded import REPOSITORY
from open_clip.transform import PreprocessCfg, image_transform_v2
from random_models import image_size, random_images, random_model, random_texts

from clipq.artifact_settings import ArtifactSettings, SessionSettings
from clipq.data import blocks_of
from clipq.errors import ArtifactError
from clipq.evaluation.artifact_files import artifact_files
from clipq.evaluation.artifact_module import ArtifactModule
from clipq.evaluation.encode import encode_blocks
from clipq.evaluation.tower_process import TowerProcess
from clipq.exports import Manifest, make
from clipq.models import ModelSource, Preprocess, load_model
from clipq.settings import ModelSettings, Settings

PARTS = ("overhead", "integers", "check")
EMBEDDED = "vit-clean"
MOST_OVERHEAD, MOST_SECONDS = 1.1, 30.0
_MADE = {"onnxruntime": "onnxruntime-dynamic", "openvino": "openvino-int8"}
_INTEGERS = ("onnxruntime-dynamic", "onnxruntime-static", "openvino-int8")


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, the images (N, H, W, 3) that it is shown, and how they are preprocessed."""

    name: str
    model: Any
    preprocess: Preprocess
    pixels: np.ndarray

    @property
    def tensors(self) -> torch.Tensor:
        return self.preprocess.normalise(self.pixels)


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="a quarter of an hour on 2 cores")
    script.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    script.size("--models", full=[EMBEDDED, "ViT-B-32"], quick=[EMBEDDED], help="weights or random")
    script.size("--runtimes", full=list(_MADE), quick=list(_MADE)[:1], help="of the overhead")
    script.size("--recipes", full=list(_INTEGERS), quick=list(_INTEGERS)[:1], help="of integers")
    script.size("--rounds", full=9, quick=2, help="of each pair of loops")
    script.size("--images", full=1024, quick=32, help="in a round; 1 of 32 of a large model")
    script.size("--batch", full=256, quick=16, help="images in a batch")
    options = script.options(arguments)
    if unknown := set(options.parts) - set(PARTS):
        script.error(f"unknown part {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")
    goals = Goals(quick=options.quick)
    parts = options.parts or (PARTS[:2] if options.quick else PARTS)
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, quiet():
        for name in options.models if {"overhead", "integers"} & set(parts) else ():
            subject = _subject(name, options.images)
            for part, measure in (("overhead", _overhead), ("integers", _integers)):
                if part in parts:
                    measure(subject, Path(folder), options, goals)
        if "check" in parts:
            _check(Path(folder), goals)
    return goals.code


def _overhead(subject: Subject, folder: Path, options: Any, goals: Goals) -> None:
    for runtime in options.runtimes:
        recipe = _MADE[runtime]
        made = _made(recipe, subject, folder)
        started = time.perf_counter()
        with _opened(made, runtime, subject, options.batch) as module:
            once = time.perf_counter() - started
            bare = _BARE[runtime](made / Manifest.read(made).image)
            batches = [part.numpy() for part in torch.split(subject.tensors, options.batch)]
            waited = _Waited(module)

            def loop(run: Any = bare, batches: Any = batches) -> np.ndarray:
                return np.concatenate([run(batch) for batch in batches])

            def gate(module: Any = module) -> np.ndarray:
                blocks = blocks_of(subject.pixels, options.batch)
                return np.concatenate(list(encode_blocks(module, blocks, subject.preprocess)))

            if not np.allclose(loop(), gate(), atol=1e-4):
                print(f"{runtime}: the two loops disagree")
                goals.exact(False)
            waited.inside = waited.outside = 0.0
            rounds = _rounds(gate, loop, options.rounds)
        shown, middle = _shown(rounds)
        handed = waited.outside / (waited.inside + waited.outside)
        goals.measured(middle <= MOST_OVERHEAD)
        print(
            f"{subject.name}, {runtime}: clipq / bare session loop {shown} (goal <= "
            f"{MOST_OVERHEAD}); handing over {100 * handed:.1f} % of it; once {once:.1f} s",
            flush=True,
        )


def _integers(subject: Subject, folder: Path, options: Any, goals: Goals) -> None:
    for recipe in options.recipes:
        made = _made(recipe, subject, folder)
        runtime = Manifest.read(made).runtime
        with _opened(made, runtime, subject, options.batch) as module:

            def encode(model: Any) -> np.ndarray:
                blocks = blocks_of(subject.pixels, options.batch)
                return np.concatenate(list(encode_blocks(model, blocks, subject.preprocess)))

            def artifact(module: Any = module, encode: Any = encode) -> Any:
                return encode(module)

            def fp32(encode: Any = encode) -> Any:
                return encode(subject.model)

            artifact(), fp32()
            shown, middle = _shown(_rounds(artifact, fp32, options.rounds))
        goals.measured(middle < 1.0)
        print(f"{subject.name}, {recipe}: time / FP32 in torch {shown} (goal < 1)", flush=True)


def _check(folder: Path, goals: Goals) -> None:
    subject = _subject(EMBEDDED, 16)
    lines = (REPOSITORY / "clipq.toml").read_text().split("[[artifacts]]")[0]
    root = REPOSITORY.as_posix()
    lines = lines.replace("local-dir:", f"local-dir:{root}/").replace(
        "dataset:", f"dataset:{root}/"
    )
    for recipe in ("onnxruntime-dynamic", "openvino-int8"):
        made = _made(recipe, subject, folder)
        manifest = Manifest.read(made)
        lines += (
            f'\n[[artifacts]]\nname = "{recipe}"\nmodel = "{EMBEDDED}"\n'
            f'runtime = "{manifest.runtime}"\nimage = "{made / manifest.image}"\n'
            f'text = "{made / manifest.text}"\nbatch = 64\n'
        )
    settings = folder / "clipq.toml"
    settings.write_text(lines)
    command = [sys.executable, "-m", "clipq", "--config", str(settings), "artifact", "check"]
    started = time.perf_counter()
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, cwd=REPOSITORY)
    seconds = time.perf_counter() - started
    wrong = (
        f", exit code {done.returncode}: {done.stderr or done.stdout}" if done.returncode else ""
    )
    goals.exact(not done.returncode)
    goals.measured(seconds < MOST_SECONDS)
    load = os.getloadavg()[0]
    print(
        f"clipq artifact check, 2 artifacts of {EMBEDDED}: {seconds:.1f} s at a load of {load:.1f} "
        f"(goal < {MOST_SECONDS:.0f} s){wrong}",
        flush=True,
    )


class _Waited:
    """Seconds of a module's calls inside of the runtime and outside."""

    def __init__(self, module: ArtifactModule) -> None:
        self.inside = self.outside = 0.0
        process, timed = module._process, module._process.timed

        def watched(tower: str, inputs: Any) -> Any:
            started = time.perf_counter()
            features, seconds = timed(tower, inputs)
            self.inside += seconds
            self.outside += time.perf_counter() - started - seconds
            return features, seconds

        process.timed = watched  # type: ignore[method-assign]


def _rounds(
    one: Callable[[], Any], other: Callable[[], Any], rounds: int
) -> list[tuple[float, float]]:
    """Return the seconds of both, in turn."""
    found = []
    for _ in range(rounds):
        seconds = []
        for loop in (one, other):
            started = time.perf_counter()
            loop()
            seconds.append(time.perf_counter() - started)
        found.append((seconds[0], seconds[1]))
    return found


def _shown(rounds: list[tuple[float, float]]) -> tuple[str, float]:
    ratios = [first / second for first, second in rounds]
    middle = statistics.median(ratios)
    fastest = min(first for first, _ in rounds) / min(second for _, second in rounds)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}; the fastest of each: {fastest:.3f}"
    return f"{middle:.3f} ({spread})", middle


def _subject(name: str, images: int) -> Subject:
    if name == EMBEDDED:
        source = ModelSource.parse(f"local-dir:fixtures/models/{name}", base_dir=REPOSITORY)
        loaded = load_model(source)
        model, preprocess = loaded.model, loaded.preprocess
    else:
        model, images = random_model(name), max(8, images // 32)
        config = PreprocessCfg(size=image_size(model))
        preprocess = Preprocess(image_transform_v2(config, is_train=False), config)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, *image_size(model), 3), dtype=np.uint8)
    return Subject(name, model, preprocess, pixels)


def _made(recipe: str, subject: Subject, folder: Path) -> Path:
    made = folder / subject.name / recipe
    if not made.exists():
        model = subject.model
        try:
            make(recipe, model, random_images(model, 16), _texts(model), made)
        except ArtifactError as error:
            lacking(str(error))
    return made


def _texts(model: Any) -> torch.Tensor:
    if hasattr(model, "vocab_size"):
        return random_texts(model, 16)
    return torch.ones((16, model.context_length), dtype=torch.int64)


@contextmanager
def _opened(made: Path, runtime: str, subject: Subject, batch: int) -> Iterator[ArtifactModule]:
    manifest = Manifest.read(made)
    session = SessionSettings(threads=1, precision="f32" if runtime == "openvino" else "")
    artifact = ArtifactSettings(
        "measured", "m", runtime, image=manifest.image, text="fp32", session=session, io=manifest.io
    )
    models = (ModelSettings("m", "local-dir:m"),)
    process = TowerProcess(artifact, Settings(made / "clipq.toml", models, (), ()))
    try:
        files = artifact_files(artifact, process, root=made)
        process.look(files.image)
        loaded: Any = SimpleNamespace(model=subject.model, preprocess=subject.preprocess)
        yield ArtifactModule(artifact, files, process, loaded, batch=batch)
    finally:
        process.close()


def _onnxruntime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    asked = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", asked)
    return lambda batch: compiled(batch)[0].copy()


_BARE = {"onnxruntime": _onnxruntime, "openvino": _openvino}


if __name__ == "__main__":
    sys.exit(main())
