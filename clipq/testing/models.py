"""Small CLIPs of every family that open_clip builds, made offline from a seed in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import open_clip.coca_model
import open_clip.model
import open_clip.timm_model
import timm
import torch
from torch import Tensor, nn

from clipq.quant import Calibration

__all__ = ["SMALL_CLIPS", "SmallInputs", "small_clip"]

_IMAGE, _WIDTH, _TOKENS, _VOCABULARY, _EMBED = 32, 64, 12, 50, 24

_Config = Mapping[str, Any]
_VISION: _Config = {
    "layers": 2,
    "width": _WIDTH,
    "head_width": 32,
    "patch_size": 8,
    "image_size": _IMAGE,
}
_TEXT: _Config = {
    "context_length": _TOKENS,
    "vocab_size": _VOCABULARY,
    "width": _WIDTH,
    "heads": 2,
    "layers": 2,
}
_CUSTOM_BLOCK: _Config = {
    "qk_norm": True,
    "scale_heads": True,
    "scale_attn_inner": True,
    "scale_fc": True,
}
_POOL: _Config = {"attentional_pool": True, "attn_pooler_heads": 2}
_SMALL_VIT: _Config = {
    "img_size": _IMAGE,
    "patch_size": 8,
    "embed_dim": _WIDTH,
    "depth": 2,
    "num_heads": 2,
}
_SMALL_SWIN: _Config = {
    "img_size": _IMAGE,
    "window_size": 4,
    "embed_dim": 32,
    "depths": (1, 1),
    "num_heads": (2, 2),
}


def _clip(*, vision: _Config = _VISION, text: _Config = _TEXT) -> nn.Module:
    model: nn.Module = open_clip.model.CLIP(_EMBED, dict(vision), dict(text))
    return model


def _custom_text_clip(*, vision: _Config = _VISION, text: _Config = _TEXT) -> nn.Module:
    model: nn.Module = open_clip.model.CustomTextCLIP(_EMBED, dict(vision), dict(text))
    return model


def _coca() -> nn.Module:
    text = {**_TEXT, "embed_cls": True, "output_tokens": True}
    vision = {**_VISION, **_POOL, "attn_pooler_queries": 5, "output_tokens": True}
    captions = {"context_length": _TOKENS, "width": _WIDTH, "heads": 2, "layers": 1}
    model: nn.Module = open_clip.coca_model.CoCa(_EMBED, captions, text, vision)
    return model


def _timm_clip(name: str, **kwargs: Any) -> nn.Module:
    """Return a CLIP whose vision tower is `TimmModel`, its trunk shrunk by timm's own arguments."""
    model: Any = _custom_text_clip(text={**_TEXT, "no_causal_mask": True, "pool_type": "last"})
    visual: Any = open_clip.timm_model.TimmModel(
        "test_vit", _EMBED, image_size=_IMAGE, proj="linear"
    )
    visual.trunk = timm.create_model(name, num_classes=0, **kwargs)
    visual.head = nn.Sequential(nn.Linear(visual.trunk.num_features, _EMBED, bias=False))
    model.visual = visual
    result: nn.Module = model
    return result


def _fastvit() -> nn.Module:
    if timm.is_model("test_fastvit"):
        return _timm_clip("test_fastvit")
    return _timm_clip("fastvit_t8", layers=(1, 1, 1, 1), embed_dims=(16, 16, 32, 32))


_FAMILIES: Mapping[str, Callable[[], nn.Module]] = {
    "beit": lambda: _timm_clip("beit_base_patch16_224", **_SMALL_VIT),
    "coca": _coca,
    "convnext": lambda: _timm_clip("test_convnext"),
    "custom-text": _custom_text_clip,
    "eva": lambda: _timm_clip("eva02_base_patch16_clip_224", **_SMALL_VIT),
    "fastvit": _fastvit,
    "modified-resnet": lambda: _clip(
        vision={"layers": (1, 1, 1, 1), "width": 16, "head_width": 32, "image_size": _IMAGE}
    ),
    "siglip": lambda: _timm_clip("vit_base_patch16_siglip_224", **_SMALL_VIT),
    "swin": lambda: _timm_clip("swin_tiny_patch4_window7_224", **_SMALL_SWIN),
    "swin-v2": lambda: _timm_clip("swinv2_tiny_window8_256", **_SMALL_SWIN),
    "vit": _clip,
    "vit-attention-variants": lambda: _clip(
        vision={**_VISION, **_CUSTOM_BLOCK}, text={**_TEXT, **_CUSTOM_BLOCK}
    ),
    "vit-attentional-pool": lambda: _clip(vision={**_VISION, **_POOL, "attn_pooler_queries": 1}),
    "vit-linear-text-projection": lambda: _clip(text={**_TEXT, "proj_bias": True}),
}
SMALL_CLIPS: tuple[str, ...] = tuple(sorted(_FAMILIES))
"""Names of the families that `small_clip` builds."""


def small_clip(family: str = "vit", *, seed: int = 0) -> nn.Module:
    """Return an open_clip model of a family, in eval mode, with weights that leave no branch idle.

    Args:
        family: one of `SMALL_CLIPS`.
        seed: of the weights; the global generator is left where it was.

    >>> model = small_clip("vit", seed=0)
    >>> sum(parameter.numel() for parameter in model.parameters()) < 250_000
    True
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _FAMILIES[family]().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.dim() >= 2:
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
            elif key.endswith("weight") or "gamma" in key:
                tensor.copy_(1 + 0.1 * noise)
            else:
                tensor.add_(0.1 * noise)
    return model


@dataclass(frozen=True)
class SmallInputs:
    """Images and texts that every small CLIP can encode.

    Args:
        count: of each.
        seed: of their values.

    Attributes:
        images: (count, 3, 32, 32) float32, standard normal.
        texts: (count, 12) int64.

    >>> inputs = SmallInputs(count=2)
    >>> [tuple(features.shape) for features in inputs.encode(small_clip())]
    [(2, 24), (2, 24)]
    """

    count: int = 4
    seed: int = 1
    images: Tensor = field(init=False)
    texts: Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        images = torch.randn(self.count, 3, _IMAGE, _IMAGE, generator=generator)
        texts = torch.randint(1, _VOCABULARY, (self.count, _TOKENS), generator=generator)
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "texts", texts)

    @property
    def calibration(self) -> Calibration:
        """The same, in batches of at most three."""
        return Calibration(
            images=lambda: iter(torch.split(self.images, 3)),
            texts=lambda: iter(torch.split(self.texts, 3)),
        )

    def encode(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Return features of images and texts, (count, 24) each, without gradients."""
        images = self.images.to(next(model.parameters()).dtype)
        with torch.inference_mode():
            return (
                model.encode_image(images),  # type: ignore[operator]
                model.encode_text(self.texts),  # type: ignore[operator]
            )
