"""That probes which must be apart share no image, whatever the images are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clipq.data.decoding import decode_image
from clipq.data.probe import Probe
from clipq.data.repeated import picture_digest
from clipq.errors import ProbeError

__all__ = ["Leak", "check_disjoint", "check_pictures_apart", "leak"]

_SHOWN = 3
"""Shared images that a message names; `clipq probe check --json` lists all."""


@dataclass(frozen=True, slots=True)
class Leak:
    """What two probes share: of every shared image, its ids in the one and in the other.

    >>> print(Leak("calibration", "id", ((("a.png",), ("b.png", "c.png")),)))
    1 image with 'id': a.png = b.png, c.png
    """

    probe: str
    other: str
    shared: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]

    def __str__(self) -> str:
        count = len(self.shared)
        named = "; ".join(
            f"{', '.join(ours[:_SHOWN])} = {', '.join(theirs[:_SHOWN])}"
            for ours, theirs in self.shared[:_SHOWN]
        )
        more = f"; and {count - _SHOWN:,} more" if count > _SHOWN else ""
        images = f"{count:,} image{'s' if count > 1 else ''}"
        return f"{images} with {self.other!r}: {named}{more}"


def leak(probe: Probe, other: Probe) -> Leak | None:
    """Return every image that two probes share, by the hash of its bytes; None where none is.

    >>> import numpy as np
    >>> from clipq.data import Images, probe_from_images
    >>> black = Images(np.zeros((2, 8, 8, 3), np.uint8))
    >>> one, two = (probe_from_images(black, name=name, role="ood") for name in ("near", "far"))
    >>> leak(one, two).shared
    ((('0', '1'), ('0', '1')),)
    """
    ours, theirs = _by_image(probe), _by_image(other)
    shared = tuple((tuple(ids), tuple(theirs[at])) for at, ids in ours.items() if at in theirs)
    return Leak(probe.name, other.name, shared) if shared else None


def check_disjoint(probe: Probe, *others: Probe) -> None:
    """Refuse probes that share an image: by hash, whatever the images are called.

    A calibration split fits activation ranges and the temperature: evaluated images in it flatter
    every verdict. An image that is both in and out of distribution makes detection meaningless.

    Raises:
        ProbeError: an image of `probe` is in one of the others; all of these are named.

    >>> import numpy as np
    >>> from clipq.data import Images, probe_from_images
    >>> black = Images(np.zeros((1, 8, 8, 3), np.uint8))
    >>> one, other = (probe_from_images(black, name=name, role="ood") for name in ("near", "far"))
    >>> check_disjoint(one, other)
    Traceback (most recent call last):
    clipq.errors.ProbeError: ood probe 'near' shares 1 image with 'far': 0 = 0
    ...
    """
    leaks = [str(found) for other in others if (found := leak(probe, other))]
    if leaks:
        raise ProbeError(
            f"{probe.role} probe {probe.name!r} shares {'; '.join(leaks)}",
            hint="calibrate, fit the temperature and evaluate on disjoint images, and keep in- and "
            "out-of-distribution images apart; `clipq probe check --json` lists all that are "
            "shared",
        )


def check_pictures_apart(
    probe: Probe, *others: Probe, tell: Callable[[int], None] | None = None
) -> None:
    """Refuse probes that share a picture, pixel for pixel, whatever it is encoded as.

    What `check_disjoint` does not see: a PNG of what is a WebP elsewhere. Images are compared as
    they are stored, before any corruption, each decoded once. Those that do not decode are like no
    other.

    Args:
        probe: whose images are read one by one: there may be millions.
        others: of whose pictures the hashes are held in memory.
        tell: called with the number of images of `probe` that were looked at.

    Raises:
        ProbeError: a picture of `probe` is in one of the others; all of these are named.

    >>> import io
    >>> import numpy as np
    >>> from clipq.data import Images, probe_from_images
    >>> black = [probe_from_images(Images(np.zeros((1, 8, 8, 3), np.uint8)), name=name, role="ood")
    ...          for name in ("near", "far")]
    >>> check_pictures_apart(*black)
    Traceback (most recent call last):
    clipq.errors.ProbeError: ood probe 'near' shares, pixel for pixel, 1 image with 'far': 0 = 0
    ...
    """
    decoded: dict[str, bytes] = {}
    places: dict[bytes, dict[str, list[str]]] = {}
    for other in others:
        for position, picture in _pictures(other, decoded):
            found = places.setdefault(picture, {})
            found.setdefault(other.name, []).append(other.ids[position])
    shared: dict[str, dict[bytes, list[str]]] = {}
    for position, picture in _pictures(probe, None):
        for name in places.get(picture, ()):
            shared.setdefault(name, {}).setdefault(picture, []).append(probe.ids[position])
        if tell is not None:
            tell(position + 1)
    leaks = [
        Leak(probe.name, name, tuple((tuple(ids), tuple(places[picture][name]))
                                     for picture, ids in found.items()))
        for name, found in shared.items()
    ]  # fmt: skip
    if leaks:
        raise ProbeError(
            f"{probe.role} probe {probe.name!r} shares, pixel for pixel, "
            f"{'; '.join(map(str, leaks))}",
            hint="they are the same pictures, encoded otherwise: leave them out of one of both",
        )


def _pictures(probe: Probe, decoded: dict[str, bytes] | None) -> Iterator[tuple[int, bytes]]:
    """Yield the position and the digest of each picture as it is stored, if it decodes.

    `decoded` knows digests by the hashes of encoded images, and learns them; None for no memory.
    """
    for position, encoded in enumerate(probe.read_encoded()):
        digest = None if decoded is None else decoded.get(probe.sample_hashes[position])
        if digest is None:
            try:
                image = (probe.unpack or decode_image)(encoded, probe.where(position))
            except ProbeError:
                continue  # which is counted and named where images are decoded to be used
            digest = picture_digest(image)
            if decoded is not None:
                decoded[probe.sample_hashes[position]] = digest
        yield position, digest


def _by_image(probe: Probe) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for image, name in zip(probe.sample_hashes, probe.ids, strict=True):
        found.setdefault(image, []).append(name)
    return found
