"""Objectives that hold a quantized model near FP32: by features, or by probabilities."""

from __future__ import annotations

import torch
from torch.nn.functional import kl_div, normalize

from clipq.training.caption_sets import distinct_logits
from clipq.training.objective import Batch, Features, Loss, Objective
from clipq.training.objectives_contrastive import contrastive_loss

__all__ = ["Distil", "FeatureDistance", "LogitDivergence", "feature_distance"]


class FeatureDistance(Objective):
    """`feature_distance` alone: captions are not contrasted.

    >>> import numpy as np
    >>> near = Features(torch.tensor([[3.0, 4.0]]), torch.eye(2)[:1], scale=torch.tensor(10.0))
    >>> teacher = Features(torch.eye(2)[1:], torch.eye(2)[:1], scale=torch.tensor(10.0))
    >>> batch = Batch(np.arange(1), torch.arange(1), step=0, generator=torch.Generator())
    >>> round(FeatureDistance().loss(near, teacher, batch).total.item(), 4)  # 10 (1 - 0.8)
    2.0
    """

    contrasts = False

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Loss:
        """Return the distance; its parts are the towers."""
        parts = feature_distance(student, teacher)
        return Loss(parts["image"] + parts["text"], parts)


class Distil(Objective):
    """The model's own loss plus `feature_distance`: the study's second objective.

    >>> import numpy as np
    >>> pairs = Features(torch.eye(2), torch.eye(2), scale=torch.tensor(10.0))
    >>> batch = Batch(np.arange(2), torch.arange(2), step=0, generator=torch.Generator())
    >>> sorted(Distil().loss(pairs, pairs, batch).parts)
    ['contrastive', 'image', 'text']
    """

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Loss:
        """Return the sum, both in logits and with the same weight."""
        parts = {"contrastive": contrastive_loss(student, batch)}
        parts |= feature_distance(student, teacher)
        return Loss(torch.stack(list(parts.values())).sum(), parts)


class LogitDivergence(Objective):
    """Divergence KL(teacher || student) of the probabilities within a batch, both ways.

    Of an image over the batch's captions, each distinct one counted once, and of a caption over
    the batch's images; the mean of the two (Hinton et al. 2015 at temperature 1). A bias moves all
    logits alike and drops out.

    >>> import numpy as np
    >>> pairs = Features(torch.eye(2), torch.eye(2), scale=torch.tensor(10.0))
    >>> batch = Batch(np.arange(2), torch.arange(2), step=0, generator=torch.Generator())
    >>> LogitDivergence().loss(pairs, pairs, batch).total.item()
    0.0
    """

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Loss:
        """Return the mean of both divergences; the parts are half of each."""
        ours, theirs = (distinct_logits(side, batch.captions) for side in (student, teacher))
        parts = {
            "image-to-text": _divergence(ours, theirs) / 2,
            "text-to-image": _divergence(ours.T, theirs.T) / 2,
        }
        return Loss(torch.stack(list(parts.values())).sum(), parts)


def feature_distance(student: Features, teacher: Features) -> dict[str, torch.Tensor]:
    """Return by tower the mean squared distance () of unit features, times half the logit scale.

    Only directions count: nothing that follows reads a feature's length. Half the squared distance
    of unit vectors is one minus their cosine, and the scale turns cosines into logits: a loss of 1
    is one logit lost on the teacher's own direction, whatever the model's scale or width.

    >>> one = Features(torch.eye(2) * 5, torch.eye(2), scale=torch.tensor(10.0))
    >>> other = Features(torch.eye(2).flip(0), torch.eye(2), scale=torch.tensor(10.0))
    >>> {tower: value.item() for tower, value in feature_distance(one, other).items()}
    {'image': 10.0, 'text': 0.0}
    """
    return {
        tower: teacher.scale / 2 * _squared(getattr(student, tower), getattr(teacher, tower))
        for tower in ("image", "text")
    }


def _squared(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    return (normalize(ours, dim=-1) - normalize(theirs, dim=-1)).square().sum(dim=-1).mean()


def _divergence(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    return kl_div(
        ours.log_softmax(dim=1), theirs.log_softmax(dim=1), reduction="batchmean", log_target=True
    )
