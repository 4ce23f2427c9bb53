"""Models of Hugging Face's transformers as towers: CLIPModel, SiglipModel, and towers alone.

transformers is not imported: its models are known by their methods, and what they return by its
parts. Up to version 4 `get_image_features` returned features, from version 5 on a `ModelOutput` or,
with `return_dict` off, a tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clipq.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["features_of", "tower_of"]

_INPUTS = {"image": "pixel_values", "text": "input_ids"}


def tower_of(model: Any, kind: str) -> Callable[[Any, Any], Any] | None:
    """Return what encodes inputs, and a mask or None; None where a model is not of transformers.

    Args:
        model: CLIPModel, SiglipModel or another with `get_image_features` and `get_text_features`;
            or one tower: CLIPVisionModelWithProjection, SiglipTextModel ...
        kind: ``image`` or ``text``.
    """
    method = getattr(model, f"get_{kind}_features", None)
    if method is None and not hasattr(getattr(model, "config", None), "model_type"):
        return None
    call = model if method is None else method
    alone = method is None and not str(model.config.model_type).startswith("siglip")

    def encode(inputs: Any, mask: Any) -> Tensor:
        given = {_INPUTS[kind]: inputs} | ({} if mask is None else {"attention_mask": mask})
        result = call(**given)
        if alone and not hasattr(result, f"{kind}_embeds"):
            raise ArtifactError(
                f"{type(model).__name__} returns no {kind}_embeds: it has no projection",
                hint="give CLIPModel, or CLIPVisionModelWithProjection and "
                "CLIPTextModelWithProjection",
            )
        return features_of(result, kind)

    return encode


def features_of(result: Any, kind: str) -> Tensor:
    """Return features (B, D) of what an encoder returns.

    That is a tensor itself; of a `ModelOutput` its projected embeddings or else its pooled output;
    of a tuple the first matrix, for what comes before it are tokens (B, L, D).

    Args:
        result: of the encoder.
        kind: ``image`` or ``text``.

    Raises:
        ArtifactError: there is none.

    >>> import torch
    >>> features_of((torch.zeros(2, 5, 8), torch.ones(2, 4)), "image").shape
    torch.Size([2, 4])
    """
    for name in (f"{kind}_embeds", "pooler_output"):
        found = getattr(result, name, None)
        if found is not None:
            return _matrix(found, kind)
    if isinstance(result, tuple | list):
        matrices = [one for one in result if getattr(one, "ndim", 0) == 2]
        return _matrix(matrices[0] if matrices else result, kind)
    return _matrix(result, kind)


def _matrix(found: Any, kind: str) -> Tensor:
    if getattr(found, "ndim", 0) != 2:
        shape = getattr(found, "shape", None)
        of = f" of shape {tuple(shape)}" if shape is not None else ""
        raise ArtifactError(
            f"the {kind} tower returned {type(found).__name__}{of}, not features (B, D)",
            hint="return a matrix, one row per sample, before or after division by its length",
        )
    features: Tensor = found
    return features
