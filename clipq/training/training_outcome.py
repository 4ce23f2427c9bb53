"""What a training says while it runs, and what is left of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

__all__ = ["Look", "Outcome", "TrainingProgress"]


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the held-out pairs.

    Args:
        step: steps done before it.
        held_out: mean loss of the held-out pairs, and its parts by name; ``total`` is what counts.
        train: means over the batches since the look before; empty at the first.

    >>> Look(0, {"total": 1.5}).total
    1.5
    """

    step: int
    held_out: Mapping[str, float]
    train: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """The held-out loss, which chooses the checkpoint."""
        return self.held_out["total"]


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a training is; given to the callback after each step.

    Args:
        step: steps done.
        steps: steps in all.
        loss: of the last batch, and its parts by name; ``total`` is their sum.
        looks: at the held-out pairs so far.
        best_step: after which the held-out loss was the least.
        steps_per_second: of this process, looks and checkpoints included.

    >>> TrainingProgress(30, 100, {"total": 0.5}, (), 0, 10.0).seconds_left
    7.0
    """

    step: int
    steps: int
    loss: Mapping[str, float]
    looks: tuple[Look, ...]
    best_step: int
    steps_per_second: float

    @property
    def seconds_left(self) -> float:
        """What the rest takes at the rate so far, if it does not stop early."""
        return (self.steps - self.step) / self.steps_per_second


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of a training. The student holds the parameters of the best step.

    Args:
        best_step: whose parameters were kept: of the least held-out loss, the earliest of equals; 0
            where no step improved on the quantizer as it was initialised.
        steps_done: before it ended.
        looks: at the held-out pairs, the first before any step.
        stopped_early: the patience ended before the steps did.
        seconds: of training in all processes that had a part in it, lost steps not counted.
        resumed_from: step of the checkpoint that this process began with; None of a fresh start.
        parameters: what was learnt, by name, on the CPU, at the best step.

    >>> Outcome(best_step=0, steps_done=0).looks
    ()
    """

    best_step: int
    steps_done: int
    looks: tuple[Look, ...] = ()
    stopped_early: bool = False
    seconds: float = 0.0
    resumed_from: int | None = None
    parameters: Mapping[str, torch.Tensor] = field(default_factory=dict)
