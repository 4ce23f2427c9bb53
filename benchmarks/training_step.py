"""What rounding costs a training step: time and peak memory beside the same step of FP32.

    python benchmarks/training_step.py [--quick]

A step is a batch of images through the vision tower, the mean squared distance of its features to
given ones, the gradient of all weights (and steps), and AdamW. FP32 is the model as open_clip
builds it, with packed attention. Time is a ratio of two steps taken in turn, the median over
rounds; memory is every tensor alive at once, counted as it is made and freed: parameters,
gradients, AdamW's two moments, and what the backward pass keeps.

Goals: `lsq:w4a8` at most 1.5 x the time and 1.6 x the memory of FP32, on the embedded ViT at batch
128.

Limits, of a transformer block of width d with 4 d hidden units and n tokens. Products: FP32 takes
3 (forward, both gradients) x 12 n d² multiply-accumulates, 72 n d² FLOP. Rounding its inputs, of
which queries, keys and values share one, touches 7 n d numbers in 4 passes forward and 7 backward,
8 to 12 bytes each: about 750 n d bytes. At 50 GFLOP/s and 10 GB/s of a core that is 75 n d beside
1.4 n d² ns: 1.46 x FP32 at d = 112, were FP32 products alone, and 1.07 x at d = 768. Memory: FP32
keeps 17 n d numbers of a block for the backward pass, of which layers' inputs are 7 n d; QAT keeps
the rounded inputs in their place, and the inputs as well, for the gradients of steps: (17 + 7) / 17
= 1.41 x. Rounded weights come on top, 12 d² numbers beside the 48 d² of FP32's weights, gradients
and moments.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmark import Goals, Script, quiet
from open_clip.model import CLIP
from random_models import SMALL, random_images, random_model
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clipq.quant import Calibration, QuantizerSpec
from clipq.quant.trainable import prepare

GOAL, TIME, MEMORY = "lsq:w4a8", 1.5, 1.6
QUANTIZERS = (
    GOAL,
    "lsq:w4a8z",
    "lsq:w4",
    "lsq:w4a8d",
    "lsq:w4a8,variant=absmax",
    "lsq:w4a8,learn=steps",
    "rot+lsq:w4a8",
    "pact:w4a8",
    "dorefa:w4a8",
)
EMBEDDED = Path(__file__).parents[1] / "fixtures/models/vit-clean/open_clip_config.json"


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made within, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def model(name: str) -> nn.Module:
    if name != "embedded":
        return random_model(name)
    torch.manual_seed(0)
    config = json.loads(EMBEDDED.read_text())["model_cfg"]
    text = {key: value for key, value in config["text_cfg"].items() if key != "tokenizer_kwargs"}
    return CLIP(config["embed_dim"], config["vision_cfg"], text).eval()


def step_of(found: nn.Module, learnt: list[nn.Parameter], images: Tensor) -> Callable[[], None]:
    """Return a training step that moves the parameters which are learnt."""
    with torch.no_grad():
        targets = found.encode_image(images) + 0.01
    optimiser = torch.optim.AdamW(learnt, lr=1e-6)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        (found.encode_image(images) - targets).square().mean().backward()
        optimiser.step()

    return step


def quantized_step(name: str, text: str, images: Tensor) -> Callable[[], None]:
    found = model(name)
    data = Calibration(lambda: iter([images[:32]]), lambda: iter(()))
    trainable = prepare(found, QuantizerSpec.parse(f"{text}@vision"), data)
    learnt = [*trainable.weights().values(), *trainable.steps().values()]
    return step_of(trainable.module, learnt, images)


def float_step(name: str, images: Tensor) -> Callable[[], None]:
    found = model(name)
    learnt = list(found.visual.parameters())
    for parameter in found.parameters():
        parameter.requires_grad_(False)
    for parameter in learnt:
        parameter.requires_grad_(True)
    return step_of(found, learnt, images)


def peak_bytes(make: Callable[[], Callable[[], None]]) -> int:
    """Return the most that is alive at once in making a model and taking its second step."""
    with LiveBytes() as live:
        step = make()
        step()
        live.peak = live.now
        step()
    return live.peak


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="two minutes on 2 cores")
    script.size("--model", full="embedded", quick=SMALL, help="embedded, or as open_clip names it")
    script.size("--quantizers", full=QUANTIZERS, quick=(GOAL,), help="trained quantizers")
    script.size("--batch", full=128, quick=4, help="images of a step")
    script.size("--rounds", full=31, quick=2, help="of time")
    script.size("--threads", full=2, quick=1, help="of torch")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with quiet():
            measure(options, goals)
    finally:
        torch.set_num_threads(threads)
    return goals.code


def measure(options: Any, goals: Goals) -> None:
    images = random_images(model(options.model), options.batch)
    reference = float_step(options.model, images)
    float_peak = peak_bytes(lambda: float_step(options.model, images))
    rows = []
    for text in options.quantizers:
        step = quantized_step(options.model, text, images)
        for _ in range(2):
            step(), reference()
        ratios, bare = [], []
        for _ in range(options.rounds):
            bare.append(seconds(reference))
            ratios.append(seconds(step) / bare[-1])
        took = statistics.median(ratios)
        held = peak_bytes(lambda text=text: quantized_step(options.model, text, images))
        if text == GOAL:
            goals.measured(took <= TIME)
            goals.measured(held / float_peak <= MEMORY)
        spread = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows.append(
            (
                text,
                f"{took:.2f}",
                f"{spread[0]:.2f} to {spread[2]:.2f}",
                f"{held / float_peak:.2f}",
                f"{statistics.median(bare) * 1e3:.1f} ms, {float_peak / 2**20:.1f} MiB",
            )
        )
        print(tabulate(rows[-1:], tablefmt="plain"), flush=True)
    headers = ("quantizer", "time / FP32", "middle half of rounds", "memory / FP32", "FP32")
    print(tabulate(rows, headers))


if __name__ == "__main__":
    sys.exit(main())
