"""What lies beside a trained state and says what it is: ``trained.json``.

Reading one imports no torch, so that plans, cards and comparisons can.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from clipq.errors import QuantizerError
from clipq.files import write_atomically
from clipq.shapes import Document, Finite, Meta, Number, Text, whole

__all__ = ["TRAINED", "LossAt", "TrainedManifest", "differing_parent"]

TRAINED = "trained.json"
_SCHEMA = "clipq-trained/1"
_FIX = "train it again with `clipq train`, or restore the folder as it was written"
_DIGITS = 12
_PARENT = {
    "weights_sha256": "weights",
    "config_sha256": "configuration",
    "tokenizer_sha256": "tokenizer",
    "preprocess": "preprocessing",
}

_Hash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="a sha256 in hex")]
_Count = Annotated[int, whole(0)]
_Seconds = Annotated[float, Meta(ge=0.0, description="a number of seconds")]


@dataclass(frozen=True, slots=True)
class LossAt:
    """Losses after some steps: of the batches since the entry before, and of the held-out pairs.

    Args:
        step: how many optimiser steps were done.
        train: mean over the batches since; None before the first.
        held_out: on pairs that are never trained on; None where nobody looked.

    >>> LossAt(0, None, 0.8).held_out
    0.8
    """

    step: _Count
    train: Finite | None
    held_out: Finite | None


@dataclass(frozen=True, slots=True)
class TrainedManifest:
    """What a trained state is, and how it came about.

    Args:
        quantizer: its text, which holds what was asked of the training.
        model: name of the model when it was trained; another project may call it otherwise.
        parent: what identifies the FP32 model: sha256 of weights, configuration and tokenizer, and
            the preprocessing.
        state_sha256: of the file of tensors.
        recipe: every option of the training, those that were left to their defaults, too.
        proxy: what it was trained on: ``name``, ``fingerprint``, ``pairs``, ``held_out``.
        calibration: fingerprint of what the quantizer was initialised with.
        code: versions and hashes of the method and of the trainer.
        steps: that were done.
        best_step: whose state this is.
        why: why that step, and why it ended.
        losses: the curve, by step.
        seconds: of training, on the clock.
        machine: device, instruction set, threads and whatever else can move a number.
        versions: of packages.

    >>> manifest = TrainedManifest("lsq:w4a8", "vit", {"weights_sha256": "0f"}, "0" * 64,
    ...     steps=9, best_step=5, losses=(LossAt(0, None, 0.8), LossAt(5, 0.6, 0.4)))
    >>> manifest.held_out
    (0.8, 0.4)
    """

    quantizer: Text
    model: Text
    parent: Mapping[str, str]
    state_sha256: _Hash
    recipe: Mapping[str, str | Number] = field(default_factory=dict)
    proxy: Mapping[str, str | Number] = field(default_factory=dict)
    calibration: str = ""
    code: Mapping[str, str | Number] = field(default_factory=dict)
    steps: _Count = 0
    best_step: _Count = 0
    why: str = ""
    losses: tuple[LossAt, ...] = ()
    seconds: _Seconds = 0.0
    machine: Mapping[str, str | Number] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def read(folder: Path) -> TrainedManifest:
        """Return the manifest of a folder.

        Raises:
            QuantizerError: it is missing or damaged, or of another schema.

        >>> TrainedManifest.read(Path("fixtures"))
        Traceback (most recent call last):
        clipq.errors.QuantizerError: fixtures/trained.json cannot be read as JSON: ...
        ...
        """
        document = Document(folder / TRAINED, "JSON", QuantizerError, _FIX)
        return document.read(_Stored).trained

    def write(self, folder: Path) -> None:
        """Write it into a folder, whole or not at all.

        Raises:
            CacheError: the folder is read-only or full.
        """
        text = json.dumps(asdict(_Stored(_SCHEMA, self)), indent=1, allow_nan=False)
        write_atomically(folder / TRAINED, f"{text}\n".encode())

    @property
    def held_out(self) -> tuple[float | None, float | None]:
        """Losses on the held-out pairs: before the first step, and of the step that was kept."""
        found = {entry.step: entry.held_out for entry in self.losses if entry.held_out is not None}
        return found.get(0), found.get(self.best_step)

    def evidence(self) -> dict[str, Any]:
        """Return what a record says of it, as strict-JSON values."""
        first, last = self.held_out
        return {
            "quantizer": self.quantizer,
            "sha256": self.state_sha256,
            "parent": dict(self.parent),
            "recipe": dict(self.recipe),
            "proxy": dict(self.proxy),
            "steps": self.steps,
            "best_step": self.best_step,
            "why": self.why,
            "seconds": round(self.seconds, 1),
            "held_out_first": first,
            "held_out_best": last,
        }


@dataclass(frozen=True, slots=True)
class _Stored:
    schema: Annotated[str, Meta(pattern=rf"\A{_SCHEMA}\Z", description=f"{_SCHEMA!r}")]
    trained: TrainedManifest


def differing_parent(was: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    """Yield in what the model that something was trained from is not the one here.

    Args:
        was: what identified it then.
        here: what identifies it now; what is not said is not compared.

    >>> list(differing_parent({"weights_sha256": "0f"}, {"weights_sha256": "e1"}))
    ['weights 0f, here e1']
    """
    for name, now in here.items():
        if (before := was.get(name, "")) != now:
            what = _PARENT.get(name, name)
            yield f"{what} {before[:_DIGITS] or 'unknown'}, here {now[:_DIGITS]}"
