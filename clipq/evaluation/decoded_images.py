"""Preprocessed images of probes, in the cache: decoded once, verified before they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from clipq.data import Probe, SealedImages, materialise, streamed
from clipq.data.decoding import PIXELS_VERSION
from clipq.errors import CacheError
from clipq.evaluation.cache import Cache, damaged
from clipq.provenance import digest, package_versions

if TYPE_CHECKING:
    from pathlib import Path

    from clipq.models import Preprocess

__all__ = ["DECODERS", "DecodedImages"]

DECODERS = ("pillow", "torchvision")
"""Packages whose versions decide what pixels an image has."""


class DecodedImages:
    """Images of probes as models take them, one file for each probe and preprocessing.

    Args:
        cache: where the files are kept.
        progress: called with (what, images done, images in all) while images are decoded.
    """

    def __init__(
        self, cache: Cache, *, progress: Callable[[str, int, int], None] | None = None
    ) -> None:
        self.cache = cache
        self._progress = progress
        self._stored: dict[Path, SealedImages] = {}

    def images(
        self, probe: Probe, preprocess: Preprocess, *, first: int | None = None
    ) -> np.ndarray:
        """Return a probe's preprocessed images (N, H, W, 3), decoded once per preprocessing.

        Args:
            probe: whose images.
            preprocess: what makes pixels of its images.
            first: how many are wanted, where not all are.
        """
        path = self._path(probe, preprocess)
        stop = len(probe) if first is None else first
        try:
            return self._verified(path, 0, stop)
        except CacheError:
            with self.cache.lock(path):
                return self._made_again(probe, preprocess, path, 0, stop)

    def blocks(self, probe: Probe, preprocess: Preprocess, size: int) -> Iterator[np.ndarray]:
        """Yield the same images in blocks (<= size, H, W, 3).

        Where they are not decoded yet, they are while the blocks are used: an encoder and the
        decoder then work side by side. Where some turn out to be damaged, all are decoded again.
        """
        path = self._path(probe, preprocess)
        if not path.is_file():
            with self.cache.lock(path):
                if not path.is_file():
                    yield from streamed(
                        probe,
                        preprocess.to_uint8,
                        path,
                        size=size,
                        key=path.stem,
                        progress=self._decoding(probe),
                    )
                    return
        for start in range(0, len(probe), size):
            stop = start + size
            try:
                yield self._verified(path, start, stop)
            except CacheError:
                with self.cache.lock(path):
                    block = self._made_again(probe, preprocess, path, start, stop)
                yield block

    def _verified(self, path: Path, start: int, stop: int) -> np.ndarray:
        """Return images `start` to `stop` of a file.

        Raises:
            CacheError: the file is missing or damaged.
        """
        if path not in self._stored:
            self._stored[path] = SealedImages(path, key=path.stem)
        self._stored[path].verify(start, stop)
        return self._stored[path].pixels[start:stop]

    def _made_again(
        self, probe: Probe, preprocess: Preprocess, path: Path, start: int, stop: int
    ) -> np.ndarray:
        """Return images of a file that was missing or damaged before its lock was taken."""
        self._stored.pop(path, None)
        try:
            return self._verified(path, start, stop)
        except CacheError as error:
            if path.is_file():
                damaged(path, error)
        self._stored.pop(path, None)
        progress = self._decoding(probe)
        materialise(probe, preprocess.to_uint8, path, key=path.stem, progress=progress)
        return self._verified(path, start, stop)

    def _path(self, probe: Probe, preprocess: Preprocess) -> Path:
        return self.cache.path("images", self._key(probe, preprocess), ".npy")

    def _key(self, probe: Probe, preprocess: Preprocess) -> str:
        versions = package_versions(DECODERS)
        return digest(
            {
                "probe": probe.fingerprint,
                "preprocess": preprocess.identity,
                "decoder": [PIXELS_VERSION, *(versions[name] for name in DECODERS)],
            }
        )

    def _decoding(self, probe: Probe) -> Callable[[int], None]:
        def advance(done: int) -> None:
            if self._progress is not None:
                self._progress(f"decoding {probe.name}", done, len(probe))

        return advance
