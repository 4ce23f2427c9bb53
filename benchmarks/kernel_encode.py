"""How much longer a quantized image tower takes to encode than FP32, by kernels and by reference.

    python benchmarks/kernel_encode.py [--model ViT-L-14] [--batch 256] [--device cuda]

Random weights: speed does not depend on them. Each form is timed beside FP32 in the same round, and
the median of the rounds' ratios is shown. Goals, on a GPU and with kernels: simulated w8a8 at most
1.05 x FP32, the integer path at most 0.5 x.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import open_clip
import torch
from tabulate import tabulate
from torch import Tensor, nn

from clipq.evaluation.acceleration import accelerate
from clipq.quant import Calibration, QuantizerSpec, quantize

FORMS = {"rtn:w8a8@vision": 1.05, "rtn:w8a8,compute=integer@vision": 0.5}
ROUNDS = 7


def seconds(model: nn.Module, images: Tensor) -> float:
    with torch.inference_mode():
        if images.is_cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        model.encode_image(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="ViT-L-14")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = open_clip.create_model(options.model).eval().to(options.device)
    size = model.visual.image_size
    shape = (options.batch, 3, *(size if isinstance(size, tuple) else (size, size)))
    images = torch.randn(shape, device=options.device)
    few = images[:4]
    tokens = torch.randint(1, 999, (4, model.context_length), device=options.device)
    calibration = Calibration(images=lambda: iter([few]), texts=lambda: iter([tokens]))
    rows = []
    for text, goal in FORMS.items():
        for backend in ("reference", "triton") if images.is_cuda else ("reference",):
            made = quantize(model, QuantizerSpec.parse(text), calibration).model
            accelerate(made, backend)
            ratios, times = [], []
            seconds(model, images), seconds(made, images)
            for _ in range(ROUNDS):
                plain = seconds(model, images)
                times.append(seconds(made, images))
                ratios.append(times[-1] / plain)
            row = (text, backend, f"{median(times) * 1e3:.1f}", f"{median(ratios):.2f}")
            rows.append((*row, goal if backend == "triton" else ""))
    device = torch.cuda.get_device_name() if images.is_cuda else "cpu"
    print(f"{options.model}, batch {options.batch}, {device}, torch {torch.__version__}")
    print(tabulate(rows, ("quantizer", "backend", "ms", "x FP32", "goal"), disable_numparse=True))


if __name__ == "__main__":
    main()
