"""Models: open_clip checkpoints, their identity, preprocessing and zero-shot head.

Importing this package imports neither torch nor open_clip; loading a model does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clipq.models.source import ModelIdentity, ModelSource, identity

if TYPE_CHECKING:
    from clipq.models.in_memory import model_in_memory
    from clipq.models.loading import LoadedModel, load_declared, load_model, logit_map
    from clipq.models.preprocess import Preprocess
    from clipq.models.zeroshot import class_embeddings, prompt_tokens

__all__ = [
    "LoadedModel",
    "ModelIdentity",
    "ModelSource",
    "Preprocess",
    "class_embeddings",
    "identity",
    "load_declared",
    "load_model",
    "logit_map",
    "model_in_memory",
    "prompt_tokens",
]

_LAZY = {
    "LoadedModel": "clipq.models.loading",
    "load_declared": "clipq.models.loading",
    "load_model": "clipq.models.loading",
    "logit_map": "clipq.models.loading",
    "model_in_memory": "clipq.models.in_memory",
    "Preprocess": "clipq.models.preprocess",
    "class_embeddings": "clipq.models.zeroshot",
    "prompt_tokens": "clipq.models.zeroshot",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
