"""Candidates whose logit scale is tuned: the towers of another candidate, and a scale of their own.

    rtn:w4a8@vision+logit-scale    ort-dynamic+logit-scale    fp32+logit-scale

The backbone is frozen, so that nothing is encoded but the pairs: features, class embeddings,
adversarial images and the look at other batches are the base candidate's, under its keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.data import Probe
from clipq.evaluation.inputs import caption_lines
from clipq.evaluation.predict import Head
from clipq.evaluation.scale_fit import BATCH, ROUNDS, PairFeatures, ScaleFit, fit_scale

if TYPE_CHECKING:
    from torch import nn

    from clipq.models import LoadedModel

__all__ = ["Tuning", "has_bias", "pair_features", "tune", "tuning_identity", "write_scale"]

_VERSION = 1
"""Bumped when the same features of the same pairs give another scale."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a logit scale was tuned.

    Args:
        scale: exponentiated, that cosines are multiplied by.
        bias: that is added; 0 where the model has none.
        scale_before: the candidate's own.
        bias_before: as well.
        loss: of the pairs, in nats a pair.
        loss_before: with the candidate's own scale and bias.
        objective: ``contrastive`` of CLIP, ``sigmoid`` of SigLIP.
        pairs: how many there are.
        proxy: the probe that they are of.
        proxy_fingerprint: what identifies them.

    >>> found = Tuning(16.7, 0.0, 30.9, 0.0, 1.68, 1.98, "contrastive", 1000, "proxy", "0f3c")
    >>> found.head(Head(np.eye(2), 30.9, 0.0)).logit_scale
    16.7
    """

    scale: float
    bias: float
    scale_before: float
    bias_before: float
    loss: float
    loss_before: float
    objective: str
    pairs: int
    proxy: str
    proxy_fingerprint: str

    def head(self, base: Head) -> Head:
        """Return a head with the same class embeddings and this scale and bias."""
        return Head(base.embeddings, self.scale, self.bias)

    def to_plain(self) -> dict[str, Any]:
        """Return it as a record says it."""
        return asdict(self)

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Tuning:
        """Return what `to_plain` returned."""
        return cls(**plain)


def tuning_identity(texts: str, *, sigmoid: bool) -> dict[str, Any]:
    """Return what identifies a tuned scale beside the encoder.

    Args:
        texts: key of the pairs' caption features, which is made of that of their image features.
        sigmoid: whether the loss is SigLIP's.

    >>> tuning_identity("0f3c", sigmoid=True)["objective"]
    'sigmoid'
    """
    return {
        "pairs": texts,
        "objective": _objective(sigmoid),
        "batches": [BATCH, ROUNDS],
        "version": _VERSION,
    }


def tune(
    features: PairFeatures, own: tuple[float, float], probe: Probe, *, sigmoid: bool, marked: str
) -> Tuning:
    """Return the scale and bias that fit the pairs of a probe best.

    Args:
        features: what the frozen towers make of the pairs.
        own: the candidate's own scale and bias.
        probe: where the pairs are from.
        sigmoid: whether the loss is SigLIP's.
        marked: fingerprint of the pairs.

    Raises:
        ProbeError: no scale can be told from them.
    """
    found = fit_scale(features, own, sigmoid=sigmoid, called=f"probe {probe.name!r}")
    return Tuning(
        scale=found.scale,
        bias=found.bias,
        scale_before=own[0],
        bias_before=own[1],
        loss=found.loss,
        loss_before=found.loss_before,
        objective=_objective(sigmoid),
        pairs=len(features),
        proxy=probe.name,
        proxy_fingerprint=marked,
    )


def pair_features(
    images: np.ndarray, texts: np.ndarray, probe: Probe, loaded: LoadedModel
) -> PairFeatures:
    """Return a probe's pairs: each caption with its image.

    Captions are equal where the tokenizer reads them alike; images, where their bytes are.

    Args:
        images: image features (N, D) of the probe.
        texts: caption features (M, D), one a line.
        probe: with captions.
        loaded: whose tokenizer read them.
    """
    lines, owners = caption_lines(probe.captions or ())
    hashes = [probe.sample_hashes[owner] for owner in owners]
    tokens = np.asarray(loaded.tokenizer(lines).cpu())
    names = [f"{probe.ids[owner]}\0{line}" for owner, line in zip(owners, lines, strict=True)]
    codes = [np.unique(values, axis=0, return_inverse=True)[1] for values in (hashes, tokens)]
    return PairFeatures(images[owners], texts, codes[0].ravel(), codes[1].ravel(), names)


def has_bias(model: nn.Module) -> bool:
    """Whether a model's logits have a bias, as SigLIP's do, so that its loss is the sigmoid's.

    >>> from clipq.testing import small_clip
    >>> has_bias(small_clip("vit"))
    False
    """
    return getattr(model, "logit_bias", None) is not None


def write_scale(model: nn.Module, found: ScaleFit) -> None:
    """Give a model a scale and, where it has one, a bias, as open_clip stores them.

    >>> from clipq.models import logit_map
    >>> from clipq.testing import small_clip
    >>> write_scale(model := small_clip("vit"), ScaleFit(20.0, 0.0, loss=1.0, loss_before=1.1))
    >>> round(logit_map(model)[0], 4)
    20.0
    """
    import torch

    own: Any = model
    with torch.no_grad():
        own.logit_scale.fill_(math.log(found.scale))
        if has_bias(model):
            own.logit_bias.fill_(found.bias)


def _objective(sigmoid: bool) -> str:
    return "sigmoid" if sigmoid else "contrastive"
