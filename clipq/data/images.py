"""Decodes and preprocesses a probe's images into one file: made once, read by every process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import BinaryIO

import numpy as np
from PIL import Image

from clipq.data.probe import Probe
from clipq.data.sealed_images import SealedWriter
from clipq.errors import ProbeError
from clipq.files import replace_atomically

__all__ = ["blocks_of", "materialise", "streamed"]

_BLOCKS_AHEAD = 4


def materialise(
    probe: Probe,
    to_uint8: Callable[[Image.Image], np.ndarray],
    path: Path,
    *,
    key: str = "",
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
    tell: Callable[[np.ndarray], None] | None = None,
) -> None:
    """Decode and preprocess every image of a probe into `path`, atomically.

    The file is what `clipq.data.sealed_images` reads, written as it is decoded: memory does not
    grow with N.

    Args:
        probe: whose images.
        to_uint8: preprocessing of one image.
        path: where to.
        key: what the file is kept under.
        threads: that decode; Pillow releases the interpreter's lock while it does.
        progress: called with the number of images done.
        tell: called with the pixels (H, W, 3) of each image, in order.

    Raises:
        ProbeError: images do not decode or are refused by the preprocessing (all of them are
            counted), or preprocess to another size than the first.
        CacheError: the folder is read-only or full.

    >>> import tempfile
    >>> from clipq.data import Images, load, probe_from_images
    >>> noise = Images(np.zeros((4, 8, 8, 3), np.uint8))
    >>> probe = probe_from_images(noise, name="noise", role="ood")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     materialise(probe, np.asarray, Path(folder) / "images.npy")
    ...     load(Path(folder) / "images.npy").shape
    (4, 8, 8, 3)
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            images = _pixels(probe, to_uint8, threads)
            _write(probe, images, stream, key=key, progress=progress, tell=tell)

    replace_atomically(path, write, durable=not key)  # what is sealed tells that it is damaged


def streamed(
    probe: Probe,
    to_uint8: Callable[[Image.Image], np.ndarray],
    path: Path,
    *,
    size: int,
    key: str = "",
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Iterator[np.ndarray]:
    """Materialise a probe and yield its images at the same time, in blocks (<= size, H, W, 3).

    Decoding runs in a thread beside whoever uses the blocks, at most a few blocks ahead. The file
    is whole once the last block was taken; where the iteration stops before, there is none.

    Args:
        probe: whose images.
        to_uint8: preprocessing of one image.
        path: where to.
        size: images per block; the last may be shorter.
        key: what the file is kept under.
        threads: that decode.
        progress: called with the number of images done.

    Raises:
        ProbeError, CacheError: as `materialise`.

    >>> import tempfile
    >>> from clipq.data import Images, probe_from_images
    >>> noise = Images(np.zeros((5, 8, 8, 3), np.uint8))
    >>> probe = probe_from_images(noise, name="noise", role="ood")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     blocks = streamed(probe, np.asarray, Path(folder) / "images.npy", size=2)
    ...     [len(block) for block in blocks]
    [2, 2, 1]
    """
    ready: Queue[np.ndarray | Exception | None] = Queue(_BLOCKS_AHEAD)
    stopped = Event()

    def convert(image: Image.Image) -> np.ndarray:
        if stopped.is_set():
            raise _NotWantedError
        return to_uint8(image)

    def hand_over(item: np.ndarray | Exception | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except Full:
                continue
        raise _NotWantedError

    def work() -> None:
        block: list[np.ndarray] = []
        left = len(probe)

        def tell(pixels: np.ndarray) -> None:
            nonlocal left
            left -= 1
            block.append(pixels)
            if len(block) == size or not left:
                hand_over(np.stack(block))
                block.clear()
            while not left and not ready.empty():  # the file appears after the last block was taken
                if stopped.wait(0.005):
                    raise _NotWantedError

        with suppress(_NotWantedError):
            try:
                materialise(
                    probe, convert, path, key=key, threads=threads, progress=progress, tell=tell
                )
                hand_over(None)
            except Exception as error:
                hand_over(error)

    worker = Thread(target=work, name=f"decoding {probe.name}", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stopped.set()
        worker.join()


class _NotWantedError(Exception):
    """Nobody wants further images."""


def blocks_of(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield images (N, H, W, 3) in blocks of `size`; the last may be shorter.

    >>> [len(block) for block in blocks_of(np.zeros((5, 8, 8, 3), np.uint8), 2)]
    [2, 2, 1]
    """
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _pixels(
    probe: Probe, to_uint8: Callable[[Image.Image], np.ndarray], threads: int
) -> Iterator[np.ndarray]:
    """Yield preprocessed images in order; a few are decoded ahead.

    Raises:
        ProbeError: some do not decode or are refused; raised once all were tried.
    """
    refused: list[int] = []

    def one(position: int, encoded: bytes) -> np.ndarray | ProbeError:
        try:
            image = probe.decode(encoded, position)
        except ProbeError as error:
            return error
        try:
            return to_uint8(image)
        except ProbeError as error:
            refused.append(position)
            return ProbeError(f"{probe.where(position)}: {error.problem}", hint=error.hint)

    broken: list[ProbeError] = []
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[np.ndarray | ProbeError]] = deque()
        images = enumerate(islice(probe.read_encoded(), len(probe)))
        try:
            while True:
                for position, encoded in islice(images, 4 * threads - len(waiting)):
                    waiting.append(pool.submit(one, position, encoded))
                if not waiting:
                    break
                outcome = waiting.popleft().result()
                if isinstance(outcome, ProbeError):
                    broken.append(outcome)
                elif not broken:
                    yield outcome
        finally:
            for left in waiting:
                left.cancel()
    if len(broken) == 1:
        raise broken[0]
    if broken:
        raise ProbeError(
            f"probe {probe.name!r}: {len(broken)} of {len(probe)} images "
            f"{'cannot be used' if refused else 'do not decode'}: "
            + "; ".join(error.problem for error in broken[:3]),
            hint="replace or remove them"
            if refused
            else "replace them, or allow for some: unreadable = N in the probe's table",
        )


def _write(
    probe: Probe,
    images: Iterator[np.ndarray],
    stream: BinaryIO,
    *,
    key: str,
    progress: Callable[[int], None] | None,
    tell: Callable[[np.ndarray], None] | None,
) -> None:
    # Plain writes, not a memory map: on a full disk a map kills the process instead of raising.
    writer: SealedWriter | None = None
    first: tuple[int, ...] = ()
    done = 0
    for pixels in images:
        if pixels.dtype != np.uint8 or pixels.shape != (first or (*pixels.shape[:2], 3)):
            raise ProbeError(
                f"probe {probe.name!r}, sample {probe.ids[done]!r}: preprocessed to {pixels.dtype} "
                f"{pixels.shape}, expected uint8 {first or '(H, W, 3)'}",
                hint="the model's preprocessing must give every image one size",
            )
        if writer is None:
            first = pixels.shape
            writer = SealedWriter(stream, (len(probe), *first), key=key)
        writer.add(pixels)
        if tell is not None:
            tell(pixels)
        done += 1
        if progress is not None:
            progress(done)
    if writer is None or done != len(probe):
        raise ProbeError(
            f"probe {probe.name!r} gave {done} images for {len(probe)} samples",
            hint="restore its shards; they changed since the probe was opened",
        )
    writer.seal()
