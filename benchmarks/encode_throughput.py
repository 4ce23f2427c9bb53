"""Encoding throughput of the evaluation loop against the bare `model.encode_image` loop.

    python benchmarks/encode_throughput.py [--quick] [--rounds 5] [--images 96]

ViT-B-32 with random weights. Both loops run in turn in one process, A B A B ..., on the same
images: clipq's from the uint8 file (normalising on the way), the bare one from float tensors that
are already in memory. The figure is bare time / clipq time, per round; 1.00 is the limit. Goals: at
least 0.95 in the median, and equal features.

Physical limit: ViT-B-32 takes 4.4 GFLOP x 2 an image; normalising one takes 0.6 MFLOP and reads
0.15 MB, so the loop itself may cost far below 1 %.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from benchmark import Goals, Script
from open_clip.transform import PreprocessCfg, image_transform_v2
from random_models import SMALL, image_size, random_model

from clipq.data import blocks_of
from clipq.evaluation.encode import encode_blocks, image_batches
from clipq.models import Preprocess

GOAL = 0.95


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about half a minute on 2 cores")
    script.size("--model", full="ViT-B-32", quick=SMALL, help="as open_clip names it")
    script.size("--rounds", full=5, quick=2, help="of both loops")
    script.size("--images", full=96, quick=8, help="in a round")
    script.size("--batch", full=32, quick=4, help="images in a batch")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    model = random_model(options.model)
    size = image_size(model)
    config = PreprocessCfg(size=size)
    preprocess = Preprocess(image_transform_v2(config, is_train=False), config)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.images, *size, 3), dtype=np.uint8)
    tensors = list(image_batches(images, preprocess, batch_size=options.batch))

    def bare() -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([model.encode_image(batch) for batch in tensors]).numpy()

    def clipq() -> np.ndarray:
        blocks = blocks_of(images, options.batch)
        return np.concatenate(list(encode_blocks(model, blocks, preprocess)))

    if not np.array_equal(bare(), clipq()):
        print("the two loops disagree")
        goals.exact(False)
    ratios = []
    for number in range(options.rounds):
        seconds = []
        for loop in (bare, clipq):
            started = time.perf_counter()
            loop()
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[0] / seconds[1])
        print(f"round {number}: bare {seconds[0]:.2f} s, clipq {seconds[1]:.2f} s")
    middle = statistics.median(ratios)
    print(
        f"throughput of clipq / bare: median {middle:.3f}, "
        f"min {min(ratios):.3f}, max {max(ratios):.3f} (goal >= {GOAL})"
    )
    goals.measured(middle >= GOAL)
    return goals.code


if __name__ == "__main__":
    sys.exit(main())
