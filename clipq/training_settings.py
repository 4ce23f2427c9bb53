"""How a quantizer is trained: the options of its text that say so, read and checked.

A trained quantizer is a text like any other, `lsq:w4a8,objective=distil,steps=400,seed=1`; what its
method rounds how is the business of `clipq.quant`, what it learns from and how long stands here.

| option | default | meaning |
|---|---|---|
| `objective` | `distil` | what is minimised; `clipq list objectives` knows them |
| `steps` | 300 | optimiser steps; 0 leaves the quantizer as it is initialised |
| `batch` | 128 | pairs per step |
| `accumulate` | 1 | parts that a batch is computed in |
| `lr` | 1e-4 | largest learning rate of weights |
| `step_lr` | 1e-3 | largest learning rate of steps and offsets, in shares of their size |
| `warmup` | 0.1 | share of the steps over which both rise from zero; then half a cosine to zero |
| `decay` | 0 | weight decay, of weights alone |
| `clip` | 1 | largest norm of the gradient |
| `learn` | `all` | `steps`: weights stay as they are, and a trained state is a few kilobytes |
| `pairs` | 1000 | image-caption pairs taken from the proxy split |
| `held_out` | 0.1 | share of them that chooses the checkpoint and is never trained on |
| `every` | 50 | steps between two looks at the held-out pairs |
| `patience` | 0 | looks without an improvement after which training stops; 0 never |
| `precision` | `float32` | `bf16`: products in bfloat16 (autocast) |
| `seed` | 0 | of the order of pairs, of captions and of whatever else is drawn |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from clipq.errors import QuantizerError, did_you_mean

__all__ = ["TRAINING_OPTIONS", "TrainingSettings"]

_LEARN = ("all", "steps")
_PRECISIONS = ("bf16", "float32")


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a quantizer is trained; the options above, read.

    >>> settings = TrainingSettings.read({"objective": "contrastive", "steps": "9"})
    >>> settings.objective, settings.steps, settings.batch
    ('contrastive', 9, 128)
    """

    objective: str = "distil"
    steps: int = 300
    batch: int = 128
    accumulate: int = 1
    lr: float = 1e-4
    step_lr: float = 1e-3
    warmup: float = 0.1
    decay: float = 0.0
    clip: float = 1.0
    learn: str = "all"
    pairs: int = 1000
    held_out: float = 0.1
    every: int = 50
    patience: int = 0
    precision: str = "float32"
    seed: int = 0

    @classmethod
    def read(cls, options: Mapping[str, str]) -> TrainingSettings:
        """Read them from a quantizer's options; options of other kinds are left alone.

        Raises:
            QuantizerError: a value is not among those allowed.
        """
        given = {name: options[name] for name in TRAINING_OPTIONS if name in options}
        values: dict[str, Any] = {}
        for name, text in given.items():
            if name in _WHOLE:
                values[name] = _whole(name, text, *_WHOLE[name])
            elif name in _REAL:
                values[name] = _real(name, text, *_REAL[name])
            elif name in _CHOICES:
                values[name] = _choice(name, text, _CHOICES[name])
            else:
                values[name] = text
        settings = cls(**values)
        if settings.batch % settings.accumulate:
            raise QuantizerError(
                f"options batch={settings.batch} and accumulate={settings.accumulate}: a batch is "
                "not divided evenly",
                hint="accumulate is a divisor of batch",
            )
        return settings


TRAINING_OPTIONS = tuple(field.name for field in fields(TrainingSettings))
"""Names of the options that say how a quantizer is trained."""

_WHOLE = {
    "steps": (0, 10_000_000),
    "batch": (2, 1_000_000),
    "accumulate": (1, 1_000_000),
    "pairs": (4, 1_000_000_000),
    "every": (1, 10_000_000),
    "patience": (0, 10_000_000),
    "seed": (0, 2**63 - 1),
}
_REAL = {
    "lr": (0.0, 10.0),
    "step_lr": (0.0, 10.0),
    "warmup": (0.0, 1.0),
    "decay": (0.0, 10.0),
    "clip": (1e-6, 1e6),
    "held_out": (0.01, 0.5),
}
_CHOICES = {"learn": _LEARN, "precision": _PRECISIONS}


def _whole(name: str, text: str, low: int, high: int) -> int:
    value = _real(name, text, low, high)
    if value != int(value):
        raise QuantizerError(f"option {name}={text!r} is no whole number", hint=_range(low, high))
    if text != str(int(value)):  # one number, one spelling: two would be two candidates
        raise QuantizerError(
            f"option {name}={text!r} is no plain whole number", hint=f"write {name}={int(value)}"
        )
    return int(text)


def _real(name: str, text: str, low: float, high: float) -> float:
    try:
        value: float = int(text) if text.isdecimal() else float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise QuantizerError(
            f"option {name}={text!r} is no number from {low:g} to {high:g}", hint=_range(low, high)
        )
    return value


def _choice(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise QuantizerError(f"option {name}={text!r} is unknown", hint=did_you_mean(text, allowed))
    return text


def _range(low: float, high: float) -> str:
    return f"give a number from {low:g} to {high:g}"
