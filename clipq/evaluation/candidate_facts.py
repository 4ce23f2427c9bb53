"""What is known of a candidate from its name and the settings, without making or opening it."""

from __future__ import annotations

from clipq.cases import Candidate
from clipq.quant import QuantizerSpec
from clipq.quant.formats import Format
from clipq.settings import Settings

__all__ = ["format_class", "replaced_towers"]


def format_class(candidate: Candidate, settings: Settings | None = None) -> str:
    """Return the bit widths of a candidate, by which margins are given; ``custom`` if unknown.

    Args:
        candidate: made by a quantizer, or an artifact.
        settings: which artifacts there are; None for none.

    Raises:
        QuantizerError: it is neither, or the format of an artifact makes no sense.

    >>> format_class(Candidate("vit", "gptq:w4g32")), format_class(Candidate("vit", "mine"))
    ('w4', 'custom')
    """
    artifact = settings.artifact(candidate) if settings is not None else None
    if artifact is None:
        return QuantizerSpec.parse(candidate.quantizer).format_class
    return Format.parse(artifact.format).bits_class if artifact.format else "custom"


def replaced_towers(candidate: Candidate, settings: Settings) -> str:
    """Return the towers that are not FP32's: ``vision``, ``text``, ``both``, ``none`` of FP32.

    >>> from pathlib import Path
    >>> replaced_towers(Candidate("vit", "rtn:w8@text"), Settings(Path("clipq.toml"), (), (), ()))
    'text'
    """
    if candidate.base.is_reference:
        return "none"
    artifact = settings.artifact(candidate)
    return artifact.towers if artifact else QuantizerSpec.parse(candidate.quantizer).towers
