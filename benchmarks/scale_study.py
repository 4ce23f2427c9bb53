"""The study at ImageNet size, as jobs for `cluster_simulation`: what it costs, and how we know.

A number is *counted* (of architectures and data sets), *measured* (by this project, at the place
that is named beside it), or *assumed*: `Assumptions` has all of these, so that each can be varied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from cluster_simulation import Job

__all__ = [
    "CELLS",
    "COMPACTED_ROW_BYTES",
    "IMAGES",
    "MODELS",
    "PART_ROW_BYTES",
    "Assumptions",
    "Model",
    "jobs",
    "judge_core_s",
]


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint; counted with torch's FLOP counter on open_clip's architectures.

    Args:
        name: of its architecture, and of its data where an architecture is there twice.
        image_gflop: of one image; a multiplication with its addition is two.
        text_gflop: of one text.
        weights: how many, of both towers.
        preprocessing: models with equal ones share decoded images; ends with their side in pixels.
    """

    name: str
    image_gflop: float
    text_gflop: float
    weights: float
    preprocessing: str

    @property
    def pixel_bytes(self) -> int:
        """Of one decoded image."""
        return 3 * int(self.preprocessing.rpartition("-")[2]) ** 2


MODELS = (
    Model("ViT-B-32", 8.82, 5.96, 151.3e6, "clip-224"),
    Model("ViT-B-16", 35.13, 5.96, 149.6e6, "clip-224"),
    Model("ViT-B-16, other data", 35.13, 5.96, 149.6e6, "clip-224"),
    Model("ViT-L-14", 162.03, 13.30, 427.6e6, "clip-224"),
    Model("ViT-L-14-336", 381.92, 13.30, 427.9e6, "clip-336"),
    Model("convnext_base_w", 40.11, 9.27, 179.4e6, "clip-256"),
    Model("convnext_large_d_320", 140.25, 17.73, 351.8e6, "clip-320"),
    Model("ViT-B-16-SigLIP", 35.42, 11.02, 203.2e6, "siglip-224"),
    Model("coca_ViT-B-32", 9.19, 5.96, 253.6e6, "clip-224"),
    Model("coca_ViT-L-14", 163.64, 13.30, 638.5e6, "clip-224"),
)

METHODS = {
    "rtn": 15.6,
    "rtn,range=mse,bias=correct": 56.5,
    "smoothquant": 26.0,
    "awq": 136.0,
    "gptq": 135.0,
    "gptq,order=activation": 192.0,
    "quarot": 17.1,
    "raana": 25.0,
    "lsq": 1.34,
    "lsq,objective=distil": 1.34,
    "dorefa": 1.28,
    "dorefa,objective=distil": 1.28,
    "pact": 1.37,
    "pact,objective=distil": 1.37,
    "rot+lsq": 1.92,
    "rot+lsq,objective=distil": 1.92,
}
"""Seconds that a method takes for ViT-B-32 on two processor cores (benchmarks/README.md, "Time and
memory of quantizing"); of one that trains, a step's time as a multiple of FP32's (the same,
`training_step.py`)."""
TRAINED = tuple(METHODS)[8:]
DRAWN = ("quarot", "raana", *TRAINED)
BITS, PROXIES, SCOPES, SEEDS = ("w8a8", "w6a8", "w4a8"), 3, ("vision", "both"), 3

PROBES = {
    "ImageNet validation": ("in-distribution", 50_000),
    "ImageNet-R": ("shift", 30_000),
    "ImageNet-A": ("shift", 7_500),
    "ImageNet-V2": ("shift", 10_000),
    "ImageNet-Sketch": ("shift", 50_889),
    "CIFAR-10-C": ("corruption", 750_000),
    "SSB-hard": ("ood", 49_000),
    "NINCO": ("ood", 5_879),
    "iNaturalist": ("ood", 10_000),
    "Textures": ("ood", 5_160),
    "OpenImage-O": ("ood", 15_869),
    "CounterAnimal": ("spurious", 13_100),
}
"""Roles and numbers of images. CIFAR-10-C: 10,000 images by 15 kinds and 5 severities. Near and far
sets are OpenOOD's."""
IMAGES = sum(count for _, count in PROBES.values())
TEXTS = 1000 * 80
"""Classes by templates; where the text tower stays FP32, its features are in the cache."""
_SMALL = PROBES["CIFAR-10-C"][1]

CELLS_OF = {"in-distribution": 36, "ood": 24, "shift": 5, "corruption": 6, "spurious": 4}
"""Metric cells of a probe by its role: counted in this repository's own settings."""
CELLS = sum(CELLS_OF[role] for role, _ in PROBES.values())

# Measured: "Resampling, by what is resampled" in benchmarks/README.md; 1,000 paired replicates, two
# threads, so twice the clock's seconds is what a processor did at most.
_IN_DISTRIBUTION_S = 2 * (2.6 + 0.5 + 19.2 + 1.8 + 7.3) / 50_000  # of its 36 cells, a sample
_DETECTION_S = 2 * 14.0 / 60_000  # of the 24 cells of an OOD probe, a sample of either side
_MEAN_S = 2 * 2.6 / 20 / 50_000  # of a cell of the others, a sample

