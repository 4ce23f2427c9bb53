"""ObjectNet's own account of which of ImageNet's classes its 313 classes are.

Barbu et al. 2019, "ObjectNet: A large-scale bias-controlled dataset for pushing the limits of
object recognition models", ship four files in `mappings`: from folder to label, from label to
ImageNet's labels (joined by "; ", several for some), from an ImageNet label to its 2012 id by its
line, and from PyTorch's class to that id. ImageNet's classes are named here as prompts name them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from clipq.data.reading import read_lines
from clipq.data.shards import Checksums
from clipq.data.shipped_lists import class_list
from clipq.errors import ProbeError, did_you_mean
from clipq.provenance import sha256_file
from clipq.shapes import Document

__all__ = ["MAPPINGS", "read_objectnet_map"]

MAPPINGS = "mappings"
_TO_IMAGENET = "objectnet_to_imagenet_1k.json"

T = TypeVar("T")


def read_objectnet_map(
    root: Path, checksums: Checksums | None
) -> dict[str, tuple[str, ...]] | None:
    """Return ImageNet's classes for each of ObjectNet's, by its folder's name without underscores.

    A class that ImageNet does not have stands for none. None where `root` has no such files.

    Raises:
        ProbeError: a file is missing or malformed, or speaks of a label that another lacks.

    >>> print(read_objectnet_map(Path("fixtures/data/shapes"), None))  # it is not ObjectNet
    None
    """
    folder = root / MAPPINGS
    if not (folder / _TO_IMAGENET).is_file():
        return None
    labels = _read(folder / "folder_to_objectnet_label.json", dict[str, str], checksums)
    known = _read(folder / _TO_IMAGENET, dict[str, str], checksums)
    position = {
        number: place
        for place, number in _read(
            folder / "pytorch_to_imagenet_2012_id.json", dict[str, int], checksums
        ).items()
    }
    lines = read_lines(folder / "imagenet_to_label_2012_v2", checksums)
    names = class_list("imagenet1k", root)
    classes = {label: position.get(number, "") for number, label in enumerate(lines)}

    def name_of(label: str) -> str:
        place = classes.get(label, "")
        if not place.isdecimal() or int(place) >= len(names) or lines.count(label) > 1:
            raise ProbeError(
                f"{folder / _TO_IMAGENET}: {label!r} is not one of ImageNet's classes in the files "
                "beside it",
                hint=f"{did_you_mean(label, classes)}; restore ObjectNet's folder {MAPPINGS!r}",
            )
        return names[int(place)]

    return {
        place.replace("_", " "): tuple(
            dict.fromkeys(map(name_of, known[label].split("; "))) if label in known else ()
        )
        for place, label in labels.items()
    }


def _read(path: Path, shape: type[T], checksums: Checksums | None) -> T:
    fix = f"restore ObjectNet's folder {MAPPINGS!r}"
    found = Document(path, "JSON", ProbeError, fix).read(shape)
    if checksums is not None:
        checksums.verify(path, sha256_file(path))
    return found
