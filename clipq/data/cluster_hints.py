"""Ids that look as if samples belong together: frames of a video, pictures of one patient.

A name such as ``p017_frame03.png`` has a stem and what tells it from others of that stem. Numbers
that only count (``img_0001.png``), classes (``n01440764_10026.JPEG``) and serial numbers that no
two stems share are no sign of anything.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["SharedStems", "shared_stems"]

_FEWEST = 10
"""Stems below which they are parts of a collection: batches, years, styles."""
_MOST_ALONE = 0.2
"""Share of samples that may be alone with their stem."""
_MOST_SERIAL = 0.7
"""Share of endings that may occur once: what tells frames apart recurs from video to video."""
_ENDING = re.compile(r"(.*[^\W_])[\W_]+([^\W_]+)")
_CAMEL = re.compile(r"(.*\d)([A-Za-z]+\d*)")
_WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True, slots=True)
class SharedStems:
    """Stems that ids share: how many of how many samples, and two samples of one.

    >>> SharedStems(40, 120, ("p1_a.png", "p1_b.png")).stems
    40
    """

    stems: int
    samples: int
    example: tuple[str, str]


def shared_stems(ids: Sequence[str], labels: np.ndarray) -> SharedStems | None:
    """Return the stems that most ids share, by what is last in the name or by the folder.

    Args:
        ids: of the samples (N,), paths or keys.
        labels: (N,); -1 where out of distribution. Stems that tell no more than the class are none.

    >>> emoji = [f"{code:x}_{style}.png" for code in range(0x1f600, 0x1f620)
    ...          for style in ("noto", "twemoji")]
    >>> found = shared_stems(emoji, np.arange(64) // 8)
    >>> found.stems, found.samples, found.example
    (32, 64, ('1f600_noto.png', '1f600_twemoji.png'))
    >>> print(shared_stems([f"img_{number:04}.png" for number in range(64)], np.arange(64) // 8))
    None
    """
    labelled = bool((labels >= 0).any())
    by_folder = [_by_folder(name, labelled=labelled) for name in ids]
    return _shared(ids, labels, list(map(_by_name, ids))) or _shared(ids, labels, by_folder)


def _by_name(sample: str) -> tuple[str, str, str] | None:
    """Return folder, stem and ending of a name; None where it is of one part."""
    folder, _, name = sample.rpartition("/")
    stem = re.sub(r"\.[A-Za-z]{2,5}$", "", name)
    found = _ENDING.fullmatch(stem) or _CAMEL.fullmatch(stem)
    return None if found is None else (folder, found[1], found[2])


def _by_folder(sample: str, *, labelled: bool) -> tuple[str, str, str] | None:
    """Return the folders above, the last one and the name; None where there is none.

    Without labels nobody knows whether the only folder is a class: it is taken for one.
    """
    folder, slash, name = sample.rpartition("/")
    above, _, last = folder.rpartition("/")
    return (above, last, name) if slash and (above or labelled) else None


def _shared(
    ids: Sequence[str], labels: np.ndarray, parts: Sequence[tuple[str, str, str] | None]
) -> SharedStems | None:
    cut = [(at, *part) for at, part in enumerate(parts) if part is not None]
    if len(cut) < (1.0 - _MOST_ALONE) * len(ids):
        return None
    # Where names recur from folder to folder, each folder counts on its own.
    restarts = len({(stem, ending) for _, _, stem, ending in cut}) < len(cut)
    members: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for at, folder, stem, _ in cut:
        members[folder if restarts else "", stem].append(at)
    together = [held for held in members.values() if len(held) > 1]
    samples = sum(map(len, together))
    if len(together) < _FEWEST or samples < (1.0 - _MOST_ALONE) * len(ids):
        return None
    stems = [stem for (_, stem), held in members.items() if len(held) > 1]
    counts = Counter(ending for _, _, _, ending in cut)
    serial = sum(count == 1 for count in counts.values())
    numbered = sum(bool(re.search(r"\d", stem)) for stem in stems)
    if (
        serial > _MOST_SERIAL * len(cut)
        or numbered < 0.5 * len(stems)
        or sum(bool(_WORDNET.fullmatch(stem)) for stem in stems) > 0.5 * len(stems)
        or _is_class(together, labels, cut)
    ):
        return None
    return SharedStems(len(together), samples, (ids[together[0][0]], ids[together[0][1]]))


def _is_class(
    together: list[list[int]], labels: np.ndarray, cut: list[tuple[int, str, str, str]]
) -> bool:
    """Return whether stems tell the class, or the folder that is one, and nothing more."""
    stems_of: defaultdict[int | str, set[int]] = defaultdict(set)
    folder_of = {at: folder for at, folder, _, _ in cut}
    for number, held in enumerate(together):
        for at in held:
            stems_of[int(labels[at]) if labels[at] >= 0 else folder_of[at]].add(number)
    return sum(len(stems) == 1 for stems in stems_of.values()) > 0.5 * len(stems_of)
