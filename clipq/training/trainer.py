"""Training a student against its teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from clipq.training.caption_pairs import Pairs
from clipq.training.objective import Objective
from clipq.training.training_outcome import Outcome, TrainingProgress
from clipq.training_settings import TrainingSettings

__all__ = ["train"]


def _quiet(progress: TrainingProgress) -> None:
    """Say nothing."""


def train(
    student: nn.Module,
    teacher: nn.Module,
    *,
    pairs: Pairs,
    settings: TrainingSettings,
    objective: Objective,
    weights: Mapping[str, nn.Parameter],
    steps: Mapping[str, nn.Parameter],
    folder: Path,
    identity: Mapping[str, object],
    collapsed: Callable[[], list[str]] = list,
    progress: Callable[[TrainingProgress], None] = _quiet,
    save_seconds: float = 30.0,
    sharded: bool = False,
) -> Outcome:
    """Train; being written."""
    raise NotImplementedError
