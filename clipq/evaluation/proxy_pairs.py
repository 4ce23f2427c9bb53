"""Image-caption pairs to train on: fit for it, and apart from everything that is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clipq.data import Probe, check_disjoint, check_pictures_apart
from clipq.data.decoding import PIXELS_VERSION
from clipq.errors import ProbeError, SettingsError, listed
from clipq.evaluation.cache import Cache, Table
from clipq.evaluation.decoded_images import DECODERS
from clipq.provenance import digest, package_versions

__all__ = ["Pairs", "check_not_evaluated", "check_pairs", "undeclared"]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Images with captions, as a training reads them.

    Args:
        images: preprocessed, (N, H, W, 3) uint8, mapped from the cache: only what is looked at is
            in memory.
        captions: all of them (M,), M >= N, one line each, those of an image together.
        owners: position of the image that each is of, (M,) int64, from 0 to N - 1 in order; every
            image has one or more.
        ids: of the samples (N,).
        fingerprint: of samples and captions: the same pairs have the same one on every machine.

    >>> images, owners = np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 0, 1])
    >>> pairs = Pairs(images, ("a cat", "a pet", "a dog"), owners, ("0", "1"), "0f")
    >>> len(pairs)
    2
    """

    images: np.ndarray
    captions: tuple[str, ...]
    owners: np.ndarray
    ids: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.ids)


def check_not_evaluated(
    pairs: Probe, evaluated: Sequence[Probe], cache: Cache, *, tell: Callable[[int], None]
) -> None:
    """Refuse pairs of which an image is evaluated on, by its bytes or by its pixels.

    Pixels are compared once for the same probes; that there is nothing shared is kept in the cache.

    Args:
        pairs: to train on.
        evaluated: all probes that must be apart from them.
        cache: where it is kept.
        tell: called with the number of pairs that were looked at.

    Raises:
        ProbeError: images are shared; all of them are named.
    """
    check_disjoint(pairs, *evaluated)

    def create() -> Table:
        check_pictures_apart(pairs, *evaluated, tell=tell)
        return {}, {"apart": [probe.name for probe in evaluated]}

    versions = [PIXELS_VERSION, package_versions(DECODERS)]
    probes = [probe.fingerprint for probe in (pairs, *evaluated)]
    cache.table("apart", digest([probes, versions]), create)


def undeclared(calibration: Probe, path: object) -> SettingsError:
    """Return the error of settings that have no pairs to train on.

    >>> from clipq.data import Images, probe_from_images
    >>> split = probe_from_images(
    ...     Images(np.zeros((1, 8, 8, 3), np.uint8)), name="calibration", role="ood"
    ... )
    >>> print(undeclared(split, "clipq.toml").problem)
    clipq.toml: nothing to train on: no probe has the role 'proxy', and ...
    """
    return SettingsError(
        f"{path}: nothing to train on: no probe has the role 'proxy', and the calibration split "
        f"{calibration.name!r} has no captions",
        hint="declare image-caption pairs that nothing is evaluated on: [[probes]] name = 'proxy', "
        "role = 'proxy', source = 'webdataset:FOLDER' (docs/probes.md, proxy data)",
    )


def check_pairs(probe: Probe, lines: Sequence[str], owners: np.ndarray) -> None:
    """Refuse pairs that nothing can be learnt from.

    Args:
        probe: images with captions.
        lines: the captions (M,), one line each.
        owners: the position of each one's image (M,).

    Raises:
        ProbeError: an image has no caption; there is one pair; or all images, or all captions, are
            equal.

    >>> from dataclasses import replace
    >>> from clipq.data import Images, probe_from_images
    >>> one = probe_from_images(Images(np.zeros((1, 8, 8, 3), np.uint8)), name="p", role="ood")
    >>> check_pairs(replace(one, captions=("a cat",)), ["a cat"], np.array([0]))
    Traceback (most recent call last):
    clipq.errors.ProbeError: probe 'p': one pair, ...
    """
    where = f"probe {probe.name!r}"
    silent = sorted(set(range(len(probe))) - set(owners.tolist()))
    if silent:
        named = listed([probe.ids[position] for position in silent])
        raise ProbeError(
            f"{where}: {len(silent):,} of {len(probe):,} images have no caption: {named}",
            hint="give every image one, or leave these out",
        )
    if len(probe) == 1:
        raise ProbeError(
            f"{where}: one pair, and what tells pairs apart cannot be learnt from it",
            hint="give it two pairs or more; hundreds are sensible",
        )
    for what, distinct in (("image", set(probe.sample_hashes)), ("caption", set(lines))):
        if len(distinct) == 1:
            only = repr(lines[0]) if what == "caption" else repr(probe.ids[0])
            raise ProbeError(
                f"{where}: all {len(probe):,} pairs have one {what}, {only}",
                hint="what tells pairs apart cannot be learnt where they are alike",
            )
