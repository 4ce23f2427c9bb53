"""One training as a value: everything that decides what comes out of it, and its digest.

Units know nothing of one another, so that whoever has many may run them in any order, on any
machine: the digest says which of them are done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from clipq.errors import QuantizerError
from clipq.files import write_atomically
from clipq.provenance import digest
from clipq.quant import QuantizerSpec
from clipq.shapes import Document, Meta, Number, Text
from clipq.training_settings import TrainingSettings

__all__ = ["UNIT", "TrainingUnit", "differing_parent"]

UNIT = "training.json"
_SCHEMA = "clipq-training/1"
_FIX = "remove the folder and train again"
_UNSAFE = re.compile(r"[^A-Za-z0-9.=+-]+")
_DIGITS = 12
_PARENT = {
    "weights_sha256": ("weights", "were", "are"),
    "config_sha256": ("configuration", "was", "is"),
    "tokenizer_sha256": ("tokenizer", "was", "is"),
    "preprocess": ("preprocessing", "was", "is"),
}
"""What identifies a model, in words, with the verbs that go with them."""


@dataclass(frozen=True, slots=True)
class TrainingUnit:
    """One training.

    Args:
        model: its name, for people: the digest does not depend on it.
        quantizer: canonical text.
        recipe: every option of the training, those that were left to their defaults, too.
        parent: what identifies the FP32 model.
        data: fingerprints of the pairs (``proxy``) and of what the quantizer is initialised with
            (``calibration``, ``prompts``).
        code: versions and hashes of the method, the trainer and the objective.
        machine: what can move a number on this machine.

    >>> unit = TrainingUnit("vit", "lsq:w4a8,seed=1@vision", {"seed": 1}, {}, {"proxy": "0f"})
    >>> unit.name, len(unit.digest)
    ('vit-lsq-w4a8-seed=1-vision', 64)
    >>> other = TrainingUnit("vit", "lsq:w4a8,seed=1@vision", {"seed": 1}, {}, {"proxy": "e1"})
    >>> other.digest == unit.digest, list(other.differences(unit))
    (False, ['proxy was 0f, is e1'])
    """

    model: Text
    quantizer: Text
    recipe: Mapping[str, str | Number]
    parent: Mapping[str, str]
    data: Mapping[str, str]
    code: Mapping[str, str | Number] = field(default_factory=dict)
    machine: Mapping[str, str | Number] = field(default_factory=dict)

    @property
    def settings(self) -> TrainingSettings:
        """How it is trained."""
        return TrainingSettings.read(dict(QuantizerSpec.parse(self.quantizer).options))

    @property
    def digest(self) -> str:
        """The sha256 (hex) of all that decides what comes out of it."""
        return digest({name: value for name, value in asdict(self).items() if name != "model"})

    @property
    def name(self) -> str:
        """A name for its folder: the model's and the quantizer's, of letters that paths take."""
        plain = _UNSAFE.sub("-", self.quantizer)
        lost = set("*?/") & set(self.quantizer)  # two of them might end up alike
        return f"{self.model}-{plain}" + (f"-{digest(self.quantizer)[:6]}" if lost else "")

    def differences(self, before: TrainingUnit) -> Iterator[str]:
        """Yield in what another training, which this one is to go on with, is another one.

        The machine is not compared: going on elsewhere gives other last digits, no other recipe.
        """
        if before.quantizer != self.quantizer:
            yield f"quantizer was {before.quantizer!r}, is {self.quantizer!r}"
        yield from differing_parent(before.parent, self.parent)
        for was, now in ((before.recipe, self.recipe), (before.data, self.data)):
            yield from _changed(was, now)
        for each in _changed(before.code, self.code):
            yield f"code: {each}"

    def write(self, folder: Path) -> None:
        """Write it into the folder in which it is trained.

        Raises:
            CacheError: the folder is read-only or full.
        """
        text = json.dumps(asdict(_Stored(_SCHEMA, self)), indent=1, allow_nan=False)
        write_atomically(folder / UNIT, f"{text}\n".encode())

    @staticmethod
    def read(folder: Path) -> TrainingUnit:
        """Return the training that a folder holds.

        Raises:
            QuantizerError: it holds none, or a damaged one.

        >>> TrainingUnit.read(Path("fixtures"))
        Traceback (most recent call last):
        clipq.errors.QuantizerError: fixtures/training.json cannot be read as JSON: ...
        ...
        """
        return Document(folder / UNIT, "JSON", QuantizerError, _FIX).read(_Stored).unit


@dataclass(frozen=True, slots=True)
class _Stored:
    schema: Annotated[str, Meta(pattern=rf"\A{_SCHEMA}\Z", description=f"{_SCHEMA!r}")]
    unit: TrainingUnit


def differing_parent(was: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    """Yield in what the model that something was trained from is not the one here.

    Args:
        was: what identified it then.
        here: what identifies it now; what is not said is not compared.

    >>> list(differing_parent({"weights_sha256": "0f"}, {"weights_sha256": "e1"}))
    ['weights were 0f, are e1']
    """
    for name, now in here.items():
        if (before := was.get(name, "")) != now:
            what, one, many = _PARENT.get(name, (name, "was", "is"))
            yield f"{what} {one} {before[:_DIGITS] or 'unknown'}, {many} {now[:_DIGITS]}"


def _changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*was, *now}):
        if was.get(name) != now.get(name):
            yield f"{name} was {_short(was.get(name))}, is {_short(now.get(name))}"


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text[:_DIGITS] if len(text) == 64 else text