# Measured: docs/kernels.md, "Speed": ViT-L/14 at batch 256 on an H100, FP32, 0.92 s; simulated w8a8
# takes 1.04 x as long by the kernels.
GPU_FLOP_S = 256 * 162.03e9 / 0.92
_SIMULATED = 1.04

# Measured: benchmarks/README.md, "Time and memory of quantizing": 1,500 JPEG images in 2.3 s by one
# thread, of 400 x 320 pixels; ImageNet's have 1.46 x as many. A 32 x 32 one to 224 x 224: 0.46 ms.
_DECODE_S, _SMALL_DECODE_S = 1.46 * 2.3 / 1500, 0.46e-3
# Measured: sha256 of one thread, at a load of 12.
_HASH_BYTES_S = 1.8e9
# Measured: benchmarks/README.md, `sweep_store.py`: 6,604 parts of 700,024 rows.
PART_ROW_BYTES, COMPACTED_ROW_BYTES = 159e6 / 700_024, 32.0e6 / 700_024


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What nobody measured here; each may be halved and doubled.

    Args:
        gpu_utilisation: FLOP/s of any model on a GPU over those of ViT-L/14, which were measured.
        cores: of a processor, for each GPU; judging and PTQ share them out evenly.
        judge_efficiency: of many cores over as many single ones.
        epochs: of training, over the 1,000 pairs of a proxy; a step is 3 passes forward.
        link_gb_s: gigabytes per second of the store that all nodes share.
        read_gb_s: likewise, of decoded images in a node, from its page cache or disks.
        jpeg_kb: kilobytes of an image as ImageNet has it.
        load_s: to make a model of weights that are there.
        start_s: of an actor, with its imports.
        ray_ms: of Ray, to send a unit to an actor and its outcome back.
    """

    gpu_utilisation: float = 1.0
    cores: float = 12.0
    judge_efficiency: float = 0.8
    epochs: float = 10.0
    link_gb_s: float = 5.0
    read_gb_s: float = 12.0
    jpeg_kb: float = 110.0
    load_s: float = 10.0
    start_s: float = 30.0
    ray_ms: float = 1.0


def jobs(models: Iterable[Model], given: Assumptions, *, actors: int) -> Iterator[Job]:
    """Yield every unit, model by model, as a plan has them.

    Args:
        models: of the study.
        given: what is assumed.
        actors: on a node, which share what it reads.
    """
    for model in models:
        for method, _, _, scope in product(METHODS, range(PROXIES), BITS, SCOPES):
            for _ in range(SEEDS if method in DRAWN else 1):
                yield _job(model, method, scope, given, actors)


def _job(model: Model, method: str, scope: str, given: Assumptions, actors: int) -> Job:
    flop_s = GPU_FLOP_S * given.gpu_utilisation
    pixels = IMAGES * model.pixel_bytes
    texts = TEXTS if scope == "both" else 0
    gflop = IMAGES * model.image_gflop + texts * model.text_gflop
    on_gpu = gflop * 1e9 * _SIMULATED / flop_s
    cores = given.cores * given.judge_efficiency
    large = IMAGES - _SMALL
    return Job(
        model.name,
        images=model.preprocessing,
        prepare_s=_prepare_s(model, method, scope, given, flop_s),
        encode_s=max(on_gpu, pixels / (given.read_gb_s * 1e9 / actors)),
        judge_s=judge_core_s() / cores,
        image_bytes=large * given.jpeg_kb * 1e3 + _SMALL * 3 * 32**2,
        decode_s=large * _DECODE_S + _SMALL * _SMALL_DECODE_S,
        verify_s=pixels / _HASH_BYTES_S,
        weight_bytes=4 * model.weights,
        load_s=given.load_s,
        part_bytes=CELLS * PART_ROW_BYTES,
    )


def _prepare_s(model: Model, method: str, scope: str, given: Assumptions, flop_s: float) -> float:
    """Return seconds of quantizing, on the processor, or of training, on the GPU."""
    share = 1.0 if scope == "both" else model.image_gflop / (model.image_gflop + model.text_gflop)
    if method in TRAINED:
        passes = given.epochs * 1000 * 3 * METHODS[method]
        return passes * (model.image_gflop + model.text_gflop) * 1e9 / flop_s
    by_weights = model.weights / MODELS[0].weights
    return METHODS[method] * 2 * by_weights * share / (given.cores * given.judge_efficiency)


def judge_core_s() -> float:
    """Return processor seconds of a unit's values and intervals."""
    known = PROBES["ImageNet validation"][1]
    seconds = 0.0
    for role, count in PROBES.values():
        if role == "in-distribution":
            seconds += count * _IN_DISTRIBUTION_S
        elif role == "ood":
            seconds += (known + count) * _DETECTION_S
        else:
            seconds += count * CELLS_OF[role] * _MEAN_S
    return seconds
