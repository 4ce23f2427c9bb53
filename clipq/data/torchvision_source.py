"""CIFAR-10 and CIFAR-100 as torchvision keeps them: `torchvision:CIFAR10@data`.

The location is the data set's name, then `@` and the folder that holds its files (the one that
torchvision's `root` names). `split` is `train` or `test`. Nothing is downloaded: torchvision's own
checksums decide whether the files are there and whole. An `attributes.csv` in the folder, by the
ids `test-00000` and so on, says which samples belong together: `cluster`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clipq.data.attributes import read_attribute
from clipq.data.probe import Probe, fingerprint
from clipq.data.shipped_lists import class_list, template_list
from clipq.data.sources import Source
from clipq.errors import ProbeError, did_you_mean

__all__ = ["TORCHVISION"]

_LISTS = {"CIFAR10": "cifar10", "CIFAR100": "cifar100"}
_FOLDERS = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}


def _open(location: str, *, name: str, role: str, split: str, base_dir: Path, group: str) -> Probe:
    """Open a probe from torchvision's files; see `clipq.data.open_probe`."""
    from torchvision import datasets

    kind, root = _named(location, name, split, base_dir, group)
    try:
        dataset = getattr(datasets, kind)(root=str(root), train=split == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise _incomplete(kind, root, name, str(error)) from error
    pixels: np.ndarray = dataset.data
    labels = np.array(dataset.targets, dtype=np.int64)
    hashes = tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in pixels)
    ids = tuple(f"{split}-{index:05d}" for index in range(len(pixels)))
    if role == "ood":
        labels[:] = -1  # their classes are not among those of the zero-shot head
    groups = ("",) * len(ids)
    return Probe(
        name=name,
        role=role,
        classnames=class_list(_LISTS[kind], base_dir),
        templates=template_list(_LISTS[kind], base_dir),
        ids=ids,
        labels=labels,
        groups=groups,
        captions=None,
        sample_hashes=hashes,
        fingerprint=fingerprint(ids, hashes, labels, groups),
        read_encoded=lambda: _encoded(pixels),
    )


def _look(location: str, *, name: str, role: str, split: str, base_dir: Path) -> dict[str, int]:
    """Look for torchvision's folder and count its classes; see `clipq.data.sources.Look`."""
    kind, root = _named(location, name, split, base_dir, "")
    if not (root / _FOLDERS[kind]).is_dir():
        raise _incomplete(kind, root, name, f"no folder {_FOLDERS[kind]}")
    return {"classes": len(class_list(_LISTS[kind], base_dir))}


def _attribute(
    location: str, column: str, *, name: str, split: str, base_dir: Path, ids: Sequence[str]
) -> tuple[str, ...]:
    _, root = _named(location, name, split, base_dir, "")
    return read_attribute(root, ids, column, name, None)


TORCHVISION = Source(_open, _look, attribute=_attribute)
"""The source ``torchvision:LOCATION``."""


def _named(location: str, name: str, split: str, base_dir: Path, group: str) -> tuple[str, Path]:
    """Return the data set that a location names, and the folder that holds it."""
    kind, _, folder = location.partition("@")
    if kind not in _LISTS or not folder:
        raise ProbeError(
            f"probe {name!r}: torchvision data set {location!r}",
            hint=f"write torchvision:CIFAR10@FOLDER; {did_you_mean(kind, _LISTS)}",
        )
    if split not in ("train", "test") or group:
        raise ProbeError(
            f"probe {name!r}: split {split!r}, group {group!r}",
            hint=f"{kind} has the splits 'train' and 'test', and no groups",
        )
    return kind, base_dir / folder


def _incomplete(kind: str, root: Path, name: str, why: str) -> ProbeError:
    return ProbeError(
        f"probe {name!r}: {kind} is not whole in {root}: {why}",
        hint='where there is a network: python -c "from torchvision.datasets import '
        f"{kind}; {kind}('{root}', download=True)\"; then copy the folder here",
    )


def _encoded(pixels: np.ndarray) -> Iterator[bytes]:
    for image in pixels:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", compress_level=1)
        yield stream.getvalue()
