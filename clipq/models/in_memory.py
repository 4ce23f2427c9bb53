"""A model that is in memory already, with what evaluating it needs beside its weights."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import nn

from clipq.errors import ModelError
from clipq.models.loading import LoadedModel, Tokenizer, logit_map
from clipq.models.preprocess import Preprocess
from clipq.models.sound_weights import check_numbers
from clipq.models.source import ModelIdentity
from clipq.provenance import digest

__all__ = ["model_in_memory"]

_SAMPLE = ["a photo of a cat.", "Zebra, 3 x 1!", "naïve façade", "underscored_name"]
"""Texts whose tokens identify a tokenizer."""


def model_in_memory(
    model: nn.Module, *, tokenizer: Tokenizer | None = None, device: str = "cpu"
) -> LoadedModel:
    """Return an open_clip model as evaluation takes it; a copy, so that the module stays as it is.

    Args:
        model: as `open_clip.create_model` returns it: with `encode_image`, `encode_text`,
            `logit_scale` and `visual.preprocess_cfg`.
        tokenizer: as `open_clip.get_tokenizer` returns it; by default CLIP's own, where the model
            has its vocabulary.
        device: where it is evaluated.

    Raises:
        ModelError: it is no open_clip model, holds NaN or infinity, has a logit scale that no
            training gives, or its tokenizer cannot be told.

    >>> model_in_memory(nn.Linear(4, 4))
    Traceback (most recent call last):
    clipq.errors.ModelError: Linear has no encode_image, encode_text, logit_scale
      fix: pass a model made by open_clip.create_model, ...
    """
    missing = [
        name for name in ("encode_image", "encode_text", "logit_scale") if not hasattr(model, name)
    ]
    config = getattr(getattr(model, "visual", None), "preprocess_cfg", None)
    if missing or config is None:
        raise ModelError(
            f"{type(model).__name__} has no {', '.join(missing) or 'visual.preprocess_cfg'}",
            hint="pass a model made by open_clip.create_model, or the text of a source, "
            "for example 'ViT-B-32/laion2b_s34b_b79k'",
        )
    model = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    check_numbers(model, f"in memory ({type(model).__name__})")
    scale, bias = logit_map(model)
    chosen = tokenizer or _default_tokenizer(model)
    plain = PreprocessCfg(**config)
    identity = ModelIdentity(
        weights_sha256=_weights_sha256(model),
        config_sha256=digest([type(model).__module__, type(model).__qualname__, str(model)]),
        tokenizer_sha256=digest(chosen(_SAMPLE).tolist()),
    )
    preprocess = Preprocess(image_transform_v2(plain, is_train=False), plain)
    return LoadedModel(model, chosen, preprocess, identity, scale, bias)


def _default_tokenizer(model: Any) -> Tokenizer:
    length, vocabulary = getattr(model, "context_length", None), getattr(model, "vocab_size", None)
    standard = open_clip.SimpleTokenizer(context_length=length or 77)
    if vocabulary != standard.vocab_size:
        raise ModelError(
            f"a text tower with {vocabulary} tokens; CLIP's own tokenizer has "
            f"{standard.vocab_size}",
            hint="pass tokenizer=open_clip.get_tokenizer('ARCHITECTURE')",
        )
    tokenizer: Tokenizer = standard
    return tokenizer


def _weights_sha256(model: nn.Module) -> str:
    total = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        plain = values.detach().cpu().contiguous()
        total.update(f"{name}|{plain.dtype}|{tuple(plain.shape)}|".encode())
        total.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
