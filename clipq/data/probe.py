"""What a probe is: samples with identity, and what they are asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from clipq.cluster_names import cluster_column, named_clusters
from clipq.data.decoding import decode_image
from clipq.data.unread_files import PassedOver
from clipq.errors import ProbeError
from clipq.provenance import digest

__all__ = ["CAPTIONED", "Probe", "clustered", "fingerprint", "hashed_order", "taken"]

CAPTIONED = ("proxy", "retrieval")
"""Roles that are about images and captions: nothing is read of classes."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A labelled evaluation set.

    `labels` (N,) int64 index `classnames`; they are all -1 where the role is ``ood``.
    `sample_hashes` are sha256 of the encoded images; `fingerprint` is the digest of ids, sample
    hashes, labels and groups (and of what alters the images): what a result was measured on.
    `captions` is None where the probe has none; an image's captions are one a line.

    `clusters` names what each sample belongs to (`clipq.cluster_names`): what a column of its
    attributes says, or the base image where several share one. `class_map` names, for
    each class, the classes of the zero-shot head that stand for it; None where a class stands for
    itself. `read_encoded` yields the encoded images in order and `unpack` decodes one, given what
    messages call it (None: as a file); `alter` changes a decoded image, given its position, and
    `locate` says in which file it lies. `passed_over` is the account of files
    that lie beside the samples and are not read.

    >>> from clipq.data import open_probe
    >>> from pathlib import Path
    >>> source = "webdataset:fixtures/data/captions"
    >>> where = {"source": source, "split": "test", "base_dir": Path()}
    >>> probe = open_probe(name="captions", role="retrieval", **where)
    >>> len(probe), next(probe.images()).size, len(probe.captions)
    (256, (32, 32), 256)
    """

    name: str
    role: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    ids: tuple[str, ...]
    labels: np.ndarray
    groups: tuple[str, ...]
    captions: tuple[str, ...] | None
    sample_hashes: tuple[str, ...]
    fingerprint: str
    read_encoded: Callable[[], Iterator[bytes]] = field(repr=False)
    alter: Callable[[Image.Image, int], Image.Image] | None = field(default=None, repr=False)
    locate: Callable[[int], str] | None = field(default=None, repr=False)
    unpack: Callable[[bytes, str], Image.Image] | None = field(default=None, repr=False)
    clusters: tuple[str, ...] | None = None
    class_map: tuple[tuple[str, ...], ...] | None = None
    passed_over: PassedOver = field(default_factory=PassedOver)

    def __len__(self) -> int:
        return len(self.ids)

    def images(self) -> Iterator[Image.Image]:
        """Yield the images in the order of `ids`, each in its own mode, decoded one at a time.

        Raises:
            ProbeError: an image does not decode.
        """
        for position, encoded in enumerate(self.read_encoded()):
            yield self.decode(encoded, position)

    def decode(self, encoded: bytes, position: int) -> Image.Image:
        """Return the image at a position from its encoded bytes, in its own mode.

        Raises:
            ProbeError: it does not decode.
        """
        image = (self.unpack or decode_image)(encoded, self.where(position))
        return image if self.alter is None else self.alter(image, position)

    def where(self, position: int) -> str:
        """Return what a message calls the sample at a position."""
        where = f"probe {self.name!r}, sample {self.ids[position]!r}"
        return where if self.locate is None else f"{where} of {self.locate(position)}"


def hashed_order(probe: Probe, *, draw: int = 0) -> list[int]:
    """Return the positions of the samples, ordered by the hashes of their ids.

    As good as random, but the same everywhere, and of a larger probe the same for those it shares.

    Args:
        probe: whose.
        draw: another number gives another order.

    >>> from clipq.data import Images, probe_from_images
    >>> noise = [Images(np.zeros((count, 8, 8, 3), np.uint8)) for count in (4, 6)]
    >>> few, more = (hashed_order(probe_from_images(n, name="noise", role="ood")) for n in noise)
    >>> few, [position for position in more if position < 4]
    ([3, 0, 1, 2], [3, 0, 1, 2])
    """
    prefix = f"{draw}:" if draw else ""
    hashes = [hashlib.sha256(f"{prefix}{name}".encode()).digest() for name in probe.ids]
    return sorted(range(len(probe)), key=hashes.__getitem__)


def taken(probe: Probe, positions: Sequence[int]) -> Probe:
    """Return the probe with the samples at `positions` (increasing) alone.

    >>> from clipq.data import Images, probe_from_images
    >>> noise = Images(np.zeros((4, 8, 8, 3), np.uint8))
    >>> probe = probe_from_images(noise, name="noise", role="ood")
    >>> taken(probe, [1, 3]).ids
    ('1', '3')
    """
    wanted = set(positions)
    ids = tuple(probe.ids[p] for p in positions)
    clusters = None if probe.clusters is None else tuple(probe.clusters[p] for p in positions)
    hashes = tuple(probe.sample_hashes[p] for p in positions)
    groups = tuple(probe.groups[p] for p in positions)
    labels = probe.labels[list(positions)]
    alter, locate = probe.alter, probe.locate

    def read() -> Iterator[bytes]:
        return (
            encoded for position, encoded in enumerate(probe.read_encoded()) if position in wanted
        )

    return replace(
        probe,
        ids=ids,
        labels=labels,
        groups=groups,
        captions=None if probe.captions is None else tuple(probe.captions[p] for p in positions),
        sample_hashes=hashes,
        fingerprint=fingerprint(ids, hashes, labels, groups, clusters),
        read_encoded=read,
        alter=None if alter is None else lambda image, position: alter(image, positions[position]),
        locate=None if locate is None else lambda position: locate(positions[position]),
        clusters=clusters,
    )


def clustered(probe: Probe, column: str, values: Sequence[str]) -> Probe:
    """Return the probe with its samples in clusters that a column names.

    Args:
        probe: whose samples err together where they belong together.
        column: what names them, for example ``patient``.
        values: of each sample (N,).

    Raises:
        ProbeError: there is not one per sample.

    >>> from clipq.data import Images, probe_from_images
    >>> frames = probe_from_images(Images(np.zeros((3, 8, 8, 3), np.uint8)), name="n", role="ood")
    >>> clustered(frames, "video", ["a", "a", "b"]).clusters
    ('video=a', 'video=a', 'video=b')
    """
    if len(values) != len(probe):
        raise ProbeError(
            f"probe {probe.name!r}: {len(probe)} samples and {len(values)} clusters",
            hint="give as many clusters as images",
        )
    clusters = named_clusters(column, values)
    samples = (probe.ids, probe.sample_hashes, probe.labels, probe.groups)
    return replace(probe, clusters=clusters, fingerprint=fingerprint(*samples, clusters))


def fingerprint(
    ids: tuple[str, ...],
    hashes: tuple[str, ...],
    labels: np.ndarray,
    groups: tuple[str, ...],
    clusters: tuple[str, ...] | None = None,
) -> str:
    """Return the digest of what the samples are, in order.

    Groups and clusters that a column names are part of it because they are columns of every stored
    prediction table, and decide what its numbers are worth.

    >>> one, other = (fingerprint(("a", "b"), ("0f", "1e"), labels, ("", ""))
    ...               for labels in (np.array([0, 1]), np.array([1, 0])))
    >>> one == other  # the same images with other labels
    False
    """
    known = [ids, hashes, labels.tolist(), groups]
    return digest([*known, clusters] if cluster_column(clusters) else known)
