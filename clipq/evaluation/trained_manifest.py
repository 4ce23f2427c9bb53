"""What lies beside a trained state and says what it is: ``trained.json``.

Reading one imports no torch, so that plans, cards and comparisons can.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from clipq.errors import QuantizerError
from clipq.evaluation.training_unit import TrainingUnit
from clipq.files import write_atomically
from clipq.shapes import Document, Finite, Meta, whole

__all__ = ["TRAINED", "LossAt", "TrainedManifest"]

TRAINED = "trained.json"
_SCHEMA = "clipq-trained/1"
_FIX = "train it again with `clipq train`, or restore the folder as it was written"

_Hash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="a sha256 in hex")]
_Count = Annotated[int, whole(0)]
_Seconds = Annotated[float, Meta(ge=0.0, description="a number of seconds")]


@dataclass(frozen=True, slots=True)
class LossAt:
    """Losses after some steps, and their parts by name; ``total`` is what counts.

    Args:
        step: how many optimiser steps were done.
        held_out: means over the pairs that are never trained on.
        train: means over the batches since the entry before; empty at the first.

    >>> LossAt(0, {"total": 0.8}).train
    {}
    """

    step: _Count
    held_out: Mapping[str, Finite]
    train: Mapping[str, Finite] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainedManifest:
    """What a trained state is, and how it came about.

    Args:
        unit: what was trained, from which model, with which recipe, data and code, and where.
        state_sha256: of the file of tensors.
        proxy: what the probe of the pairs was called.
        pairs: that were trained on.
        held_out: pairs that were not, and chose the step.
        steps: that were done.
        best_step: whose state this is.
        why: why that step, and why it ended.
        losses: the curve, by step.
        seconds: of training, on the clock.
        versions: of packages.

    >>> unit = TrainingUnit("vit", "lsq:w4a8", {}, {"weights_sha256": "0f"}, {"proxy": "e1"})
    >>> curve = LossAt(0, {"total": 0.8}), LossAt(5, {"total": 0.4}, {"total": 0.6})
    >>> TrainedManifest(unit, "0" * 64, steps=9, best_step=5, losses=curve).gain
    (0.8, 0.4)
    """

    unit: TrainingUnit
    state_sha256: _Hash
    proxy: str = ""
    pairs: _Count = 0
    held_out: _Count = 0
    steps: _Count = 0
    best_step: _Count = 0
    why: str = ""
    losses: tuple[LossAt, ...] = ()
    seconds: _Seconds = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def quantizer(self) -> str:
        """The quantizer's text, which holds what was asked of the training."""
        return self.unit.quantizer

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
    def gain(self) -> tuple[float | None, float | None]:
        """Losses on the held-out pairs: before the first step, and of the step that was kept."""
        found = {entry.step: entry.held_out.get("total") for entry in self.losses}
        return found.get(0), found.get(self.best_step)

    def evidence(self) -> dict[str, Any]:
        """Return what a record says of it, as strict-JSON values."""
        first, kept = self.gain
        return {
            "quantizer": self.quantizer,
            "sha256": self.state_sha256,
            "parent_sha256": self.unit.parent.get("weights_sha256", ""),
            "recipe": dict(self.unit.recipe),
            "proxy": self.proxy,
            "proxy_fingerprint": self.unit.data.get("proxy", ""),
            "pairs": self.pairs,
            "held_out": self.held_out,
            "steps": self.steps,
            "best_step": self.best_step,
            "why": self.why,
            "seconds": round(self.seconds, 1),
            "loss_before": first,
            "loss": kept,
        }


@dataclass(frozen=True, slots=True)
class _Stored:
    schema: Annotated[str, Meta(pattern=rf"\A{_SCHEMA}\Z", description=f"{_SCHEMA!r}")]
    trained: TrainedManifest
