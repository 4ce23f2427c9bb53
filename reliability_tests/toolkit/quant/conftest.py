"""Tiny models of every architecture family open_clip builds, made offline from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import open_clip.coca_model
import open_clip.model
import open_clip.timm_model
import pytest
import timm
import torch
from torch import Tensor, nn

from clipq.quant import Calibration

IMAGE, WIDTH, TOKENS, VOCABULARY, EMBED = 32, 64, 12, 50, 24

VISION = {"layers": 2, "width": WIDTH, "head_width": 32, "patch_size": 8, "image_size": IMAGE}
TEXT = {
    "context_length": TOKENS,
    "vocab_size": VOCABULARY,
    "width": WIDTH,
    "heads": 2,
    "layers": 2,
}
CUSTOM_BLOCK = {"qk_norm": True, "scale_heads": True, "scale_attn_inner": True, "scale_fc": True}
COCA_TEXT = TEXT | {"embed_cls": True, "output_tokens": True, "context_length": TOKENS}
COCA_VISION = VISION | {
    "attentional_pool": True,
    "attn_pooler_queries": 5,
    "attn_pooler_heads": 2,
    "output_tokens": True,
}
MULTIMODAL = {"context_length": TOKENS, "width": WIDTH, "heads": 2, "layers": 1}


def clip(*, vision: dict = VISION, text: dict = TEXT) -> nn.Module:
    return open_clip.model.CLIP(EMBED, vision, text)


def custom_text_clip(*, vision: dict = VISION, text: dict = TEXT) -> nn.Module:
    return open_clip.model.CustomTextCLIP(EMBED, vision, text)


def coca() -> nn.Module:
    return open_clip.coca_model.CoCa(EMBED, MULTIMODAL, COCA_TEXT, COCA_VISION)


def timm_clip(name: str, **kwargs: object) -> nn.Module:
    """Return a CLIP whose vision tower is `TimmModel`, its trunk shrunk by timm's own arguments."""
    model = custom_text_clip(text=TEXT | {"no_causal_mask": True, "pool_type": "last"})
    visual = open_clip.timm_model.TimmModel("test_vit", EMBED, image_size=IMAGE, proj="linear")
    visual.trunk = timm.create_model(name, num_classes=0, **kwargs)
    visual.head = nn.Sequential(nn.Linear(visual.trunk.num_features, EMBED, bias=False))
    model.visual = visual
    return model


SMALL_VIT = {"img_size": IMAGE, "patch_size": 8, "embed_dim": WIDTH, "depth": 2, "num_heads": 2}
SMALL_SWIN = {"img_size": IMAGE, "window_size": 4, "embed_dim": 32, "depths": (1, 1)} | {
    "num_heads": (2, 2)
}
ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "vit": clip,
    "vit-attention-variants": lambda: clip(vision=VISION | CUSTOM_BLOCK, text=TEXT | CUSTOM_BLOCK),
    "vit-attentional-pool": lambda: clip(
        vision=VISION | {"attentional_pool": True, "attn_pooler_queries": 1, "attn_pooler_heads": 2}
    ),
    "vit-linear-text-projection": lambda: clip(text=TEXT | {"proj_bias": True}),
    "modified-resnet": lambda: clip(
        vision={"layers": (1, 1, 1, 1), "width": 16, "head_width": 32, "image_size": IMAGE}
    ),
    "custom-text": custom_text_clip,
    "coca": coca,
    "siglip": lambda: timm_clip("vit_base_patch16_siglip_224", **SMALL_VIT),
    "eva": lambda: timm_clip("eva02_base_patch16_clip_224", **SMALL_VIT),
    "beit": lambda: timm_clip("beit_base_patch16_224", **SMALL_VIT),
    "swin": lambda: timm_clip("swin_tiny_patch4_window7_224", **SMALL_SWIN),
    "swin-v2": lambda: timm_clip("swinv2_tiny_window8_256", **SMALL_SWIN),
    "convnext": lambda: timm_clip("test_convnext"),
    "fastvit": lambda: (
        timm_clip("test_fastvit")
        if timm.is_model("test_fastvit")
        else timm_clip("fastvit_t8", layers=(1, 1, 1, 1), embed_dims=(16, 16, 32, 32))
    ),
}


def build(name: str) -> nn.Module:
    """Return the architecture in eval mode, with weights that leave no branch idle."""
    model = ARCHITECTURES[name]().eval()
    generator = torch.Generator().manual_seed(0)
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
class Sample:
    images: Tensor
    texts: Tensor

    @property
    def calibration(self) -> Calibration:
        return Calibration(
            images=lambda: iter(self.images.split(3)), texts=lambda: iter(self.texts.split(3))
        )

    def encode(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            return model.encode_image(self.images), model.encode_text(self.texts)


@pytest.fixture(scope="session")
def sample() -> Sample:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, IMAGE, IMAGE, generator=generator)
    return Sample(images, torch.randint(1, VOCABULARY, (4, TOKENS), generator=generator))


@pytest.fixture(scope="session", params=sorted(ARCHITECTURES))
def any_model(request: pytest.FixtureRequest) -> nn.Module:
    """Each architecture in turn; shared, so no test may change it."""
    return build(request.param)


@pytest.fixture(scope="session")
def vit() -> nn.Module:
    return build("vit")


@pytest.fixture
def fresh() -> Callable[[str], nn.Module]:
    """Builder of models that a test may change."""
    return build
