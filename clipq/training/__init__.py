"""Training quantizers: objectives, the order of data, the trainer and its checkpoints.

torch is imported when a name below is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipq.training.caption_pairs import Pairs
    from clipq.training.objective import Batch, Features, Loss, Objective
    from clipq.training.trainer import train
    from clipq.training.training_outcome import Look, Outcome, TrainingProgress

__all__ = [
    "Batch",
    "Features",
    "Look",
    "Loss",
    "Objective",
    "Outcome",
    "Pairs",
    "TrainingProgress",
    "train",
]

_LAZY = {
    "Batch": "objective",
    "Features": "objective",
    "Look": "training_outcome",
    "Loss": "objective",
    "Objective": "objective",
    "Outcome": "training_outcome",
    "Pairs": "caption_pairs",
    "TrainingProgress": "training_outcome",
    "train": "trainer",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"clipq.training.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
