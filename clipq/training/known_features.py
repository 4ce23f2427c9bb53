"""What is known of features before the first step: those that never change, and that they match.

The teacher is frozen, and images are not augmented, so its features of all pairs are computed once.
So are those of a student's tower that nothing learnt has a part in, such as the text tower of a
quantizer of the vision tower alone. A step then costs what the student's own gradient costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from clipq.errors import TrainingError
from clipq.training.caption_pairs import Pairs
from clipq.training.towers import Towers, bias_of, features_once
from clipq.training.worlds import World

__all__ = ["KnownFeatures"]

_TOWERS = ("image", "text")
_INPUT = {"image": "images", "text": "tokens"}
_FIX = "the teacher is the FP32 model that the student was made of"


@dataclass(frozen=True, slots=True)
class KnownFeatures:
    """Features by tower, ``image`` (N, D) by row and ``text`` (U, D) by caption.

    Args:
        student: of towers that do not learn and fit in memory.
        teacher: of towers that fit in memory.

    >>> KnownFeatures({}, {"image": torch.zeros(5, 2)}).needed
    {'image': True, 'text': True}
    """

    student: Mapping[str, torch.Tensor]
    teacher: Mapping[str, torch.Tensor]

    @property
    def needed(self) -> dict[str, bool]:
        """Of which towers a step has to load the inputs."""
        return {tower: not (tower in self.student and tower in self.teacher) for tower in _TOWERS}

    @classmethod
    def of(
        cls, student: Towers, teacher: Towers, pairs: Pairs, *, block: int, world: World
    ) -> KnownFeatures:
        """Compute what can be known, in blocks of so many pairs.

        Raises:
            TrainingError: student and teacher do not match, or features are not finite.
        """
        device = next(student.parameters()).device
        learns = _learns(student, teacher, _inputs(pairs, device))
        known: dict[str, dict[str, torch.Tensor]] = {"student": {}, "teacher": {}}
        for who, model in (("student", student), ("teacher", teacher)):
            for tower, (load, count) in _inputs(pairs, device).items():
                if who == "student" and learns[tower]:
                    continue
                found = features_once(
                    lambda rows, load=load, model=model, tower=tower: model(  # type: ignore[misc]
                        {_INPUT[tower]: load(rows)}
                    )[tower],
                    count=count,
                    block=block,
                    world=world,
                )
                if found is not None:
                    _finite(found, f"{who}'s {tower}")
                    known[who][tower] = found
        return cls(known["student"], known["teacher"])


_Inputs = Mapping[str, tuple[Callable[[np.ndarray], torch.Tensor], int]]


def _inputs(pairs: Pairs, device: torch.device) -> _Inputs:
    """Return how inputs of each tower are had, by row or by caption, and how many there are."""
    _, lines = np.unique(pairs.captions, return_index=True)
    return {
        "image": (lambda rows: pairs.images(rows).to(device), len(pairs)),
        "text": (lambda rows: pairs.tokens[lines[rows]].to(device), len(lines)),
    }


def _learns(student: Towers, teacher: Towers, inputs: _Inputs) -> dict[str, bool]:
    """Return which of the student's towers learn; refuse a teacher that is another model's."""
    widths: dict[str, list[int]] = {"student": [], "teacher": []}
    learns: dict[str, bool] = {}
    for tower, (load, count) in inputs.items():
        taken = load(np.arange(min(2, count)))
        for who, model in (("student", student), ("teacher", teacher)):
            try:
                with torch.set_grad_enabled(who == "student"):
                    found = model({_INPUT[tower]: taken})[tower]
            except Exception as error:  # a model's code says in its own way what it does not take
                raise TrainingError(
                    f"the {who} does not take the {_INPUT[tower]} {tuple(taken.shape)}: {error}",
                    hint=f"{_FIX}, and images and captions are prepared as it wants them",
                ) from error
            if found.ndim != 2:
                raise TrainingError(
                    f"the {who}'s {tower} tower returns {tuple(found.shape)}, not (B, D)", hint=_FIX
                )
            _finite(found.detach(), f"{who}'s {tower}")
            widths[who].append(found.shape[1])
            if who == "student":
                learns[tower] = found.requires_grad
    if widths["student"] != widths["teacher"] or widths["student"][0] != widths["student"][1]:
        raise TrainingError(
            "features of images and captions have widths of "
            + " and ".join(f"{a} and {b} ({who})" for who, (a, b) in widths.items()),
            hint=_FIX,
        )
    if (bias_of(student.model) is None) != (bias_of(teacher.model) is None):
        raise TrainingError("one of student and teacher has a logit bias", hint=_FIX)
    return learns


def _finite(features: torch.Tensor, whose: str) -> None:
    bad = int((~features.isfinite().all(dim=1)).sum())
    if bad:
        raise TrainingError(
            f"{bad:,} of the {whose} features are NaN or infinite before any step",
            hint="look at the model with `clipq inspect`",
        )
