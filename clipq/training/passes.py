"""From the pairs of a step to the gradient of its loss, in parts and in several processes.

With one part, the towers run once and keep what their gradient needs. With several they run twice:
first without keeping anything, for the features of all pairs; then each part again, which takes the
gradient of the loss back from its features and is let go (Gao et al. 2021, "Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup"). So a contrastive loss has the
negatives of the whole batch, and the gradient does not depend on the number of parts, save by
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from clipq.errors import TrainingError
from clipq.training.caption_pairs import Pairs
from clipq.training.data_order import caption_shares, step_generator
from clipq.training.known_features import KnownFeatures
from clipq.training.objective import Batch, Features, Loss, Objective
from clipq.training.towers import Towers, bias_of, scale_of
from clipq.training.worlds import World
from clipq.training_settings import TrainingSettings

__all__ = ["Passes"]

_INPUT = {"image": "images", "text": "tokens", "more": "more"}


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Inputs of a batch: what this process has of them, and how many further images all have."""

    own: Mapping[str, torch.Tensor]
    more: int


@dataclass(frozen=True, slots=True)
class Passes:
    """Passes of batches through student, teacher and objective.

    Args:
        towers: of the student, as a distributed wrapper holds them.
        student: the student itself, for its scale and bias.
        teacher: what runs it where its features are not known.
        known: features that do not change.
        pairs: what they see.
        objective: what is minimised.
        settings: the recipe.
        world: the processes that work on it.
        device: of both models.

    >>> Passes.__slots__[-3:]
    ('settings', 'world', 'device')
    """

    towers: nn.Module
    student: nn.Module
    teacher: Towers
    known: KnownFeatures
    pairs: Pairs
    objective: Objective
    settings: TrainingSettings
    world: World
    device: torch.device

    def backward(self, rows: np.ndarray, step: int) -> dict[str, float]:
        """Leave the gradient of a step's loss in the parameters.

        Args:
            rows: (B,) of the pairs.
            step: steps done before.

        Returns:
            The loss as ``total``, and its parts. Where it is not finite, there is no gradient.
        """
        seed = self.settings.seed
        shares = caption_shares(len(rows), seed=seed, step=step)
        lines = self.pairs.lines(rows, shares)
        batch = self._batch(rows, lines, step, step_generator(seed, step))
        loaded = self._load(batch, lines)
        parts = self._parts(loaded, self.known.student)
        keep = len(parts) == 1
        with torch.set_grad_enabled(keep):
            outputs = [self.towers(part) for part in parts]
        leaves = self._together(outputs, batch, loaded)
        for leaf in leaves.values():
            leaf.requires_grad_()
        loss = self._loss(leaves, loaded, batch)
        values = _values(loss)
        if not all(map(math.isfinite, values.values())):
            return values
        if not loss.total.requires_grad:
            raise TrainingError(
                f"the objective {type(self.objective).__name__} does not depend on what is learnt",
                hint="learn the tower whose features it compares, or choose another objective",
            )
        loss.total.backward()  # type: ignore[no-untyped-call]
        gradients = self._own(leaves, outputs)
        for at, part in enumerate(parts):
            with self.world.no_sync(self.towers, last=at == len(parts) - 1):
                output = outputs[0] if keep else self.towers(part)
                _back(output, gradients[at])
        return values

    def held_out(self, rows: np.ndarray, block: int) -> dict[str, float]:
        """Return the loss of held-out pairs (B,), with the first caption of each, and its parts."""
        lines = self.pairs.lines(rows, np.zeros(len(rows)))
        generator = step_generator(self.settings.seed, block, held_out=True)
        batch = self._batch(rows, lines, -1, generator)
        with torch.no_grad():
            loaded = self._load(batch, lines)
            parts = self._parts(loaded, self.known.student)
            outputs = [self.towers(part) for part in parts]
            return _values(self._loss(self._together(outputs, batch, loaded), loaded, batch))

    def _batch(
        self, rows: np.ndarray, lines: np.ndarray, step: int, generator: torch.Generator
    ) -> Batch:
        captions = torch.from_numpy(self.pairs.captions[lines]).to(self.device)
        return Batch(rows, captions, step=step, generator=generator)

    def _load(self, batch: Batch, lines: np.ndarray) -> _Loaded:
        """Load what features are to be computed of, and nothing else."""
        own: dict[str, torch.Tensor] = {}
        needed, more = self.known.needed, 0
        places = self.world.share(np.arange(len(lines)))
        if self.objective.asks_for_more:
            images = self.pairs.images(batch.rows).to(self.device)
            made = self.objective.more_images(images, batch)
            more = len(made)
            if more:
                own["more"] = made[self.world.share(np.arange(more))]
            if needed["image"]:
                own["images"] = images[places]
        elif needed["image"]:
            own["images"] = self.pairs.images(batch.rows[places]).to(self.device)
        if needed["text"]:
            own["tokens"] = self.pairs.tokens[lines[places]].to(self.device)
        return _Loaded(own, more)

    def _parts(self, loaded: _Loaded, known: Mapping[str, torch.Tensor]) -> list[_Part]:
        """Return the inputs of one model, in the recipe's number of parts."""
        inputs = {_INPUT[name]: name for name in _INPUT if name not in known}
        given = {name: each for name, each in loaded.own.items() if name in inputs}
        most = max((len(each) for each in given.values()), default=1)
        count = min(self.settings.accumulate, most)
        pieces = {name: each.tensor_split(count) for name, each in given.items()}
        return [
            {name: each[at] for name, each in pieces.items() if len(each[at])}
            for at in range(count)
        ]

    def _together(
        self, outputs: Sequence[_Part], batch: Batch, loaded: _Loaded
    ) -> dict[str, torch.Tensor]:
        """Return features of the whole batch, and scale and bias, without a graph."""
        found = dict(outputs[-1])
        for name in _INPUT:
            if name in outputs[0]:
                part = torch.cat([output[name] for output in outputs if name in output])
                count = loaded.more if name == "more" else len(batch.rows)
                found[name] = self.world.gather(part.detach(), count)
        return {name: value.detach() for name, value in found.items()}

    def _loss(self, found: Mapping[str, torch.Tensor], loaded: _Loaded, batch: Batch) -> Loss:
        student = _features(found, self.known.student, self.student, batch)
        with torch.no_grad():
            outputs = [self.teacher(part) for part in self._parts(loaded, self.known.teacher)]
            taught = self._together(outputs, batch, loaded)
            teacher = _features(taught, self.known.teacher, self.teacher.model, batch)
        loss = self.objective.loss(student, teacher, batch)
        if loss.total.ndim:
            raise TrainingError(
                f"the objective {type(self.objective).__name__} returns a loss of shape "
                f"{tuple(loss.total.shape)}",
                hint="return one number, the mean over the batch",
            )
        return loss

    def _own(
        self, leaves: Mapping[str, torch.Tensor], outputs: Sequence[_Part]
    ) -> list[dict[str, torch.Tensor]]:
        """Return, part by part, the gradients of the features that the part computed."""
        parts: list[dict[str, torch.Tensor]] = [{} for _ in outputs]
        for name, leaf in leaves.items():
            gradient = leaf.grad
            if gradient is None:
                if self.world.size == 1:
                    continue
                gradient = torch.zeros_like(leaf)  # wrappers wait for all that was computed
            if name not in _INPUT:
                parts[-1][name] = gradient
                continue
            sizes = [len(output[name]) if name in output else 0 for output in outputs]
            pieces = torch.split_with_sizes(self.world.spread(gradient, sum(sizes)), sizes)
            for part, piece in zip(parts, pieces, strict=True):
                part[name] = piece
        return parts


