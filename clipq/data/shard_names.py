"""Which shards a split has: those that it announces or, of images and captions, all by number."""

from __future__ import annotations

import re
from pathlib import Path

from clipq.data.image_names import is_hidden
from clipq.data.reading import read_lines
from clipq.data.shards import Checksums
from clipq.errors import ProbeError, did_you_mean, listed

__all__ = ["split_shards"]

_COUNT = "nshards.txt"
_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<number>[0-9]{1,9})\.tar")


def split_shards(
    root: Path, split: str, name: str, checksums: Checksums | None, *, labelled: bool
) -> list[Path]:
    """Return the shards of a split, in order; the split holds no others.

    ``<root>/<split>/nshards.txt`` says how many there are. Pairs of images and captions, as tools
    that download them write them, do without: all shards of ``<root>/<split>`` are taken, which
    differ in a number, or those of ``<root>`` that are called ``...<split>-0000.tar`` and so on.

    Args:
        root: folder that `source` names.
        split: which split of it.
        name: of the probe, for messages.
        checksums: that files must match; None for none.
        labelled: whether samples have classes.

    Raises:
        ProbeError: there is no such split, or it lacks or holds other shards.

    >>> root = Path("fixtures/data/shapes")
    >>> [shard.name for shard in split_shards(root, "test", "id", None, labelled=True)]
    ['0.tar', '1.tar']
    """
    folder = root / split
    if split and not labelled and not (folder / _COUNT).is_file():
        found = _shards(folder, "") if folder.is_dir() else _shards(root, split)
        if found:
            return _in_order(found, name)
    if not split or not folder.is_dir():
        known = [entry.name for entry in root.iterdir() if entry.is_dir()]
        raise ProbeError(
            f"probe {name!r}: no split {split!r} in {root}", hint=did_you_mean(split, known)
        )
    return _announced(folder, name, checksums)


def _announced(folder: Path, name: str, checksums: Checksums | None) -> list[Path]:
    text = "\n".join(read_lines(folder / _COUNT, checksums))
    if not re.fullmatch("[1-9][0-9]{0,6}", text):
        raise ProbeError(
            f"probe {name!r}: {folder / _COUNT} says {text!r}",
            hint="it holds the number of shards, 1 or more",
        )
    announced = [folder / f"{index}.tar" for index in range(int(text))]
    extra = sorted(path.name for path in set(folder.glob("*.tar")) - set(announced))
    if extra:
        raise ProbeError(
            f"probe {name!r}: {folder} holds {extra[0]}, but {_COUNT} announces {text} shards",
            hint=f"correct {_COUNT}, or remove the shard: an unread one is not evaluated",
        )
    return announced


def _shards(folder: Path, split: str) -> list[Path]:
    """Return the shards in a folder that are called by a split; by "" all of them."""
    of_split = re.compile(rf"(.*[-_.])?{re.escape(split)}[-_.]?[0-9]+\.tar")
    return sorted(
        path
        for path in folder.glob("*.tar")
        if not is_hidden(path.name) and (not split or of_split.fullmatch(path.name))
    )


def _in_order(found: list[Path], name: str) -> list[Path]:
    """Return shards in the order of their numbers, none of which may be missing.

    Raises:
        ProbeError: one has no number, some are of another data set, or numbers are left out.
    """
    matches = {path: _NUMBERED.fullmatch(path.name) for path in found}
    stems = sorted({match["stem"] for match in matches.values() if match})
    plain = [path.name for path, match in matches.items() if match is None]
    if plain or len(stems) > 1:
        what = f"{plain[0]}, which has no number" if plain else f"shards {listed(stems)}..."
        raise ProbeError(
            f"probe {name!r}: {found[0].parent} holds {what}",
            hint="keep the shards of one split in a folder, called 00000.tar and so on; or name "
            "what comes before the number as `split`",
        )
    numbers = {path: int(match["number"]) for path, match in matches.items() if match}
    ordered = sorted(found, key=lambda path: numbers[path])
    first = min(numbers.values())
    for wanted, path in enumerate(ordered, first):
        if numbers[path] != wanted or first > 1:
            raise ProbeError(
                f"probe {name!r}: {path.parent} lacks the shard before {path.name}, or holds it "
                f"twice: {len(ordered)} from {ordered[0].name} to {ordered[-1].name}",
                hint="shards count from 0 or 1 without a gap: bring the others, or write their "
                f"number into {_COUNT} and call them 0.tar, 1.tar and so on",
            )
    return ordered
