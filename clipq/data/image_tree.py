"""Files of class folders, found as torchvision finds them: links to folders are followed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from clipq.data.image_names import is_hidden, is_image
from clipq.data.image_signatures import first_bytes
from clipq.data.reading import check_names
from clipq.data.unread_files import PassedOver
from clipq.errors import ProbeError

__all__ = ["class_folders", "image_tree"]


def class_folders(folder: Path, name: str) -> list[str]:
    """Return the names of the folders in one, sorted, but for hidden ones.

    Raises:
        ProbeError: it cannot be read, or a name is not UTF-8.
    """
    entries = _entries(folder, name)
    found = [entry.name for entry in entries if _is_folder(entry) and not is_hidden(entry.name)]
    check_names(name, folder, found)
    return sorted(found)


def image_tree(
    folder: Path, classes: Sequence[str], name: str, *, layout: Collection[str] = ()
) -> tuple[list[tuple[str, int]], PassedOver]:
    """Return the images below class folders, relative to `folder`, and what else is there.

    Each image comes with the position of its class; they are ordered by class and path.

    Args:
        folder: that holds the class folders.
        classes: their names, in the order of the labels.
        name: of the probe, for messages.
        layout: names of files beside the class folders that are read for what they say.

    Raises:
        ProbeError: a folder cannot be read, or a link to a folder leads in a circle.
    """
    found: list[tuple[str, int]] = []
    unread = [
        f"{entry.name}/" if _is_folder(entry) else entry.name
        for entry in _entries(folder, name)
        if is_hidden(entry.name) or not (_is_folder(entry) or entry.name in layout)
    ]
    for label, class_name in enumerate(classes):
        images: list[str] = []
        for file in _walk(folder, class_name, name):
            (images if is_image(file.rpartition("/")[2]) else unread).append(file)
        # As paths are ordered: by folder, then by name.
        found += [(file, label) for file in sorted(images, key=lambda file: file.split("/"))]
    read = [file for file, _ in found]
    return found, PassedOver.of(unread, read, head=lambda file: first_bytes(folder / file))


def _walk(folder: Path, below: str, name: str) -> Iterator[str]:
    """Yield files at and below a folder in `folder`; a hidden folder's name ends in a slash."""
    root = Path(os.path.realpath(folder))
    real = Path(os.path.realpath(folder / below))
    _check_circle(folder / below, real, [root], name)
    # Each folder waits with those that lead to it, as far as links were followed.
    waiting: list[tuple[str, tuple[Path, ...]]] = [(below, (root, real))]
    while waiting:
        path, above = waiting.pop()
        for entry in _entries(folder / path, name):
            inner = f"{path}/{entry.name}"
            if not _is_folder(entry):
                yield inner
            elif is_hidden(entry.name):
                yield f"{inner}/"
            elif not entry.is_symlink():
                waiting.append((inner, above))
            else:
                here = Path(os.path.realpath(folder / path))
                real = Path(os.path.realpath(entry.path))
                _check_circle(entry.path, real, [*above, here], name)
                waiting.append((inner, (*above, here, real)))


def _check_circle(link: Path | str, real: Path, above: Sequence[Path], name: str) -> None:
    """Refuse a link to what holds it, or holds the folder that all samples lie in.

    Raises:
        ProbeError: it leads to one of the folders that lead to it, or to what holds one of them.
    """
    if any(one.is_relative_to(real) for one in above):
        raise ProbeError(
            f"probe {name!r}: {link} links to {real}, which holds it",
            hint="remove the link: below it the same images would be found for ever",
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entries(folder: Path, name: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise ProbeError(
            f"probe {name!r}: {folder} cannot be read: {error.strerror or error}",
            hint="restore the folder or its permissions",
        ) from error