_Part = Mapping[str, torch.Tensor]


def _features(
    found: Mapping[str, torch.Tensor],
    known: Mapping[str, torch.Tensor],
    model: nn.Module,
    batch: Batch,
) -> Features:
    """Return a batch's features: those computed, and rows of those known."""
    with torch.no_grad():
        bias = bias_of(model)
        scale = scale_of(model)
        places = {"image": torch.from_numpy(batch.rows), "text": batch.captions}
        rows = {name: table[places[name].to(table.device)] for name, table in known.items()}
    return Features(
        image=found["image"] if "image" in found else rows["image"],
        text=found["text"] if "text" in found else rows["text"],
        scale=found.get("scale", scale),
        bias=found.get("bias", bias),
        more=found.get("more"),
    )


def _back(output: _Part, gradients: Mapping[str, torch.Tensor]) -> None:
    """Take gradients of features back to the parameters."""
    names = [name for name in gradients if name in output and output[name].requires_grad]
    if names:
        torch.autograd.backward(
            [output[name] for name in names], [gradients[name] for name in names]
        )


def _values(loss: Loss) -> dict[str, float]:
    """Return the loss and its parts as numbers, in one transfer."""
    found = {"total": loss.total, **loss.parts}
    numbers = torch.stack([value.detach().float().reshape(()) for value in found.values()])
    return dict(zip(found, numbers.tolist(), strict=True))
