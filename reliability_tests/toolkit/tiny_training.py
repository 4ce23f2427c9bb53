"""A model of 500 weights with learnt steps, its data and objectives: trained in a moment."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipq.training import Batch, Features, Loss, Objective, Outcome, Pairs, train
from clipq.training_settings import TrainingSettings

PAIRS, WIDTH, WORDS = 24, 6, 9


class Rounded(nn.Linear):
    """A linear layer whose weights are multiples of a learnt step; gradients pass rounding."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.step = nn.Parameter(torch.tensor(0.05))
        self.offset = nn.Parameter(torch.full((inputs,), -0.01))

    def forward(self, values: Tensor) -> Tensor:
        scaled = self.weight / self.step
        rounded = scaled + (scaled.round() - scaled).detach()
        return nn.functional.linear(values + self.offset, rounded * self.step, self.bias)


class TwoTowers(nn.Module):
    """Images (B, 3, 4, 4) and tokens (B, L) to features (B, WIDTH)."""

    def __init__(self, *, seed: int = 0, width: int = WIDTH, bias: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.visual = nn.Sequential(
                *(nn.Flatten(), Rounded(48, 8), nn.GELU(), nn.Dropout(0.5), Rounded(8, width))
            )
            self.words = nn.Embedding(WORDS, width)
            self.textual = nn.Linear(width, width)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        self.logit_bias = nn.Parameter(torch.tensor(-2.0)) if bias else None

    def encode_image(self, images: Tensor) -> Tensor:
        features: Tensor = self.visual(images)
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        features: Tensor = self.textual(self.words(tokens).mean(1))
        return features


class Distance(Objective):
    """Between features of images; looks at nothing else."""

    contrasts = False

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Loss:
        return Loss((student.image - teacher.image).square().mean())


class Contrast(Objective):
    """Softmax in both directions, and a distance of both features, with their parts."""

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Loss:
        labels = torch.arange(len(batch.rows))
        entropy = nn.functional.cross_entropy
        contrast = (entropy(student.logits, labels) + entropy(student.logits.T, labels)) / 2
        image = (student.image - teacher.image).square().mean()
        text = (student.text - teacher.text).square().mean()
        return Loss(contrast + image + text, {"contrast": contrast, "mse": image + text})


class Noised(Contrast):
    """Also compares features of noised images, and draws from the global generators, too."""

    asks_for_more = True

    def more_images(self, images: Tensor, batch: Batch) -> Tensor:
        noise = torch.randn(images.shape, generator=batch.generator)
        careless = torch.rand(()) + np.random.random()
        return (images + 0.3 * careless * noise)[: len(images) - 1]

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Loss:
        found = super().loss(student, teacher, batch)
        assert student.more is not None
        assert teacher.more is not None
        noised = (student.more - teacher.more).square().mean()
        return Loss(found.total + noised, {**found.parts, "noised": noised})


def some_pairs(count: int = PAIRS, *, captions: int = 2, seed: int = 0) -> Pairs:
    """Pairs whose images have `captions` captions each."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 4, 4, generator=generator)
    tokens = torch.randint(WORDS, (count * captions, 5), generator=generator)
    names = [f"pair-{row}" for row in range(count)]
    return Pairs(names, lambda rows: images[rows], tokens, np.arange(len(tokens)) % count)


def settings(**changed: Any) -> TrainingSettings:
    """A recipe of twelve steps."""
    given = {"steps": 12, "batch": 8, "every": 4, "lr": 0.01, "step_lr": 0.05, "held_out": 0.25}
    return TrainingSettings(**given | changed)


def learnt(student: TwoTowers, *, text: bool = True) -> dict[str, Mapping[str, nn.Parameter]]:
    """Everything but the text tower, where it is not to be learnt, and the scale."""
    weights, steps = {}, {}
    for name, parameter in student.named_parameters():
        if name.endswith(("step", "offset")):
            steps[name] = parameter
        elif name.startswith("visual") or (text and "logit" not in name):
            weights[name] = parameter
    return {"weights": weights, "steps": steps}


def trained(folder: Path, **changed: Any) -> Outcome:
    """Train a fresh student, with changed arguments; arguments of the recipe go there.

    Nothing is saved before the end, unless `save_seconds` says so.
    """
    teacher = changed.pop("teacher", None) or TwoTowers()
    student = changed.pop("student", None) or copy.deepcopy(teacher)
    text = changed.pop("text", True)
    recipe = {
        name: changed.pop(name)
        for name in TrainingSettings.__slots__
        if isinstance(changed.get(name), int | float | str)
    }
    given = {
        "pairs": some_pairs(),
        "settings": settings(**recipe),
        "objective": Contrast(),
        "identity": {"parent": "tiny"},
        "save_seconds": 1e9,
        **learnt(student, text=text),
    }
    return train(student, teacher, folder=folder, **given | changed)


def same(a: Outcome, b: Outcome) -> bool:
    """Whether two trainings came to the same bits."""
    return (
        a.looks == b.looks
        and a.best_step == b.best_step
        and a.parameters.keys() == b.parameters.keys()
        and all(torch.equal(a.parameters[name], b.parameters[name]) for name in a.parameters)
    )
