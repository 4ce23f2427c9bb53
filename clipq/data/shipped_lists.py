"""Class names and prompt templates that come with clipq, or from a file of one entry a line.

`lists/SOURCES.md` says where each shipped list comes from.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from clipq.data.reading import read_lines
from clipq.errors import ProbeError, did_you_mean

__all__ = ["CLASS_LISTS", "TEMPLATE_LISTS", "class_list", "template_list", "wordnet_names"]

_FOLDER = Path(__file__).parent / "lists"
CLASS_LISTS = ("cifar10", "cifar100", "imagenet1k")
TEMPLATE_LISTS = CLASS_LISTS


def class_list(name: str, base_dir: Path) -> tuple[str, ...]:
    """Return a shipped list of class names, or that of a file.

    Raises:
        ProbeError: there is neither.
    """
    return _entries(name, base_dir, CLASS_LISTS, "classes")


def template_list(name: str, base_dir: Path) -> tuple[str, ...]:
    """Return shipped prompt templates, or those of a file; ``{c}`` stands for the class.

    Raises:
        ProbeError: there is neither.
    """
    return _entries(name, base_dir, TEMPLATE_LISTS, "templates")


@cache
def wordnet_names() -> dict[str, str]:
    """Return the prompt name of each of ImageNet-1k's WordNet ids."""
    ids = read_lines(_FOLDER / "imagenet1k.wnids.txt", None)
    names = read_lines(_FOLDER / "imagenet1k.classes.txt", None)
    return dict(zip(ids, names, strict=True))


def _entries(name: str, base_dir: Path, shipped: tuple[str, ...], kind: str) -> tuple[str, ...]:
    if name in shipped:
        return read_lines(_FOLDER / f"{name}.{kind}.txt", None)
    path = base_dir / name
    if not path.is_file():
        raise ProbeError(
            f"no {kind} {name!r}: neither shipped nor a file {path}",
            hint=did_you_mean(name, shipped),
        )
    return read_lines(path, None)
