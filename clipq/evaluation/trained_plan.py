"""What a plan says of trained candidates: which are loaded, and which a gate trains first.

Nothing is imported, loaded or hashed but the files of the models that are trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from clipq.cases import Candidate
from clipq.errors import ClipqError
from clipq.evaluation.trained_folder import folders_below
from clipq.evaluation.trained_manifest import TrainedManifest
from clipq.evaluation.trained_search import declared_path
from clipq.quant import QuantizerSpec, quantizers
from clipq.settings import Settings
from clipq.training_settings import TrainingSettings

__all__ = ["training_notes", "trains"]


def trains(quantizer: str) -> bool:
    """Whether a quantizer is known to train without importing its code.

    >>> trains("rtn:w8"), trains("fp32")
    (False, False)
    """
    return bool(quantizers.said(QuantizerSpec.parse(quantizer).method, "trains", False))


def training_notes(settings: Settings, candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Return a sentence for each candidate that is trained before it is measured.

    Args:
        settings: where trained folders and the cache are.
        candidates: that are planned.
    """
    notes = []
    for candidate in sorted({candidate.base for candidate in candidates}):
        if candidate.is_reference or settings.artifact(candidate) is not None:
            continue
        with suppress(ClipqError):  # its own cases fail with this error
            if trains(candidate.quantizer) and (note := _note(candidate, settings)):
                notes.append(note)
    return tuple(notes)


def _note(candidate: Candidate, settings: Settings) -> str:
    steps = TrainingSettings.read(dict(QuantizerSpec.parse(candidate.quantizer).options)).steps
    if not steps or declared_path(candidate, settings) is not None:
        return ""
    seconds = _took(candidate, settings)
    before = "" if seconds is None else f"; the cache holds one that took {seconds:.0f} s"
    return (
        f"{candidate} is trained at first use ({steps:,} steps{before}): no folder in "
        f"{settings.trained.name}/ holds it"
    )


def _took(candidate: Candidate, settings: Settings) -> float | None:
    """Return how long it took to train before, of the trainings that the cache holds."""
    for folder in folders_below(settings.cache / "trained"):
        with suppress(ClipqError):
            manifest = TrainedManifest.read(folder)
            if Candidate(manifest.unit.model, manifest.quantizer) == candidate:
                return manifest.seconds
    return None
