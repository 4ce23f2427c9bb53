"""What an artifact is made of: the two towers apart, calibration data, and a quiet process."""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipq.errors import ArtifactError

__all__ = ["Source", "TowerSource", "quiet_process", "source_of", "state_sha256"]

_SEED = 0
_TRACED_WITH = 2  # a batch of one would be taken for a constant
_CALIBRATION_BATCH = 32


class _ImageTower(nn.Module):
    """A module whose `forward` is a model's `encode_image`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        features: Tensor = self.model.encode_image(pixel_values)  # type: ignore[operator]
        return features


class _TextTower(nn.Module):
    """A module whose `forward` is a model's `encode_text`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        features: Tensor = self.model.encode_text(input_ids)  # type: ignore[operator]
        return features


@dataclass(frozen=True, slots=True, eq=False)
class TowerSource:
    """One tower as it is exported.

    Args:
        kind: ``image`` or ``text``.
        input: name of its input.
        module: takes (B, 3, H, W) or (B, L), returns features (B, D) as open_clip does, and holds
            no weight of the other tower.
        samples: calibration images (N, 3, H, W) float32 or tokens (M, L) int64.
        batch: the only one that its graph is to take; 0 for any.
    """

    kind: str
    input: str
    module: nn.Module
    samples: Tensor
    batch: int = 0

    @property
    def example(self) -> Tensor:
        """What a graph is traced with: zeros, since a program keeps what it was traced with."""
        size = self.batch or _TRACED_WITH
        return torch.zeros(size, *self.samples.shape[1:], dtype=self.samples.dtype)

    @property
    def batches(self) -> tuple[Tensor, ...]:
        """Calibration samples in batches that the graph takes.

        Of samples that fill no batch, the last are left out, or the first are repeated.
        """
        if not self.batch:
            return torch.split(self.samples, _CALIBRATION_BATCH)
        times = -(-self.batch // len(self.samples))
        enough = torch.cat([self.samples] * times)
        return torch.split(enough[: len(enough) // self.batch * self.batch], self.batch)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A private copy of a model, on the CPU, in eval mode, and its towers.

    Args:
        model: both towers.
        image: the image tower, with calibration images.
        text: the text tower, with calibration tokens.
    """

    model: nn.Module
    image: TowerSource
    text: TowerSource

    @property
    def towers(self) -> tuple[TowerSource, TowerSource]:
        """Image and text."""
        return self.image, self.text

    def of(self, model: nn.Module) -> Source:
        """Return the same calibration data with another form of the model, which is not copied."""
        return _source(model, self.image.samples, self.text.samples, self.image.batch)


def source_of(model: nn.Module, images: Tensor, tokens: Tensor, *, batch: int = 0) -> Source:
    """Return a model as recipes take it.

    Args:
        model: has open_clip's `encode_image` and `encode_text`; it stays as it is.
        images: (N, 3, H, W) float32, normalised.
        tokens: (M, L) int64.
        batch: the only one that graphs are to take; 0 for any.

    Raises:
        ArtifactError: it is no such model, or the data are misshapen or not finite.

    >>> from pathlib import Path
    >>> from clipq.models import ModelSource, load_model
    >>> name = "local-dir:fixtures/models/vit-clean"
    >>> loaded = load_model(ModelSource.parse(name, base_dir=Path()))
    >>> tokens = loaded.tokenizer(["a red circle"])
    >>> source = source_of(loaded.model, torch.zeros(4, 3, 32, 32), tokens)
    >>> [(tower.kind, tower.input, tuple(tower.example.shape)) for tower in source.towers]
    [('image', 'pixel_values', (2, 3, 32, 32)), ('text', 'input_ids', (2, 16))]
    """
    _check(model, images, tokens)
    private = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    return _source(private, images.detach().cpu(), tokens.detach().cpu(), batch)


def _source(private: nn.Module, images: Tensor, tokens: Tensor, batch: int) -> Source:
    image = _ImageTower(_reduced(private, keep=("visual",))).eval()
    text = _TextTower(_reduced(private, drop=("visual", "text_decoder"))).eval()
    for reduced, sample, encode in (
        (image, images[:1], private.encode_image),
        (text, tokens[:1], private.encode_text),
    ):
        _use_whole_where_reduced_differs(reduced, sample, encode, private)
    return Source(
        private,
        TowerSource("image", "pixel_values", image, images, batch),
        TowerSource("text", "input_ids", text, tokens, batch),
    )


def _check(model: nn.Module, images: Tensor, tokens: Tensor) -> None:
    missing = [name for name in ("encode_image", "encode_text") if not hasattr(model, name)]
    if missing:
        raise ArtifactError(
            f"{type(model).__name__} has no {' and no '.join(missing)}",
            hint="pass a model made by open_clip.create_model",
        )
    if images.dim() != 4 or not len(images) or images.dtype != torch.float32:
        raise ArtifactError(
            f"calibration images are {images.dtype} of shape {tuple(images.shape)}",
            hint="pass float32 of shape (N, 3, H, W) with N > 0, normalised as the model is fed",
        )
    if tokens.dim() != 2 or not len(tokens) or tokens.dtype != torch.int64:
        raise ArtifactError(
            f"calibration tokens are {tokens.dtype} of shape {tuple(tokens.shape)}",
            hint="pass int64 of shape (M, L) with M > 0, as the model's tokenizer returns them",
        )
    if not bool(images.isfinite().all()):
        raise ArtifactError(
            "calibration images hold NaN or infinity",
            hint="pass the pixels that the model is fed; ranges are taken from them",
        )


def _reduced(
    model: nn.Module, *, keep: tuple[str, ...] = (), drop: tuple[str, ...] = ()
) -> nn.Module:
    """Return a twin that shares a model's parts but for some; exporters store what they are given.

    Args:
        model: as it is.
        keep: the only modules that are kept, and no parameter; () to go by `drop`.
        drop: modules that are not.
    """
    twin = copy.copy(model)
    parts = {
        name: part
        for name, part in model._modules.items()
        if (name in keep if keep else name not in drop)
    }
    twin._modules = parts
    scales = ("logit_scale", "logit_bias")  # of the loss: no part of either tower
    twin._parameters = {
        name: None if keep or name in scales else part for name, part in model._parameters.items()
    }
    twin._buffers = {name: None if keep else part for name, part in model._buffers.items()}
    return twin


def _use_whole_where_reduced_differs(
    tower: Any, sample: Tensor, encode: Any, whole: nn.Module
) -> None:
    """Let a tower hold the whole model where half of one is not enough: no open_clip model's."""
    with torch.no_grad():
        expected = encode(sample)
        try:
            same = torch.equal(tower(sample), expected)
        except Exception:  # whatever a foreign model raises when a part of it is gone
            same = False
    if not same:
        tower.model = whole


@contextmanager
def quiet_process() -> Iterator[None]:
    """Seed every generator, turn torch's fused attention off, hold talk back; undo it all.

    The fused attention of `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` hides products
    from exporters. What libraries warn of is their own deprecations, they log their own steps and
    advice that recipes follow already, and they print progress bars.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    python, numpy = random.getstate(), np.random.get_state()
    logged = logging.root.manager.disable
    logging.disable(max(logged, logging.WARNING))
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
            random.seed(_SEED)
            np.random.seed(_SEED)  # libraries draw from the global generator
            torch.manual_seed(_SEED)
            aside = io.StringIO()
            with warnings.catch_warnings(), redirect_stdout(aside), redirect_stderr(aside):
                warnings.simplefilter("ignore")
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        logging.disable(logged)
        random.setstate(python)
        np.random.set_state(numpy)


def state_sha256(model: nn.Module) -> str:
    """Return the sha256 (hex) of a model's tensors: names, types, shapes and values.

    >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> state_sha256(first) == state_sha256(second), len(state_sha256(first))
    (False, 64)
    """
    total = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        plain = values.detach().cpu().contiguous()
        total.update(f"{name}|{plain.dtype}|{tuple(plain.shape)}|".encode())
        total.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
