"""The loss that a model was trained with, as an objective of its quantized form.

CLIP's is the mean of two cross entropies over a batch (Radford et al. 2021, figure 3), SigLIP's one
decision a pair (Zhai et al. 2023, equation 1). Both take every other caption of the batch for
wrong. Small proxies repeat captions: the caption of another image is neither right nor wrong where
it equals the own one.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from clipq.training.objective import Batch, Features, Loss, Objective

__all__ = ["Contrastive", "contrastive_loss"]


class Contrastive(Objective):
    """The model's own loss on the proxy's pairs; the teacher is not looked at.

    >>> from clipq.training.objective import Batch, Features
    >>> import numpy as np
    >>> pairs = Features(torch.eye(2), torch.eye(2), scale=torch.tensor(10.0))
    >>> batch = Batch(np.arange(2), torch.arange(2), step=0, generator=torch.Generator())
    >>> round(Contrastive().loss(pairs, pairs, batch).total.item(), 7)  # log(1 + exp(-10))
    4.54e-05
    """

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Loss:
        """Return `contrastive_loss` of the student."""
        return Loss(contrastive_loss(student, batch))


def contrastive_loss(features: Features, batch: Batch) -> torch.Tensor:
    """Return SigLIP's loss () of a model with a logit bias, CLIP's of any other.

    >>> import numpy as np
    >>> from clipq.training.objective import Batch, Features
    >>> pairs = Features(torch.eye(2), torch.ones(2, 2), scale=torch.tensor(1.0))
    >>> batch = Batch(np.arange(2), torch.tensor([5, 5]), step=0, generator=torch.Generator())
    >>> contrastive_loss(pairs, batch)  # equal captions: nothing can be told apart
    tensor(0.)
    """
    count = len(features.image)
    own = torch.eye(count, dtype=torch.bool, device=features.image.device)
    repeated = batch.same_caption.to(own.device) & ~own
    if features.bias is not None:
        signs = torch.where(own, 1.0, -1.0)
        decisions = logsigmoid(signs * features.logits).masked_fill(repeated, 0.0)
        return -decisions.sum() / count
    logits = features.logits.masked_fill(repeated, -torch.inf)
    target = torch.arange(count, device=logits.device)
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
