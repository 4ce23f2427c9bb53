"""What is looked at before a training begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
from torch import nn

from clipq.errors import TrainingError
from clipq.provenance import digest
from clipq.training.caption_pairs import Pairs
from clipq.training.objective import Objective
from clipq.training_settings import TrainingSettings

__all__ = ["check_captions", "check_learnt", "identity_of"]


def check_learnt(
    student: nn.Module,
    teacher: nn.Module,
    weights: Mapping[str, nn.Parameter],
    steps: Mapping[str, nn.Parameter],
    settings: TrainingSettings,
) -> None:
    """Refuse parameters that nothing can come of.

    Raises:
        TrainingError: there are none, they are not the student's or are the teacher's too, occur
            twice, are not finite, or all learning rates are zero.

    >>> line = nn.Linear(1, 1)
    >>> check_learnt(line, line, dict(line.named_parameters()), {}, TrainingSettings())
    Traceback (most recent call last):
    clipq.errors.TrainingError: weight is a parameter of the teacher, too
      fix: make the student a copy of the teacher
    """
    named = [*weights.items(), *steps.items()]
    if not named:
        raise TrainingError(
            f"nothing is learnt: there are no weights and no steps for learn={settings.learn}",
            hint="name a quantizer whose method learns, or steps=0",
        )
    own = {id(each) for each in student.parameters()}
    theirs = {id(each) for each in teacher.parameters()}
    seen: dict[int, str] = {}
    for name, parameter in named:
        if id(parameter) in theirs:
            raise TrainingError(
                f"{name} is a parameter of the teacher, too",
                hint="make the student a copy of the teacher",
            )
        if id(parameter) not in own:
            raise TrainingError(
                f"{name} is no parameter of the student", hint="give parameters of its modules"
            )
        if id(parameter) in seen or name in seen.values():
            raise TrainingError(
                f"{name} is given twice, or is {seen.get(id(parameter), name)} by another name",
                hint="name each parameter once",
            )
        seen[id(parameter)] = name
        if not bool(parameter.detach().isfinite().all()):
            raise TrainingError(
                f"{name} holds NaN or infinity before any step", hint="look at the checkpoint"
            )
    rates = [rate for rate, group in ((settings.lr, weights), (settings.step_lr, steps)) if group]
    if not any(rates):
        raise TrainingError(
            f"lr={settings.lr:g} and step_lr={settings.step_lr:g}: nothing of what is learnt would "
            "move",
            hint="raise one of them, or give steps=0, which leaves the quantizer as it is",
        )


def check_captions(pairs: Pairs, rows: np.ndarray, objective: Objective) -> None:
    """Refuse captions that cannot be told from each other, where the objective has to.

    Args:
        pairs: all of them.
        rows: (N,) that are trained on.
        objective: what is minimised.

    Raises:
        TrainingError: all captions are one.
    """
    if not objective.contrasts:
        return
    used = np.unique(pairs.captions[np.isin(pairs.owners, rows)])
    if len(used) < 2:
        raise TrainingError(
            f"all {len(rows):,} pairs that are trained on have one caption: nothing can be told "
            "from anything",
            hint="caption images by what they show, or choose an objective that compares features",
        )


def identity_of(
    given: Mapping[str, object],
    settings: TrainingSettings,
    objective: Objective,
    pairs: Pairs,
    learnt: Mapping[str, torch.Tensor],
) -> dict[str, object]:
    """Return what a training is, so that another one is not taken for its continuation.

    Args:
        given: by the caller: the model, the data, versions and code.
        settings: the recipe.
        objective: its class counts.
        pairs: their identifiers and captions count.
        learnt: names, shapes and types of the parameters count.

    >>> line = dict(nn.Linear(1, 1).named_parameters())
    >>> pairs = Pairs(("a",), lambda rows: torch.zeros(1), torch.ones(1, 2), np.zeros(1))
    >>> identity_of({"code": 7}, TrainingSettings(), object(), pairs, line)["recipe"]["steps"]
    300
    """
    kind = type(objective)
    shapes = {name: [list(each.shape), str(each.dtype)] for name, each in learnt.items()}
    return {
        **given,
        "recipe": asdict(settings),
        "objective": f"{kind.__module__}.{kind.__qualname__}",
        "pairs": pairs.fingerprint,
        "parameters": digest(shapes),
    }
