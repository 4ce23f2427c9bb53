"""The one exception family of clipq.

Every error a user can cause is a `ClipqError` and says four things: what was wrong, the offending
value, what is allowed and how to fix it. Edges (command line, pytest plugin) print the message
without a traceback and exit non-zero; anything that is *not* a `ClipqError` is a bug in clipq.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from clipq.redaction import redacted

__all__ = [
    "ArtifactError",
    "BaselineError",
    "CacheError",
    "ClipqError",
    "KernelError",
    "ModelError",
    "ProbeError",
    "QuantizerError",
    "RecordError",
    "SettingsError",
    "StatisticsError",
    "StoreError",
    "StudyError",
    "SweepError",
    "TrainingError",
    "UnknownNameError",
    "did_you_mean",
    "listed",
]


class ClipqError(Exception):
    """Base of every error that clipq raises on purpose. Neither sentence keeps a credential.

    Args:
        problem: what was wrong, with the offending value.
        hint: what is allowed and how to fix it.

    >>> print(ClipqError("a margin of nan", hint="write a finite number"))
    a margin of nan
      fix: write a finite number
    """

    def __init__(self, problem: str, *, hint: str = "") -> None:
        # A sentence may quote an address, or another library that quotes one.
        self.problem = redacted(problem)
        self.hint = redacted(hint)
        super().__init__(self.problem)

    def __str__(self) -> str:
        return f"{self.problem}\n  fix: {self.hint}" if self.hint else self.problem

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments would be lost when the error crosses a process boundary.
        return _rebuild, (type(self), self.problem, self.hint)


def _rebuild(kind: type[ClipqError], problem: str, hint: str) -> ClipqError:
    return kind(problem, hint=hint)


class SettingsError(ClipqError):
    """`clipq.toml` (or a command-line option) is malformed or contradicts itself."""


class UnknownNameError(ClipqError):
    """A name that no registry, settings table or matrix knows."""


class ModelError(ClipqError):
    """A checkpoint is missing, damaged or cannot be used as a CLIP."""


class ProbeError(ClipqError):
    """A probe's data are missing, damaged, empty or mislabelled."""


class QuantizerError(ClipqError):
    """A quantizer or number format makes no sense, failed, or did not quantize."""


class ArtifactError(ClipqError):
    """An exported file is missing, damaged or not what is said of it, or its runtime refuses it."""


class KernelError(ClipqError):
    """A kernel is called with what it does not take, or cannot run or be built here."""


class BaselineError(ClipqError):
    """A stored baseline is missing, damaged or may not be written."""


class CacheError(ClipqError):
    """The cache directory cannot be used (read-only, full)."""


class StatisticsError(ClipqError):
    """Samples, weights or levels from which no statement can be made."""


class RecordError(ClipqError):
    """A run record is damaged or of an unknown schema version."""


class StudyError(ClipqError):
    """Records of which no table can be made together."""


class SweepError(ClipqError):
    """A sweep's plan, folder, part or engine is not what it must be."""


class StoreError(ClipqError):
    """A history store cannot be opened, read or written, or does not hold what was asked of it."""


class TrainingError(ClipqError):
    """A training cannot begin, go on or be resumed: its data, its folder, its losses or steps."""


def listed(texts: Sequence[str], *, most: int = 3, between: str = ", ") -> str:
    """Return the first `most` of some texts for a sentence, and how many more there are.

    >>> listed(["a", "b"]), listed(["a", "b", "c", "d"]), listed(["a", "b"], most=1, between="; ")
    ('a, b', 'a, b, c and 1 more', 'a; and 1 more')
    """
    more = len(texts) - most
    joined = between.join(texts[:most])
    if more <= 0:
        return joined
    return f"{joined}{';' if between == '; ' else ''} and {more:,} more"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint that lists `known` and, where one is close, names the likely intention.

    >>> did_you_mean("ecee", ["ece", "top1"])
    "did you mean 'ece'? known: ece, top1"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    suggestion = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    return f"{suggestion}known: {', '.join(names) if names else '(none)'}"
