"""Right answers of the calibration split, as classes of the zero-shot head.

A probe's labels are positions in its own list of classes. The calibration split may list fewer
classes than the in-distribution probe, or in another order: its labels are brought to the head's
classes by name, as those of shifted probes are, before a temperature is fitted to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipq.data import Probe, head_columns
from clipq.errors import ProbeError, listed

__all__ = ["KnownLabels", "calibration_remarks", "known_labels"]

_SHOWN = 5
"""Names that a sentence gives before it counts the rest."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownLabels:
    """What the samples (M,) of the calibration split are.

    Args:
        labels: (M,) int: positions in `columns`, or in the head's classes where those are None.
        columns: the head's classes (each once, in parts) that the temperature is fitted to choose
            from; None where each is a part of its own.
        missing: the head's classes that no sample shows.

    >>> KnownLabels(np.array([0, 2])).columns is None
    True
    """

    labels: np.ndarray
    columns: tuple[tuple[int, ...], ...] | None = None
    missing: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


def known_labels(calibration: Probe, known: Probe) -> KnownLabels:
    """Return the calibration split's labels in the classes of the zero-shot head, by name.

    The whole head is kept, as predictions of the in-distribution probe have it: classes that the
    split lacks remain possible answers. Classes of the head that `calibration.class_map` takes for
    one are one there, as similar as the nearest of them.

    Args:
        calibration: the split.
        known: the in-distribution probe, whose classes are the head's.

    Raises:
        ProbeError: samples have no label, or a class is none of the head's.

    >>> from clipq.data import Images, probe_from_images
    >>> pixels = np.arange(4 * 192, dtype=np.uint8).reshape(4, 8, 8, 3)
    >>> few = Images(pixels[:2], labels=[0, 1], classnames=["owl", "cat"])
    >>> more = Images(pixels[2:], labels=[0, 2], classnames=["cat", "dog", "owl"])
    >>> split = probe_from_images(few, name="calibration", role="calibration")
    >>> found = known_labels(split, probe_from_images(more, name="id", role="shift"))
    >>> found.labels.tolist(), found.missing
    ([2, 0], ('dog',))
    """
    labels, classes = calibration.labels, known.classnames
    wrong = int(((labels < 0) | (labels >= len(calibration.classnames))).sum())
    if wrong:
        raise ProbeError(
            f"probe {calibration.name!r}: {wrong:,} of {len(labels):,} samples have no label among "
            f"its {len(calibration.classnames)} classes",
            hint="the temperature is fitted to the right answers of the calibration split, and "
            "distances are to its classes: give labels, as the in-distribution probe has",
        )
    own = head_columns(
        calibration.name, calibration.classnames, calibration.class_map, classes
    ) or tuple((column,) for column in range(len(classes)))
    shown = {column for label in np.unique(labels).tolist() for column in own[label]}
    missing = tuple(name for column, name in enumerate(classes) if column not in shown)
    if all(len(part) == 1 for part in own):
        return KnownLabels(np.array([part[0] for part in own], np.int64)[labels], None, missing)
    listed = {column for part in own for column in part}
    rest = [(column,) for column in range(len(classes)) if column not in listed]
    return KnownLabels(labels, (*own, *rest), missing)


def calibration_remarks(found: KnownLabels, classes: Sequence[str]) -> list[str]:
    """Return what a reader should know of a calibration split, as sentences.

    Args:
        found: its labels.
        classes: the head's classes.

    >>> calibration_remarks(KnownLabels(np.array([0]), missing=("dog",)), ["cat", "dog"])
    ["the calibration split shows no sample of 1 of 2 classes ('dog'): the temperature, ..."]
    """
    if not found.missing:
        return []
    names = listed([*map(repr, found.missing)], most=_SHOWN)
    return [
        f"the calibration split shows no sample of {len(found.missing)} of {len(classes)} classes "
        f"({names}): the temperature, class distances and "
        "activation ranges are fitted without them"
    ]
