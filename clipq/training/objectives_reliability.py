"""An objective for what quantization costs beside accuracy: calibration, detection, robustness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy, softplus

from clipq.training.calibrated_targets import calibrated_targets
from clipq.training.caption_sets import distinct_captions, distinct_logits
from clipq.training.changed_images import changed
from clipq.training.made_outliers import outliers
from clipq.training.objective import Batch, Features, Loss, Objective
from clipq.training.objectives_distances import feature_distance

__all__ = ["Reliability", "outlier_ranking"]


@dataclass(frozen=True, slots=True)
class Reliability(Objective):
    """Terms in nats and logits, weighted.

    - `calibration`: divergence of the probabilities over the batch's distinct captions from the
      teacher's *after* temperature scaling by the truth. The logit scale stays: features move.
    - `robustness`: the same divergence, from the same targets, of `changed` images; a quarter of
      the batch.
    - `outliers`: `outlier_ranking` of the batch's images above `outliers` made from a quarter of
      the batch.
    - `features`: `feature_distance`; off, because the teacher's directions have the teacher's
      confidence.

    A weight of 0 leaves a term out, and its images unmade. docs/objectives.md derives the terms.

    >>> import numpy as np
    >>> batch = Batch(np.arange(8), torch.arange(8), step=0, generator=torch.Generator())
    >>> images = torch.rand(8, 3, 4, 4, generator=batch.generator)
    >>> chosen = Reliability(), Reliability(outliers=0)
    >>> [len(objective.more_images(images, batch)) for objective in chosen]
    [4, 2]
    """

    asks_for_more: ClassVar[bool] = True

    calibration: float = 1.0
    robustness: float = 1.0
    outliers: float = 0.5
    features: float = 0.0

    def more_images(self, images: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return views of the first quarter of the batch, then outliers made from the second.

        The order of a batch is random, so that no image is preferred.
        """
        views, made = self._parts(len(images))
        return torch.cat(
            [
                changed(images[:views], batch.generator),
                outliers(images[len(images) - made :], batch.generator),
            ]
        )

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Loss:
        """Return the weighted sum."""
        _, own = distinct_captions(batch.captions)
        own = own.to(student.image.device)
        targets = calibrated_targets(distinct_logits(teacher, batch.captions), own)
        parts: dict[str, torch.Tensor] = {}
        if self.calibration:
            logits = distinct_logits(student, batch.captions)
            parts["calibration"] = self.calibration * _divergence(logits, targets)
        views, made = self._parts(len(own))
        if student.more is not None and views:
            logits = distinct_logits(student, batch.captions, student.more[:views])
            parts["robustness"] = self.robustness * _divergence(logits, targets[:views])
        if student.more is not None and made:
            inside = distinct_logits(student, batch.captions)
            outside = distinct_logits(student, batch.captions, student.more[views:])
            ranking = outlier_ranking(inside, outside, student.scale)
            parts["outliers"] = self.outliers * ranking
        if self.features:
            distances = feature_distance(student, teacher)
            parts["features"] = self.features * (distances["image"] + distances["text"])
        return Loss(torch.stack(list(parts.values())).sum(), parts)

    def _parts(self, count: int) -> tuple[int, int]:
        """Return how many views and how many outliers a batch of `count` has."""
        quarter = max(count // 4, 1)
        return quarter * (self.robustness > 0), quarter * (self.outliers > 0)


def outlier_ranking(
    inside: torch.Tensor, outside: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Return a smooth bound () of how often an outlier is ranked above an image.

    Mean over all pairs of softplus(scale (s_outlier - s_image)), where s is the log of maximum
    concept matching at temperature 1 (Ming et al. 2022), which knows no logit scale; divided by
    log 2 it is at least 1 - AUROC.

    Args:
        inside: (N, K), scaled cosines of images.
        outside: (M, K), of outliers.
        scale: (), what both are scaled by.

    >>> scale = torch.tensor(10.0)
    >>> even = outlier_ranking(torch.zeros(2, 3), torch.zeros(4, 3), scale)
    >>> round(even.item(), 4)  # log 2
    0.6931
    >>> outlier_ranking(torch.eye(3) * 10, torch.zeros(4, 3), scale) < even
    tensor(True)
    """
    score_in, score_out = (
        scale * (logits / scale).log_softmax(dim=1).amax(dim=1) for logits in (inside, outside)
    )
    return softplus(score_out[None, :] - score_in[:, None]).mean()


def _divergence(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean over rows of KL(targets || softmax(logits))."""
    entropy: torch.Tensor = -torch.special.xlogy(targets, targets).sum(dim=1).mean()
    return cross_entropy(logits, targets) - entropy
