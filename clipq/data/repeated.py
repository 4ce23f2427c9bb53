"""Pictures that a probe holds more than once, whatever their files are called and encoded as."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from PIL import Image

from clipq.errors import listed

__all__ = ["Pictures", "picture_digest"]

_SHOWN = 5


def picture_digest(image: Image.Image) -> bytes:
    """Return the SHA-256 of what a picture shows, whatever its file is encoded as.

    >>> grey, colours = (Image.new(mode, (8, 8), 3) for mode in ("L", "P"))
    >>> picture_digest(grey) == picture_digest(grey.convert("RGB")) != picture_digest(colours)
    True
    """
    # A palette, or a channel for transparency that hides nothing, makes no other picture.
    same = image
    with suppress(ValueError):  # of a mode without a conversion
        same = image if image.mode.startswith(("I", "F")) else image.convert("RGBA")
    return hashlib.sha256(f"{same.mode} {same.size}".encode() + same.tobytes()).digest()


class Pictures:
    """Told every decoded picture of a probe, finds those with the same pixels.

    >>> seen = Pictures()
    >>> for position, colour in enumerate(("red", "blue", "red")):
    ...     seen.tell(position, Image.new("RGB", (8, 8), colour))
    >>> seen.repeated()
    [[0, 2]]
    >>> seen.remarks(["a.png", "b.png", "a copy.jpg"])
    ['2 of 3 images have the pixels of another one: a.png = a copy.jpg']
    """

    def __init__(self) -> None:
        self._positions: dict[bytes, list[int]] = {}

    def tell(self, position: int, image: Image.Image) -> None:
        """Take note of the picture at a position."""
        self._positions.setdefault(picture_digest(image), []).append(position)

    def repeated(self) -> list[list[int]]:
        """Return the positions of each picture that there is more than once."""
        return [positions for positions in self._positions.values() if len(positions) > 1]

    def remarks(self, ids: Sequence[str]) -> list[str]:
        """Return what is to be said of repeated pictures, by the ids of the samples: at most one.

        A picture that counts twice weighs twice, and makes intervals narrower than they are.
        """
        groups = self.repeated()
        if not groups:
            return []
        total = sum(map(len, self._positions.values()))
        named = "; ".join(
            listed([ids[position] for position in group], most=_SHOWN, between=" = ")
            for group in groups[:_SHOWN]
        )
        more = f"; and {len(groups) - _SHOWN:,} more such" if len(groups) > _SHOWN else ""
        return [
            f"{sum(map(len, groups)):,} of {total:,} images have the pixels of another one: "
            f"{named}{more}"
        ]
