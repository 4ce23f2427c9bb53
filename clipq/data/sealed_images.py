"""The file of decoded images: pixels that can be mapped into memory, and what they must hash to.

A ``.npy`` of shape (N, H, W, 3), uint8, which any reader of such files takes, and behind the pixels
a seal: the key that the file is kept under and a sha256 of every 64 images. So a reader checks what
it uses and no more, and a file that was copied over another, or of which a part was lost, is known
before its pixels are.
"""

from __future__ import annotations

import hashlib
import json
import math
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clipq.errors import CacheError
from clipq.files import open_plain

__all__ = ["SealedImages", "SealedWriter", "load"]

_BLOCK = 64
"""Images per checksum."""
_MARK = b"clipq-images-1\n"
_LENGTH = 8
_MOST = 1 << 28
"""Bytes that a seal may have: of 200 million images."""


class SealedWriter:
    """Writes images one by one, hashing as it goes; memory does not grow with their number.

    Args:
        stream: an empty binary file.
        shape: of all images, (N, H, W, 3).
        key: what the file is kept under.
    """

    def __init__(self, stream: BinaryIO, shape: tuple[int, ...], *, key: str) -> None:
        self._stream, self._shape, self._key = stream, shape, key
        self._sums: list[str] = []
        self._current, self._filled = hashlib.sha256(), 0
        stream.write(_header(shape))

    def add(self, pixels: np.ndarray) -> None:
        """Write one image (H, W, 3) uint8."""
        content = pixels.tobytes()
        self._stream.write(content)
        self._current.update(content)
        self._filled += 1
        if self._filled == _BLOCK:
            self._close_block()

    def seal(self) -> None:
        """Write what the images hash to; nothing may be added after."""
        if self._filled:
            self._close_block()
        said = {"key": self._key, "shape": self._shape, "sha256": self._sums}
        text = json.dumps(said, separators=(",", ":")).encode()
        self._stream.write(text + len(text).to_bytes(_LENGTH, "little") + _MARK)

    def _close_block(self) -> None:
        self._sums.append(self._current.hexdigest())
        self._current, self._filled = hashlib.sha256(), 0


class SealedImages:
    """A file that `SealedWriter` wrote, memory-mapped, read-only.

    Args:
        path: of the file.
        key: what it was written under.

    Attributes:
        pixels: (N, H, W, 3) uint8, of which only what was verified is known to be whole.

    Raises:
        CacheError: the file is missing, truncated, of another key or holds something else.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "images.npy"
    ...     with path.open("wb") as stream:
    ...         writer = SealedWriter(stream, (2, 4, 4, 3), key="noise")
    ...         for value in (0, 255):
    ...             writer.add(np.full((4, 4, 3), value, np.uint8))
    ...         writer.seal()
    ...     stored = SealedImages(path, key="noise")
    ...     stored.verify(0, 2)
    ...     stored.pixels[1].max()
    np.uint8(255)
    """

    def __init__(self, path: Path, *, key: str) -> None:
        self.path = path
        try:
            self._wanted, self.pixels = _mapped(path, key)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CacheError(
                f"{path} is not a complete image file: {error}", hint="remove it and run again"
            ) from error
        self._verified: set[int] = set()

    def __len__(self) -> int:
        return len(self.pixels)

    def verify(self, start: int, stop: int) -> None:
        """Check images `start` to `stop` (and those that are hashed with them), each once.

        Raises:
            CacheError: they are not those that were written.
        """
        for block in range(start // _BLOCK, -(-min(stop, len(self)) // _BLOCK)):
            if block in self._verified:
                continue
            pixels = self.pixels[block * _BLOCK : (block + 1) * _BLOCK]
            if hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest() != self._wanted[block]:
                raise CacheError(
                    f"{self.path} was altered: images {block * _BLOCK:,} to "
                    f"{block * _BLOCK + len(pixels) - 1:,} are not those that were written",
                    hint="remove it and run again",
                )
            self._verified.add(block)


def load(path: Path, *, key: str = "") -> np.ndarray:
    """Return all images (N, H, W, 3) uint8 of a file, verified, memory-mapped, read-only.

    Args:
        path: of the file.
        key: what it was written under.

    Raises:
        CacheError: the file is missing, truncated, altered, of another key or holds something else.

    >>> load(Path("no-images.npy"))
    Traceback (most recent call last):
    clipq.errors.CacheError: no-images.npy is not a complete image file: ...
      fix: remove it and run again
    """
    stored = SealedImages(path, key=key)
    stored.verify(0, len(stored))
    return stored.pixels


def _header(shape: tuple[int, ...]) -> bytes:
    """Return what a ``.npy`` of such pixels begins with."""
    stream = BytesIO()
    said = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, said)
    return stream.getvalue()


def _mapped(path: Path, key: str) -> tuple[list[str], np.ndarray]:
    """Return the checksums and the pixels of a file.

    Raises:
        ValueError: it is not as its seal says, has none, or is of another key.
    """
    with open_plain(path) as stream:
        size = stream.seek(0, 2)
        end = _LENGTH + len(_MARK)
        stream.seek(max(0, size - end))
        tail = stream.read()
        length = int.from_bytes(tail[:_LENGTH], "little")
        if tail[_LENGTH:] != _MARK or length > min(_MOST, size - end):
            raise ValueError("it has no seal")
        stream.seek(size - end - length)
        said = json.loads(stream.read(length))
        if said["key"] != key:
            raise ValueError(f"it holds the images of {said['key']!r}, not of {key!r}")
        shape, sums = tuple(map(int, said["shape"])), said["sha256"]
        header = _header(shape)
        stream.seek(0)
        fits = len(header) + math.prod(shape) + length + end == size
        counted = len(shape) == 4 and isinstance(sums, list) and len(sums) == -(-shape[0] // _BLOCK)
        if not (fits and counted) or stream.read(len(header)) != header:
            raise ValueError("it does not hold the images that its seal says")
    return sums, np.memmap(path, np.uint8, "r", offset=len(header), shape=shape)
