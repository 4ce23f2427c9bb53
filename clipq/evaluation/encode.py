"""The expensive step: images through a tower.

Nothing but the loop and the process-wide settings that make it reproducible. Text goes through
`clipq.models.class_embeddings`, which is a few prompts per class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from clipq.data import blocks_of
from clipq.errors import SettingsError
from clipq.evaluation.process_settings import unusual_settings
from clipq.models import Preprocess
from clipq.provenance import package_versions

__all__ = [
    "encode_blocks",
    "encode_texts",
    "encoded_once",
    "environment",
    "gpu_present",
    "image_batches",
    "pin_threads",
    "resolve_device",
]


def pin_threads(threads: int) -> None:
    """Use `threads` per process; the default of 1 makes results independent of `-n`."""
    torch.set_num_threads(threads)


def gpu_present() -> bool:
    """Return whether torch sees a CUDA device."""
    return torch.cuda.is_available()


def resolve_device(wanted: str, *, worker: int = 0) -> str:
    """Return the device for a worker: ``cuda`` spreads workers over the visible devices.

    Raises:
        SettingsError: CUDA is asked for but there is none.
    """
    if wanted == "cpu":
        return wanted
    if not wanted.startswith("cuda") or not torch.cuda.is_available():
        raise SettingsError(
            f"device = {wanted!r} cannot be used on this machine",
            hint="allowed: 'cpu', or 'cuda' / 'cuda:N' where torch sees a CUDA device",
        )
    return wanted if ":" in wanted else f"cuda:{worker % torch.cuda.device_count()}"


def environment(*, device: str, threads: int, batch_size: int) -> dict[str, str | int]:
    """Return what can move a floating-point result, for records and cache keys."""
    kind = device.split(":")[0]
    versions = package_versions(("open_clip_torch", "pillow", "timm", "torchvision"))
    return {
        "torch": torch.__version__,
        **{name: version for name, version in versions.items() if name != "python"},
        "device": torch.cuda.get_device_name(device) if kind == "cuda" else "cpu",
        "isa": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "batch_size": batch_size,
        "dtype": "float32",
        **unusual_settings(),
    }


def image_batches(
    images: np.ndarray, preprocess: Preprocess, *, batch_size: int, device: str = "cpu"
) -> Iterator[torch.Tensor]:
    """Yield normalised batches (B, 3, H, W) from preprocessed uint8 images (N, H, W, 3)."""
    for block in blocks_of(images, batch_size):
        yield preprocess.normalise(block).to(device)


def encoded_once(encode: Any, inputs: torch.Tensor) -> np.ndarray:
    """Return features (B, D), float32, of one call of a tower with images or tokens (B, ...)."""
    with torch.inference_mode():
        found: np.ndarray = encode(inputs).float().cpu().numpy()
    return found


def encode_blocks(
    model: nn.Module, blocks: Iterable[np.ndarray], preprocess: Preprocess, *, device: str = "cpu"
) -> Iterator[np.ndarray]:
    """Yield image features (B, D), float32, not normalised, of blocks of uint8 (B, H, W, 3)."""
    for block in blocks:
        yield encoded_once(model.encode_image, preprocess.normalise(block).to(device))


def encode_texts(
    model: nn.Module, tokens: torch.Tensor, *, batch_size: int, device: str = "cpu"
) -> np.ndarray:
    """Return text features (M, D), float32, not normalised, of tokens (M, L)."""
    batches = torch.split(tokens, batch_size)
    return np.concatenate([encoded_once(model.encode_text, each.to(device)) for each in batches])
