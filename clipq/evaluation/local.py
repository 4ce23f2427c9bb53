"""GL-MCM: the concept-matching score of an image's most in-distribution patch, added to its own.

Miyai et al. 2023, "Zero-shot in-distribution detection in multi-object settings using
vision-language foundation models". Local features are what the last attention gives a token that
attends to itself alone, which is its value path, projected as the class token is. The attention
module of the tower under test computes them, so quantized layers stay quantized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clipq.errors import QuantizerError
from clipq.evaluation.encode import image_batches
from clipq.metrics.features import unit
from clipq.metrics.scores import mcm
from clipq.provenance import digest

if TYPE_CHECKING:
    from clipq.cases import Cell
    from clipq.evaluation.cache import Table
    from clipq.evaluation.evaluator import Evaluator

__all__ = ["gl_mcm", "local_features"]

_VERSION = 1


def gl_mcm(evaluator: Evaluator, cell: Cell) -> np.ndarray:
    """Return MCM + the largest MCM of a patch (N,), T = 1; higher = more in-distribution.

    Raises:
        QuantizerError: the image tower exposes no tokens that could be projected.
    """
    head = evaluator.encodings.head(cell.candidate).embeddings.astype(np.float64)

    def create() -> Table:
        encoder = evaluator.encoders.encoder(cell.candidate)
        preprocess, device = encoder.loaded.preprocess, encoder.device
        images = evaluator.inputs.images(cell.probe, preprocess)
        size = evaluator.settings.batch_size
        largest = []
        with evaluator.encoders.contained(cell.candidate, f"encoding patches of {cell.probe!r}"):
            for batch in image_batches(images, preprocess, batch_size=size, device=device):
                local = local_features(encoder.module, batch).cpu().numpy()
                patches = mcm(unit(local.reshape(-1, local.shape[-1])) @ head.T)
                largest.append(patches.reshape(local.shape[:2]).max(axis=1))
        return {"local": np.concatenate(largest)}, {}

    key = digest(
        {
            "identity": evaluator.encodings.identity(cell),
            "encoder": evaluator.encoders.identity(cell.candidate),
            "version": _VERSION,
        }
    )
    local, _ = evaluator.cache.table("local", key, create)
    return evaluator.evaluate(cell).predictions.column("mcm") + local["local"]


def local_features(encoder: torch.nn.Module, images: Tensor) -> Tensor:
    """Return local features (N, L, D) of the patches of normalised images (N, 3, H, W).

    Raises:
        QuantizerError: the image tower is not a transformer with a class token and a projection.
    """
    visual: Any = getattr(encoder, "visual", None)
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    pooled = getattr(visual, "pool_type", "") == "tok" and getattr(visual, "attn_pool", 1) is None
    if blocks is None or not pooled or visual.proj is None:
        raise QuantizerError(
            f"image tower {type(visual).__name__} exposes no tokens with a projection of their own",
            hint="GL-MCM needs open_clip's VisionTransformer with a class token",
        )
    attention: Any = blocks[-1].attn
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(arguments[0] if arguments else named["query"])

    handle = attention.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.inference_mode():
            encoder.encode_image(images)  # type: ignore[operator]
    finally:
        handle.remove()
    with torch.inference_mode():
        tokens = seen[0][:, 1:]
        alone = tokens.reshape(-1, 1, tokens.shape[-1])
        valued = attention(alone, alone, alone, need_weights=False)[0]
        normed = visual.ln_post(valued.reshape(tokens.shape))
        proj = visual.proj
        projected: Tensor = proj(normed) if callable(proj) else normed @ proj
    return projected.float()
