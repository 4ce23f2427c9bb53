"""Probes from images in memory: arrays, or pictures of Pillow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from clipq.data.decoding import check_mode
from clipq.data.image_files import DEFAULT_TEMPLATE
from clipq.data.probe import CAPTIONED, Probe, clustered, fingerprint
from clipq.data.reading import check_captions, check_classes, check_ids
from clipq.errors import ProbeError

__all__ = ["Images", "probe_from_images"]


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Labelled images in memory.

    Args:
        images: N pictures: uint8 pixels (N, H, W, 3), RGB, or a sequence of `PIL.Image.Image`,
            which keep their modes: open_clip converts to RGB after the resize. Floats are refused:
            nobody can tell what their range means.
        labels: (N,) positions in `classnames`; empty for images out of distribution.
        classnames: names for the prompts, in the order that labels count in.
        templates: prompts; ``{c}`` stands for the class name.
        ids: of the samples; by default ``0`` .. ``N - 1``.
        groups: a group per sample, for metrics between groups; empty for none.
        clusters: what each sample belongs to, a patient or a video, say: those of one cluster err
            together and count once; empty where samples are independent.
        captions: a text, or a list of texts, per sample; empty for none.

    >>> import numpy as np
    >>> pictures = np.zeros((2, 32, 32, 3), np.uint8)
    >>> len(Images(pictures, [0, 1], ["cat", "dog"]))
    2
    """

    images: np.ndarray | Sequence[Image.Image]
    labels: Sequence[int] | np.ndarray = ()
    classnames: Sequence[str] = ()
    templates: Sequence[str] = (DEFAULT_TEMPLATE,)
    ids: Sequence[str] = ()
    groups: Sequence[str] = ()
    clusters: Sequence[str] = ()
    captions: Sequence[str | Sequence[str]] = ()

    def __len__(self) -> int:
        return len(self.images)


def probe_from_images(given: Images, *, name: str, role: str) -> Probe:
    """Return images in memory as a probe; each keeps its mode, as open_clip's transform meets it.

    Raises:
        ProbeError: the images are no uint8 RGB pixels or are of a mode that open_clip refuses, or
            labels, ids, groups, clusters or captions do not fit them.

    >>> pictures = np.zeros((2, 32, 32, 3), np.uint8)
    >>> pets = Images(pictures, [0, 1], ["cat", "dog"])
    >>> probe = probe_from_images(pets, name="pets", role="shift")
    >>> probe.ids, probe.labels.tolist(), next(probe.images()).size
    (('0', '1'), [0, 1], (32, 32))
    """
    where = f"probe {name!r}"
    count = len(given)
    ids = tuple(map(str, given.ids)) if len(given.ids) else tuple(map(str, range(count)))
    groups = tuple(map(str, given.groups)) if len(given.groups) else ("",) * count
    unlabelled = role == "ood" or role in CAPTIONED
    labels = np.full(count, -1) if unlabelled else np.asarray(given.labels)
    captions = given.captions if len(given.captions) else None
    columns: tuple[tuple[str, Sized], ...] = (
        *(("labels", labels), ("ids", ids), ("groups", groups)),
        ("captions", ids if captions is None else captions),
    )
    for what, values in columns:
        if len(values) != count:
            raise ProbeError(
                f"{where}: {count} images and {len(values)} {what}",
                hint=f"give as many {what} as images",
            )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ProbeError(
            f"{where}: labels of type {labels.dtype} and shape {labels.shape}",
            hint="whole numbers (N,): positions in `classnames`",
        )
    labels = labels.astype(np.int64)
    check_ids(name, "images in memory", list(ids))
    if not unlabelled and count and not 0 <= labels.min() <= labels.max() < len(given.classnames):
        raise ProbeError(
            f"{where}: labels from {labels.min()} to {labels.max()} for "
            f"{len(given.classnames)} class names",
            hint="labels are positions in `classnames`, counted from 0",
        )
    if role == "in-distribution":
        check_classes(name, "images in memory", tuple(given.classnames), labels.tolist())
    pictures = [_picture(image, f"{where}, image {i}") for i, image in enumerate(given.images)]
    hashes = tuple(hashlib.sha256(_identity(picture)).hexdigest() for picture in pictures)

    def read() -> Iterator[bytes]:  # no file format holds every mode: a picture is its number
        return (str(index).encode() for index in range(count))

    probe = Probe(
        name=name,
        role=role,
        classnames=tuple(given.classnames),
        templates=tuple(given.templates),
        ids=ids,
        labels=labels,
        groups=groups,
        captions=None
        if captions is None
        else check_captions(name, "images in memory", captions, ids),
        sample_hashes=hashes,
        fingerprint=fingerprint(ids, hashes, labels, groups),
        read_encoded=read,
        unpack=lambda encoded, _: pictures[int(encoded)],
    )
    return (
        clustered(probe, "cluster", list(map(str, given.clusters)))
        if len(given.clusters)
        else probe
    )


def _picture(image: Any, where: str) -> Image.Image:
    if isinstance(image, Image.Image):
        return _decoded(image, where)
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or not pixels.size:
        raise ProbeError(
            f"{where}: pixels of type {pixels.dtype} and shape {pixels.shape}",
            hint="give uint8 pixels (H, W, 3), RGB, or a PIL image; floats are never guessed to be "
            "in [0, 1], and channels never to be in front",
        )
    return Image.fromarray(pixels)


def _decoded(image: Image.Image, where: str) -> Image.Image:
    try:
        image.load()
    except Exception as error:  # it may be a file that was opened and not read
        raise ProbeError(
            f"{where}: the image does not decode: {error}", hint="replace or remove it"
        ) from error
    check_mode(image, where)
    if not isinstance(image.info.get("transparency"), bytes):
        return image
    image = image.copy()  # Pillow ignores it where RGB is made, and warns of that
    del image.info["transparency"]
    return image


def _identity(picture: Image.Image) -> bytes:
    """Return bytes that are equal where open_clip sees the same image."""
    pixels = f"{picture.size} ".encode() + picture.tobytes()
    if picture.mode == "RGB":
        return pixels
    return f"{picture.mode} {picture.getpalette() or []} ".encode() + pixels
