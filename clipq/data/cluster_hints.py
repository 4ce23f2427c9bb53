"""Ids that look as if samples belong together: frames of a video, pictures of one patient.

A name such as ``p017_frame03.png`` has a stem and what tells it from others of that stem. Numbers
that only count (``img_0001.png``), classes (``n01440764_10026.JPEG``), parts of a collection
(``batch03_0001.png``) and serial numbers that no two stems share are no sign of anything. Where
labels do not tell which stems are classes, a stem must say what it is (``patient7``), or the
endings must be no bare numbers.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["SharedStems", "shared_stems"]

_FEWEST = 10
"""Stems below which they are parts of a collection: batches, years, styles."""
_MOST_ALONE = 0.2
"""Share of samples that may be alone with their stem."""
_MOST_SERIAL = 0.7
"""Share of endings that may occur once: what tells frames apart recurs from video to video."""
_MOST_OF_WORDS = 1 / 3
"""Samples of a stem over stems, where these are words: classes and styles are few and large."""
_OF_ONE = {
    *("animal", "burst", "case", "clip", "eye", "lesion", "obj", "object", "p", "participant"),
    *("patient", "person", "pt", "recording", "scan", "scene", "seq", "sequence", "series"),
    *("session", "shot", "slide", "study", "sub", "subj", "subject", "track", "user"),
    *("vid", "video", "vol", "volume"),
}
"""What numbered stems are called whose samples surely belong together."""
_CLASS = {"c", "category", "class", "cls", "label"}
_OF_MANY = {"batch", "chunk", "domain", "fold", "part", "shard", "split"} | (_CLASS - {"c"})
"""What those are called whose samples have nothing in common, or their class."""
_ENDING = re.compile(r"(.*[^\W_])[\W_]+([^\W_]+)[)\]}]?")
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
    return _shared(ids, labels, _by_names(ids)) or _shared(ids, labels, by_folder)


_Parts = tuple[str, str, str]


def _by_names(ids: Sequence[str]) -> list[_Parts | None]:
    """Return folder, stem and ending of each name; None where it is of one part.

    A name that is another's stem belongs to it: ``img3.png`` beside ``img3 (1).png``.
    """
    names = [sample.rpartition("/")[::2] for sample in ids]
    found = [_by_name(folder, _bare(name)) for folder, name in names]
    stems = {part[:2] for part in found if part is not None}
    whole = [(folder, _bare(name)) for folder, name in names]
    return [
        (*own, "") if part is None and own in stems else part
        for part, own in zip(found, whole, strict=True)
    ]


def _by_name(folder: str, name: str) -> _Parts | None:
    found = _ENDING.fullmatch(name) or _CAMEL.fullmatch(name)
    return None if found is None else (folder, found[1], found[2])


def _by_folder(sample: str, *, labelled: bool) -> _Parts | None:
    """Return the folders above, the last one and the name; None where there is none.

    Without labels nobody knows whether the only folder is a class: it is taken for one, unless it
    says what it is.
    """
    folder, slash, name = sample.rpartition("/")
    above, _, last = folder.rpartition("/")
    sure = above or labelled or _called("", last) in _OF_ONE
    return (above, last, _bare(name)) if slash and sure else None


def _bare(name: str) -> str:
    return re.sub(r"\.[A-Za-z]{2,5}$", "", name)


def _called(folder: str, stem: str) -> str:
    """Return what a numbered stem is called; a bare number, what the folder that it is in is."""
    found = re.search(r"([A-Za-z]+)[\W_]*\d+$", stem)
    if found is not None:
        return found[1].lower()
    return folder.rpartition("/")[2].lower().removesuffix("s") if stem.isdecimal() else ""


def _without_stem(cut: Sequence[_Parts]) -> list[_Parts]:
    """Return names without the stem's number, where every ending repeats it: vid007_007003."""
    numbers = [re.search(r"\d{2,}$", stem) for _, stem, _ in cut]
    kept = [
        (folder, stem, ending[len(number[0]) :])
        for (folder, stem, ending), number in zip(cut, numbers, strict=True)
        if number is not None and ending.startswith(number[0]) and ending != number[0]
    ]
    return kept if len(kept) == len(cut) else list(cut)


def _shared(
    ids: Sequence[str], labels: np.ndarray, parts: Sequence[_Parts | None]
) -> SharedStems | None:
    places = [at for at, part in enumerate(parts) if part is not None]
    cut = _without_stem([part for part in parts if part is not None])
    if len(cut) < (1.0 - _MOST_ALONE) * len(ids):
        return None
    # Where names recur from folder to folder, each folder counts on its own.
    restarts = len({(stem, ending) for _, stem, ending in cut}) < len(cut)
    members: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for number, (folder, stem, _) in enumerate(cut):
        members[folder if restarts else "", stem].append(number)
    together = [held for held in members.values() if len(held) > 1]
    samples = sum(map(len, together))
    if len(together) < _FEWEST or samples < (1.0 - _MOST_ALONE) * len(ids):
        return None
    own = labels[places]
    if not _likely(
        [[cut[at] for at in held] for held in together], labelled=bool((own >= 0).any())
    ):
        return None
    if _is_class(together, own, cut) or _is_grid(own, cut):
        return None
    first, second = (ids[places[at]] for at in together[0][:2])
    return SharedStems(len(together), samples, (first, second))


def _likely(together: Sequence[Sequence[_Parts]], *, labelled: bool) -> bool:
    """Return whether names of stems and endings look like parts of something."""
    endings = Counter(ending for held in together for _, _, ending in held)
    samples, stems = sum(endings.values()), [held[0][1] for held in together]
    if sum(count == 1 for count in endings.values()) > _MOST_SERIAL * samples:
        return False
    if _most(bool(_WORDNET.fullmatch(stem)) for stem in stems):
        return False
    called = [_called(held[0][0], held[0][1]) for held in together]
    if _most(name in _OF_MANY for name in called):
        return False
    if _most(name in _OF_ONE for name in called):
        return True
    counted = _most(ending.isdecimal() for ending in endings)
    if counted and not labelled:
        return False
    if _most(bool(re.search(r"\d", stem)) for stem in stems):
        return labelled or not _most(_called("", ending) in _CLASS for ending in endings)
    distinct = len(set(stems))
    size = samples / len(together) if counted else len(endings)
    return distinct >= _FEWEST and size <= _MOST_OF_WORDS * distinct


def _most(found: Iterable[bool]) -> bool:
    held = list(found)
    return sum(held) > 0.5 * len(held)


def _is_class(together: list[list[int]], labels: np.ndarray, cut: Sequence[_Parts]) -> bool:
    """Return whether stems tell the class, or the folder that is one, and nothing more."""
    stems_of: defaultdict[int | str, set[int]] = defaultdict(set)
    for number, held in enumerate(together):
        for at in held:
            stems_of[int(labels[at]) if labels[at] >= 0 else cut[at][0]].add(number)
    return _most(len(stems) == 1 for stems in stems_of.values())


def _is_grid(labels: np.ndarray, cut: Sequence[_Parts]) -> bool:
    """Return whether endings tell the class, and stems are not known to be of one thing."""
    classes: defaultdict[str, set[int]] = defaultdict(set)
    for label, (_, _, ending) in zip(labels.tolist(), cut, strict=True):
        classes[ending].add(label)
    told = len(classes) > 1 and len(set(labels.tolist())) > 1
    told = told and all(len(found) == 1 for found in classes.values())
    return told and not _most(_called(folder, stem) in _OF_ONE for folder, stem, _ in cut)
