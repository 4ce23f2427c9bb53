"""Encoding throughput of the evaluation loop against the bare `model.encode_image` loop.

    python benchmarks/encode_throughput.py [--rounds 5] [--images 96]

ViT-B-32 with random weights. Both loops run in turn in one process, A B A B ..., on the same
images: clipq's from the uint8 file (normalising on the way), the bare one from float tensors that
are already in memory. The figure is bare time / clipq time, per round; 1.00 is the limit.

Physical limit: ViT-B-32 takes 4.4 GFLOP x 2 an image; normalising one takes 0.6 MFLOP and reads
0.15 MB, so the loop itself may cost far below 1 %.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2

from clipq.data import blocks_of
from clipq.evaluation.encode import encode_blocks, image_batches
from clipq.models import Preprocess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None).eval()
    config = PreprocessCfg()
    preprocess = Preprocess(image_transform_v2(config, is_train=False), config)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.images, 224, 224, 3), dtype=np.uint8)
    tensors = list(image_batches(images, preprocess, batch_size=options.batch))

    def bare() -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([model.encode_image(batch) for batch in tensors]).numpy()

    def clipq() -> np.ndarray:
        blocks = blocks_of(images, options.batch)
        return np.concatenate(list(encode_blocks(model, blocks, preprocess)))

    if not np.array_equal(bare(), clipq()):
        raise SystemExit("the two loops disagree")
    ratios = []
    for number in range(options.rounds):
        seconds = []
        for loop in (bare, clipq):
            started = time.perf_counter()
            loop()
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[0] / seconds[1])
        print(f"round {number}: bare {seconds[0]:.2f} s, clipq {seconds[1]:.2f} s")
    print(
        f"throughput of clipq / bare: median {statistics.median(ratios):.3f}, "
        f"min {min(ratios):.3f}, max {max(ratios):.3f} (goal >= 0.95)"
    )


if __name__ == "__main__":
    main()
