"""One evaluation as a value: a model, a quantizer with its seed, and what it is calibrated with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any

from clipq.cases import Candidate
from clipq.errors import SweepError
from clipq.provenance import digest
from clipq.shapes import Text, whole

__all__ = ["CalibrationDraw", "Unit"]

_Count = Annotated[int, whole(0)]


@dataclass(frozen=True, slots=True, order=True)
class CalibrationDraw:
    """Which samples of the calibration split a quantizer sees.

    Args:
        samples: how many; 0 for all of the split.
        seed: which of them; without meaning where it is all of them.

    >>> CalibrationDraw(64, seed=1) == CalibrationDraw(64, seed=2)
    False
    """

    samples: _Count = 0
    seed: _Count = 0


@dataclass(frozen=True, order=True)
class Unit:
    """What is evaluated by itself, on all its probes, and stored as one part.

    Args:
        model: its name.
        quantizer: canonical text; where the method draws anything, with ``seed=``.
        calibration: which samples of the calibration split the quantizer sees.
        context: digest of all else that decides the result, equal for the units that share it:
            files of the model, probes, prompts, metrics, statistics, baseline, code of the method.

    >>> unit = Unit("vit", "quarot:w4a8,seed=1", context="0f")
    >>> len(unit.id), unit.id == Unit("vit", "quarot:w4a8,seed=2", context="0f").id
    (64, False)
    >>> str(unit), str(Unit("vit", "rtn:w8a8", CalibrationDraw(64, 3)))
    ('vit/quarot:w4a8,seed=1', 'vit/rtn:w8a8 (calibration: 64 samples, seed 3)')
    """

    model: Text
    quantizer: Text
    calibration: CalibrationDraw = CalibrationDraw()
    context: Text = ""

    @cached_property
    def id(self) -> str:
        """The sha256 (hex) of all of it: the name of its part."""
        return digest(self.to_plain())

    @property
    def candidate(self) -> Candidate:
        """Its model and quantizer."""
        return Candidate(self.model, self.quantizer)

    def __str__(self) -> str:
        drawn = self.calibration
        if not drawn.samples:
            return str(self.candidate)
        return f"{self.candidate} (calibration: {drawn.samples} samples, seed {drawn.seed})"

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> Unit:
        """Return the unit that `to_plain` wrote.

        Raises:
            SweepError: it is no unit.

        >>> unit = Unit("vit", "rtn:w8a8", CalibrationDraw(64, 3), "0f")
        >>> Unit.from_plain(unit.to_plain()) == unit
        True
        """
        try:
            return Unit(**plain | {"calibration": CalibrationDraw(**plain["calibration"])})
        except (KeyError, TypeError) as error:
            raise SweepError(f"{plain!r} is no unit: {error}") from error
