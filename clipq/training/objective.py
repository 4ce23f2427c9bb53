"""What an objective is given and what it answers: the protocol between losses and the trainer.

An objective is a function of features. It sees those of the whole batch at once, whatever parts or
processes the towers computed them in, and never calls a tower: the trainer does, once per image and
caption, so that a loss written for one process holds for accumulated and distributed batches too.
Where an objective wants features of images that are no proxy images (noised, mixed, cut), it makes
the images (`Objective.more_images`) and finds their features beside the batch's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

__all__ = ["Batch", "Features", "Loss", "Objective"]


@dataclass(frozen=True, slots=True)
class Batch:
    """The pairs of one step, or a block of held-out pairs.

    Args:
        rows: (B,) int64, rows of the proxy.
        captions: (B,) int64; two are equal where the two captions are equal to the model.
        step: steps done before it; -1 of held-out pairs.
        generator: the only source of randomness, on the CPU, seeded by the recipe's seed and the
            step (of held-out pairs: by the seed and the block, the same at each look).

    >>> generator = torch.Generator().manual_seed(3)
    >>> batch = Batch(np.array([7, 2]), torch.tensor([0, 0]), step=4, generator=generator)
    >>> batch.same_caption.tolist()
    [[True, True], [True, True]]
    """

    rows: np.ndarray
    captions: torch.Tensor
    step: int
    generator: torch.Generator

    @property
    def same_caption(self) -> torch.Tensor:
        """(B, B) bool: which captions equal which; the diagonal is true."""
        return self.captions[:, None] == self.captions[None, :]


@dataclass(frozen=True, slots=True)
class Features:
    """Features of a batch by one model, float32, as the towers give them: not normalised.

    Args:
        image: (B, D).
        text: (B, D), row i is the caption of image i.
        scale: (), what cosines are multiplied by: the exponential of open_clip's `logit_scale`.
        bias: (), SigLIP's bias; None of a model that has none, whose own loss is the softmax.
        more: (E, D), of the images that the objective asked for; None where it asked for none.

    >>> features = Features(torch.eye(2) * 2, torch.eye(2), scale=torch.tensor(10.0))
    >>> features.logits.tolist()
    [[10.0, 0.0], [0.0, 10.0]]
    """

    image: torch.Tensor
    text: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None = None
    more: torch.Tensor | None = None

    @property
    def cosines(self) -> torch.Tensor:
        """(B, B), from -1 to 1: image i with caption j."""
        normalise = torch.nn.functional.normalize
        return normalise(self.image, dim=-1) @ normalise(self.text, dim=-1).T

    @property
    def logits(self) -> torch.Tensor:
        """(B, B): scaled cosines, plus the bias where there is one."""
        logits = self.scale * self.cosines
        return logits if self.bias is None else logits + self.bias


@dataclass(frozen=True, slots=True)
class Loss:
    """What is minimised, and the terms that it is made of, for people to watch.

    Args:
        total: (), with a graph to the student's features.
        parts: (), by name, as weighted in the total; empty where the total is the one term.

    >>> Loss(torch.tensor(3.0), {"contrastive": torch.tensor(2.0), "mse": torch.tensor(1.0)}).total
    tensor(3.)
    """

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Objective(ABC):
    """What a quantizer is trained to minimise.

    `loss` is a mean over the batch, so that its size does not depend on how many pairs there are,
    and changes none of its arguments. An objective keeps no state between steps: a resumed run
    starts from a new one.

    >>> class Distance(Objective):
    ...     contrasts = False
    ...
    ...     def loss(self, student: Features, teacher: Features, batch: Batch) -> Loss:
    ...         return Loss((student.image - teacher.image).square().mean())
    >>> one = Features(torch.ones(2, 3), torch.ones(2, 3), scale=torch.tensor(1.0))
    >>> nothing = Batch(np.arange(2), torch.arange(2), step=0, generator=torch.Generator())
    >>> Distance().loss(one, one, nothing).total
    tensor(0.)
    """

    contrasts: ClassVar[bool] = True
    """Whether captions are told from each other, which equal captions make impossible."""

    asks_for_more: ClassVar[bool] = False
    """Whether `more_images` is to be called; images of a whole batch are then in one place."""

    def more_images(self, images: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return further images (E, 3, H, W) to be encoded by both models, without captions.

        Args:
            images: (B, 3, H, W), of the batch, normalised as the model's preprocessing does.
            batch: the pairs; draws come from its generator.
        """
        raise NotImplementedError(f"{type(self).__name__} asks for more images and makes none")

    @abstractmethod
    def loss(self, student: Features, teacher: Features, batch: Batch) -> Loss:
        """Return the loss of the student. Its features have gradients, the teacher's have none."""
