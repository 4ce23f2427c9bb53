"""A walk through a repository that ends: bounded, never through one folder twice, never raising."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

from clipq.data.image_names import is_image

__all__ = ["Folder", "Limits", "Walk", "walk"]

_SKIPPED = frozenset(
    {"node_modules", "__pycache__", "site-packages", "venv", "env", "build", "dist", "wandb"}
)
_VIRTUAL = "pyvenv.cfg"


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a walk stops.

    Args:
        entries: names read in all.
        in_folder: names read of one folder.
        images: images seen in a folder, with nothing else, after which it is left: there are more
            of the same.
        depth: folders below the root.
    """

    entries: int = 200_000
    in_folder: int = 5_000
    images: int = 40
    depth: int = 8


@dataclass(frozen=True, slots=True)
class Folder:
    """What was read of one folder: names, sorted; `more` where not all were read."""

    path: PurePosixPath
    files: tuple[str, ...]
    folders: tuple[str, ...]
    more: bool = False

    @property
    def images(self) -> int:
        """Image files among those read."""
        return sum(map(is_image, self.files))


@dataclass(slots=True)
class Walk:
    """Folders by path relative to `root`, and what was not looked at and why."""

    root: Path
    folders: dict[PurePosixPath, Folder] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    stopped: str = ""

    def __getitem__(self, path: PurePosixPath) -> Folder:
        return self.folders[path]

    def below(self, path: PurePosixPath) -> list[Folder]:
        """Return the folders directly below one, those that were read."""
        inner = (path / name for name in self.folders[path].folders)
        return [self.folders[child] for child in inner if child in self.folders]


def walk(root: Path, limits: Limits | None = None) -> Walk:
    """Read the folders at and below `root`, those nearest to it first.

    Version control, virtual environments, caches and other hidden folders are skipped. Links to
    folders are followed, each real folder once. What cannot be read is noted.
    """
    limits = limits or Limits()
    walked = Walk(root)
    seen: set[tuple[int, int]] = set()
    waiting: deque[tuple[PurePosixPath, int]] = deque([(PurePosixPath("."), 0)])
    left = limits.entries
    too_deep = 0
    while waiting:
        path, depth = waiting.popleft()
        try:
            status = (root / path).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            folder, used = _read(root, path, min(limits.in_folder, left), limits.images)
        except OSError as error:
            walked.unreadable.append(f"{path}: {error.strerror or error}")
            continue
        if _VIRTUAL in folder.files:
            continue
        walked.folders[path] = folder
        left -= used
        if left <= 0:
            rest = f"{len(waiting)} folders more"
            walked.stopped = f"after {limits.entries:,} names, at {path}; {rest}"
            break
        if depth == limits.depth:
            too_deep += bool(folder.folders)
            continue
        waiting.extend((path / name, depth + 1) for name in folder.folders)
    if too_deep and not walked.stopped:
        walked.stopped = f"{limits.depth} folders deep; {too_deep} go deeper"
    return walked


def _read(root: Path, path: PurePosixPath, most: int, images: int) -> tuple[Folder, int]:
    """Return a folder and how many names were read of it."""
    files: list[str] = []
    folders: list[str] = []
    seen = pictures = 0
    more = True
    with os.scandir(root / path) as entries:
        for entry in islice(entries, max(most, 1)):
            seen += 1
            if _is_folder(entry):
                if not entry.name.startswith(".") and entry.name not in _SKIPPED:
                    folders.append(entry.name)
            else:
                files.append(entry.name)
                pictures += is_image(entry.name)
            if pictures >= images and pictures == len(files) and not folders:
                break
        else:
            more = next(entries, None) is not None
    return Folder(path, tuple(sorted(files)), tuple(sorted(folders)), more), seen


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link whose target cannot be looked at
        return False
