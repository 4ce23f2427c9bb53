"""What quantizing costs: encoding, time and memory of each method, beside torchao's.

    python benchmarks/quantizers.py [--quick]   # all of these, one after another:
    python benchmarks/quantizers.py encode      # simulated and integer encoding against FP32
    python benchmarks/quantizers.py methods     # time and peak memory of each method
    python benchmarks/quantizers.py torchao     # the same method by torchao, on the same model

Goals: encoding weight-only at most 1.02 x FP32, w8a8 1.15 x, w8a8d 1.25 x, integer w8a8 0.70 x;
GPTQ within 300 s and any method within 2 x the memory of the FP32 model, beside one batch's
activations; not slower than torchao.

clipq's time includes what torchao does not do: checking the caller's model and counting coverage,
which takes three passes of one image and one text.

ViT-B-32 with random weights, 128 images and 128 texts of random values, two threads. Each row is a
ratio of two things timed in turn in one process; memory is sampled in a process per method.

Limits: weight-only encoding does FP32's work and no more; a static W8A8 pass adds one rounding per
layer input, 3 passes over about 1.4 GB of activations per 32 images against 283 GFLOP of products.
GPTQ's least work is one pass of the data per block with its Gram matrices, k² per row and input
width k, and out · k² for the update of each weight: about 5 TFLOP for this model.
"""

from __future__ import annotations

import copy
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from benchmark import Goals, Script, quiet
from random_models import SMALL, random_images, random_model, random_texts
from tabulate import tabulate
from torch import nn

from clipq.quant import Calibration, QuantizerSpec, quantize
from clipq.quant.explicit import make_explicit
from clipq.quant.modules import Projection

BATCH = 32
ENCODED = {
    "rtn:w8": 1.02,
    "rtn:w4g64": 1.02,
    "rtn:w8a8": 1.15,
    "rtn:w8a8d": 1.25,
    "rtn:w8a8,compute=integer": 0.70,
}
METHODS = (
    "rtn:w8a8",
    "rtn:w4a8,range=mse,wrange=mse,bias=correct",
    "smoothquant:w8a8",
    "quarot:w4a4",
    "awq:w4g64",
    "gptq:w4",
    "gptq:w4g64,order=activation",
    "raana,bits=3.3",
)
GPTQ_SECONDS, MEMORY_RATIO = 300.0, 2.0


def calibration(of: nn.Module, samples: int) -> Calibration:
    images, texts = random_images(of, samples), random_texts(of, samples)
    return Calibration(lambda: iter(images.split(BATCH)), lambda: iter(texts.split(BATCH)))


def encode(options, goals: Goals) -> None:
    float_model = random_model(options.model)
    data = calibration(float_model, 8)
    models = {
        text: quantize(float_model, QuantizerSpec.parse(f"{text}@vision"), data).model
        for text in ENCODED
    }
    images = random_images(float_model, BATCH, seed=1)
    ratios: dict[str, list[float]] = {text: [] for text in models}
    with torch.inference_mode():
        for _ in range(options.rounds + 1):
            for text, found in models.items():
                # FP32 before each, so that a noisy moment hits both.
                reference = seconds(lambda: float_model.encode_image(images))
                ratios[text].append(
                    seconds(lambda found=found: found.encode_image(images)) / reference
                )
    rows = []
    for text, goal in ENCODED.items():
        found = sorted(ratios[text][1:])
        middle = statistics.median(found)
        goals.measured(middle <= goal)
        rows.append((text, f"{middle:.3f}", f"{found[0]:.3f} to {found[-1]:.3f}", goal))
    print(tabulate(rows, ("quantizer", "time / FP32", f"{options.rounds} rounds", "goal")))


def methods(options, goals: Goals) -> None:
    rows = []
    # Freed tensors go back to the system at once: counted is what is held, not what the allocator
    # keeps for later. That costs time, so time is taken in a process of its own.
    eager = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    for text in options.quantizers:
        (took,) = alone("time", text, options, {})
        peak, batch = alone("memory", text, options, eager)
        goals.measured(round(peak - batch, 1) <= MEMORY_RATIO)
        goals.measured(took <= GPTQ_SECONDS or not text.startswith("gptq"))
        rows.append((text, f"{took:.1f} s", f"{peak:.2f}", f"{batch:.2f}"))
        print(tabulate(rows[-1:], tablefmt="plain"), flush=True)
    headers = ("quantizer", "time", "peak memory / FP32 model", "of which one FP32 batch")
    print(tabulate(rows, headers))


