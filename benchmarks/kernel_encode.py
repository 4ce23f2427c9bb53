"""How much longer a quantized image tower takes to encode than FP32, by kernels and by reference.

    python benchmarks/kernel_encode.py [--quick] [--model ViT-L-14] [--batch 256]
    python benchmarks/kernel_encode.py --device cpu     # by reference alone

Random weights: speed does not depend on them. Each form is timed beside FP32 in the same round, and
the median of the rounds' ratios is shown. Goals, on a GPU and with kernels: simulated w8a8 at most
1.05 x FP32, the integer path at most 0.5 x. Without a GPU, only --quick and --device cpu measure.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import median

import torch
from benchmark import Goals, Script, lacking
from random_models import SMALL, random_images, random_model, random_texts
from tabulate import tabulate
from torch import Tensor, nn

from clipq.evaluation.acceleration import accelerate
from clipq.quant import Calibration, QuantizerSpec, quantize

FORMS = {"rtn:w8a8@vision": 1.05, "rtn:w8a8,compute=integer@vision": 0.5}


def seconds(model: nn.Module, images: Tensor) -> float:
    with torch.inference_mode():
        if images.is_cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        model.encode_image(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about a minute on a GPU")
    script.size("--model", full="ViT-L-14", quick=SMALL, help="as open_clip names it")
    script.size("--batch", full=256, quick=8, help="images at once")
    script.size("--rounds", full=7, quick=2, help="of each form beside FP32")
    script.add_argument("--device", choices=("cuda", "cpu"), help="a GPU, where there is one")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    here = "cuda" if torch.cuda.is_available() else "cpu"
    if here == "cpu" and options.device != "cpu" and (options.device or not options.quick):
        lacking("the goals are a GPU's, and torch sees none; --device cpu times the reference")
    device = options.device or here
    model = random_model(options.model).to(device)
    images = random_images(model, options.batch).to(device)
    few, tokens = images[:4], random_texts(model, 4).to(device)
    calibration = Calibration(images=lambda: iter([few]), texts=lambda: iter([tokens]))
    rows = []
    for text, goal in FORMS.items():
        for backend in ("reference", "triton") if images.is_cuda else ("reference",):
            made = quantize(model, QuantizerSpec.parse(text), calibration).model
            accelerate(made, backend)
            ratios, times = [], []
            seconds(model, images), seconds(made, images)
            for _ in range(options.rounds):
                plain = seconds(model, images)
                times.append(seconds(made, images))
                ratios.append(times[-1] / plain)
            row = (text, backend, f"{median(times) * 1e3:.1f}", f"{median(ratios):.2f}")
            rows.append((*row, goal if backend == "triton" else ""))
            goals.measured(backend != "triton" or median(ratios) <= goal)
    shown = torch.cuda.get_device_name() if images.is_cuda else "cpu"
    print(f"{options.model}, batch {options.batch}, {shown}, torch {torch.__version__}")
    print(tabulate(rows, ("quantizer", "backend", "ms", "x FP32", "goal"), disable_numparse=True))
    return goals.code


if __name__ == "__main__":
    sys.exit(main())
