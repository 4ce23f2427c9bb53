"""Why a folder of pictures is no data set: a line for each, so that nobody has to guess."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from clipq.cli.onboarding.walk import Folder, Walk

__all__ = ["FEWEST_IMAGES", "class_folders_lacking", "passed_over"]

FEWEST_IMAGES = 20
"""Fewer are a documentation's figures, not a data set."""
_MOST_LINES = 20
_PACKED = (".zip", ".tar.gz", ".tgz", ".rar", ".7z")


def class_folders_lacking(walk: Walk, folder: Folder, splits: frozenset[str]) -> str:
    """Return why the folders in one are no classes of pictures; "" where they are.

    Args:
        walk: that `folder` is of.
        folder: which may hold a folder per class.
        splits: what splits are called; such a folder is no class.
    """
    below = walk.below(folder.path)
    holding = [child for child in below if child.images and "0.tar" not in child.files]
    pictures = sum(child.images for child in below)
    if not holding:
        return "no folder in it holds pictures"
    if all(child.path.name.lower() in splits for child in holding):
        names = ", ".join(child.path.name for child in holding)
        return f"{names}: splits whose pictures lie in no class folders"
    if len(holding) < 2:
        return f"only one folder in it, {holding[0].path.name}, holds pictures: one class is none"
    if len(holding) < len(below):
        others = [child.path.name for child in below if child not in holding]
        return (
            f"{len(holding)} folders in it hold pictures and {len(others)} do not "
            f"({', '.join(others[:3])}): are these classes?"
        )
    if pictures < FEWEST_IMAGES:
        return f"{pictures} pictures in class folders: a data set has {FEWEST_IMAGES} or more"
    return ""


def passed_over(walk: Walk, used: Iterable[PurePosixPath], splits: frozenset[str]) -> list[str]:
    """Return a line for each folder that looks like data and is not used, and why it is not.

    Args:
        walk: of the repository.
        used: roots of the data sets that were found.
        splits: what splits are called.
    """
    roots = set(used)
    said: set[PurePosixPath] = set()
    lines = []
    for path in sorted(walk.folders, key=lambda path: (len(path.parts), str(path))):
        above = {path, *path.parents}
        if above & roots or above & said:
            continue
        why = "; ".join(_reasons(walk, walk[path], roots, splits))
        if why:
            said.add(path)
            name = str(path) if path.parts else "the folder itself"
            lines.append(f"{name} is passed over: {why}")
    more = len(lines) - _MOST_LINES
    return lines[:_MOST_LINES] + ([f"{more} folders more are passed over"] if more > 0 else [])


def _reasons(
    walk: Walk, folder: Folder, roots: set[PurePosixPath], splits: frozenset[str]
) -> Iterator[str]:
    children = walk.below(folder.path)
    # A data set below means that this is a folder of data sets, of which each is looked at.
    nested = any(folder.path in root.parents for root in roots)
    if any(child.images for child in children) and not nested:
        yield class_folders_lacking(walk, folder, splits) or "it lies within another data set"
    if folder.images:
        count = f"{folder.images}{' or more' if folder.more else ''}"
        yield f"{count} pictures lie directly in it: no folder per class, and no list names them"
    if any(name.endswith(".parquet") for name in folder.files):
        yield (
            "Parquet files, which init does not read: if they hold images, "
            f'source = "huggingface:{folder.path}" takes them'
        )
    packed = [name for name in folder.files if name.lower().endswith(_PACKED)]
    if packed:
        yield f"{', '.join(packed[:3])}: unpack what holds images"