def alone(what: str, text: str, options, environment: dict[str, str]) -> list[float]:
    """Return the numbers that a part prints in a process of its own."""
    sizes = ["--model", options.model]
    sizes += ["--samples", str(options.samples), "--threads", str(options.threads)]
    done = subprocess.run(
        [sys.executable, __file__, what, "--quantizers", text, *sizes],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return [float(x) for x in done.stdout.split()]


def warm(name: str, samples: int) -> tuple[nn.Module, Calibration]:
    """Return model and data after a pass, whose threads and kernels are no cost of quantizing."""
    float_model = random_model(name)
    data = calibration(float_model, samples)
    encode_batch(float_model, data)
    return float_model, data


def encode_batch(found: nn.Module, data: Calibration) -> None:
    with torch.inference_mode():
        found.encode_image(next(data.images()))
        found.encode_text(next(data.texts()))


def print_time(options, _: Goals) -> None:
    (text,) = options.quantizers
    float_model, data = warm(options.model, options.samples)
    print(seconds(lambda: quantize(float_model, QuantizerSpec.parse(text), data)))


def print_memory(options, _: Goals) -> None:
    """Print peak memory, and that of encoding one FP32 batch, over the model's size."""
    (text,) = options.quantizers
    # Data are streamed: more batches hold no more memory.
    float_model, data = warm(options.model, min(options.samples, 2 * BATCH))
    size = sum(p.nbytes for p in float_model.parameters())
    before = resident()
    with sampled_peak() as batch:
        encode_batch(float_model, data)
    with sampled_peak() as peak:
        quantize(float_model, QuantizerSpec.parse(text), data)
    # The float model itself lies within `before`.
    print((peak[0] - before + size) / size, (batch[0] - before) / size)


def torchao(options, goals: Goals) -> None:
    from torchao.prototype.awq import AWQConfig
    from torchao.prototype.smoothquant import SmoothQuantConfig
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    explicit = random_model(options.model)
    data = calibration(explicit, options.torchao_samples)
    make_explicit(explicit, "both")  # torchao sees linear layers only

    def run_data(found: nn.Module) -> None:
        with torch.no_grad():
            for images in data.images():
                found.encode_image(images)
            for texts in data.texts():
                found.encode_text(texts)

    def linear(module: nn.Module, _: str) -> bool:
        # Not the bare projections, which torchao's observers cannot stand for.
        return isinstance(module, nn.Linear) and not isinstance(module, Projection)

    def rtn() -> None:
        quantize_(copy.deepcopy(explicit), Int8WeightOnlyConfig(version=2), linear)

    def smoothquant() -> None:
        found = copy.deepcopy(explicit)
        base = Int8DynamicActivationInt8WeightConfig(version=2)
        quantize_(found, SmoothQuantConfig(base, step="prepare", alpha=0.5), linear)
        run_data(found)
        quantize_(found, SmoothQuantConfig(base, step="convert", alpha=0.5))

    def awq() -> None:
        found = copy.deepcopy(explicit)
        base = Int8WeightOnlyConfig(version=2)
        quantize_(found, AWQConfig(base, step="prepare"), linear)
        run_data(found)
        quantize_(found, AWQConfig(base, step="convert"))

    rows = []
    for text, theirs in (
        ("rtn:w8", rtn),
        ("smoothquant:w8a8d", smoothquant),
        ("awq:w8,clip=none", awq),
    ):
        spec, ratios = QuantizerSpec.parse(text), []
        if text == "rtn:w8":  # which is short enough for a first pass to show
            theirs()
            quantize(explicit, spec, data)
        for _ in range(options.torchao_rounds):
            other = seconds(theirs)
            ratios.append(seconds(lambda spec=spec: quantize(explicit, spec, data)) / other)
        goals.measured(statistics.median(ratios) <= 1.0)
        shown = ", ".join(f"{x:.2f}" for x in sorted(ratios))
        rows.append((text, f"{other:.1f} s", f"{statistics.median(ratios):.2f}", shown))
        print(tabulate(rows[-1:], tablefmt="plain"), flush=True)
    print(tabulate(rows, ("quantizer", "torchao", "clipq / torchao", "rounds")))


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@contextmanager
def sampled_peak() -> Iterator[list[int]]:
    """Yield a list whose one entry is, at the end, the largest resident memory meanwhile."""
    peak, stop = [resident()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


PARTS = {"encode": encode, "methods": methods, "torchao": torchao}
_ALONE = {"time": print_time, "memory": print_memory}


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about an hour on 2 cores, `encode` two minutes of it")
    script.add_argument(
        "part",
        nargs="?",
        choices=(*PARTS, *_ALONE),
        help="default: encode, methods and torchao; `methods` runs the others in processes",
    )
    script.size("--model", full="ViT-B-32", quick=SMALL, help="as open_clip names it")
    script.size("--quantizers", full=METHODS, quick=("gptq:w4",), help="of `methods`")
    script.size("--samples", full=128, quick=4, help="images and texts of `methods`")
    script.size("--threads", full=2, quick=1, help="of torch")
    script.size("--rounds", full=7, quick=2, help="of `encode`")
    script.size("--torchao-samples", full=32, quick=4, help="images and texts of `torchao`")
    script.size("--torchao-rounds", full=3, quick=1, help="of `torchao`")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with quiet():
            for name in (options.part,) if options.part else PARTS:
                (PARTS | _ALONE)[name](options, goals)
    finally:
        torch.set_num_threads(threads)
    return goals.code


if __name__ == "__main__":
    sys.exit(main())
