"""Which files are samples by their names, in every source."""

from __future__ import annotations

__all__ = ["IMAGES", "ending", "is_hidden", "is_image"]

IMAGES = ("jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp")
"""Endings of image files, lower case: those of torchvision's `IMG_EXTENSIONS`."""
_LEFT_BEHIND = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "__pycache__", "lost+found")
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or left behind by a system: never a sample or a class.

    >>> [is_hidden(name) for name in (".ipynb_checkpoints", "__MACOSX", "._cat.png", "cat.png")]
    [True, True, True, False]
    """
    return name in _LEFT_BEHIND or (name.startswith(".") and name not in (".", ".."))


def is_image(name: str) -> bool:
    """Whether a file is a sample by its name: torchvision's endings, in any case, and not hidden.

    >>> [is_image(name) for name in ("a.PNG", "b.tiff", "c.gif", "._d.png", "e")]
    [True, True, False, False, False]
    """
    return ending(name) in IMAGES and not is_hidden(name)


def ending(name: str) -> str:
    """Return what follows the last full stop of a name, in lower case; "" where there is none.

    >>> ending("a.tar.GZ"), ending("README")
    ('gz', '')
    """
    return name.rpartition(".")[2].lower() if "." in name else ""
