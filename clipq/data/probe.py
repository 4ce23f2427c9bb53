"""What a probe is, how one is opened, and that calibration and evaluation never share a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from clipq.errors import ProbeError, SettingsError, did_you_mean
from clipq.provenance import digest
from clipq.registry import Registry
from clipq.settings import ROLES, ProbeSettings

__all__ = [
    "ROLES",
    "Probe",
    "ProbeSource",
    "check_disjoint",
    "fingerprint",
    "open_declared",
    "open_probe",
    "probe_sources",
]


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A labelled evaluation set.

    `labels` (N,) int64 index `classnames`; they are all -1 where the role is ``ood``.
    `sample_hashes` are sha256 of the encoded images; `fingerprint` is the digest of ids, sample
    hashes, labels and groups: what a result was measured on. `captions` is None where the probe
    has none.
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
    read_images: Callable[[], Iterator[Image.Image]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def images(self) -> Iterator[Image.Image]:
        """Yield the images in the order of `ids`, decoded one at a time.

        Raises:
            ProbeError: an image does not decode.
        """
        return self.read_images()


class ProbeSource(Protocol):
    """Opens probes of one kind of storage; the part after ``kind:`` is `location`."""

    def __call__(
        self, location: str, *, name: str, role: str, split: str, base_dir: Path, group: str
    ) -> Probe: ...


probe_sources: Registry[ProbeSource] = Registry("probe source", group="clipq.probes")
"""Kinds of storage; a source text is ``kind:location``."""
probe_sources.register_lazy("folder", "clipq.data.folder_source:open_folder")
probe_sources.register_lazy("imagelist", "clipq.data.image_list_source:open_image_list")
probe_sources.register_lazy("webdataset", "clipq.data.webdataset_source:open_webdataset")


def open_probe(
    *, name: str, role: str, source: str, split: str, base_dir: Path, group: str = ""
) -> Probe:
    """Open and verify a probe.

    Args:
        name: as in case ids.
        role: ``in-distribution``, ``ood`` or ``calibration``.
        source: ``kind:location``, for example ``webdataset:fixtures/data/shapes``.
        split: which split of it.
        base_dir: folder that relative locations start from.
        group: attribute that divides samples into groups; "" for none.

    Raises:
        SettingsError: the role is unknown, or the source is not of the form ``kind:location``.
        UnknownNameError: no source of that kind is registered.
        ProbeError: data are missing, damaged, empty or mislabelled.
    """
    if role not in ROLES:
        raise SettingsError(f"probe {name!r}: role {role!r}", hint=did_you_mean(role, ROLES))
    kind, colon, location = source.partition(":")
    if not colon or not location:
        raise SettingsError(
            f"probe {name!r}: source {source!r} is not of the form kind:location",
            hint="for example 'webdataset:data/my-probe'; kinds: "
            f"{', '.join(probe_sources.names())}",
        )
    opened = probe_sources.get(kind)
    return opened(location, name=name, role=role, split=split, base_dir=base_dir, group=group)


def open_declared(declared: ProbeSettings, *, base_dir: Path) -> Probe:
    """Open and verify a probe as the settings declare it; errors as in `open_probe`."""
    return open_probe(
        name=declared.name,
        role=declared.role,
        source=declared.source,
        split=declared.split,
        base_dir=base_dir,
        group=declared.group,
    )


def fingerprint(
    ids: tuple[str, ...], hashes: tuple[str, ...], labels: np.ndarray, groups: tuple[str, ...]
) -> str:
    """Return the digest of what the samples are, in order.

    Groups are part of it because they are a column of every stored prediction table.
    """
    return digest([ids, hashes, labels.tolist(), groups])


def check_disjoint(probe: Probe, *others: Probe) -> None:
    """Refuse probes that share an image: by hash, whatever the images are called.

    A calibration split fits activation ranges and the temperature: evaluated images in it flatter
    every verdict. An image that is both in and out of distribution makes detection meaningless.

    Raises:
        ProbeError: an image of `probe` is in one of the others.
    """
    own = dict(zip(probe.sample_hashes, probe.ids, strict=True))
    for other in others:
        shared = [
            (own[image], name)
            for image, name in zip(other.sample_hashes, other.ids, strict=True)
            if image in own
        ]
        if shared:
            first, second = shared[0]
            raise ProbeError(
                f"{probe.role} probe {probe.name!r} shares {len(shared)} images with "
                f"{other.role} probe {other.name!r}, for example {first!r} = {second!r}",
                hint="calibrate, fit the temperature and evaluate on disjoint images, and keep "
                "in- and out-of-distribution images apart",
            )
