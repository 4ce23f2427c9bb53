"""How far a training is, told to whoever waits for it in another process: a small file beside it.

Whoever trains writes it now and then; a process that wants the same state reads it while it waits,
and a gate shows it. Neither imports torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from clipq.errors import CacheError
from clipq.files import read_file, write_atomically

__all__ = ["Beat", "TrainingBeat", "beats", "waiting_for"]

_SUFFIX = ".beat"
_EVERY_SECONDS = 1.0
_FRESH_SECONDS = 60.0
_MOST_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Beat:
    """How far a training is.

    >>> str(Beat("vit/lsq:w4a8", 120, 300, 0.5))
    'training vit/lsq:w4a8: step 120 of 300, loss 0.5'
    """

    what: str
    done: int
    total: int
    loss: float | None = None

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.3g}"
        return f"training {self.what}: step {self.done:,} of {self.total:,}{loss}"


class TrainingBeat:
    """Writes how far a training is, at most once a second.

    Args:
        folder: in which it is trained; the file lies beside it.
        what: is trained.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with TrainingBeat(Path(place) / "lsq", "vit/lsq:w4a8") as beat:
    ...         beat(1, 9, 0.5)
    ...         [str(each) for each in beats(Path(place))]
    ['training vit/lsq:w4a8: step 1 of 9, loss 0.5']
    """

    def __init__(self, folder: Path, what: str) -> None:
        self._path, self._what = _beside(folder), what
        self._written = -_EVERY_SECONDS

    def __call__(self, done: int, total: int, loss: float | None) -> None:
        now = time.monotonic()
        if now - self._written < _EVERY_SECONDS:
            return
        self._written = now
        text = json.dumps(asdict(Beat(self._what, done, total, loss)))
        with suppress(CacheError):  # a full disk, or a parent that is another user's: nobody reads
            write_atomically(self._path, text.encode(), durable=False)

    def __enter__(self) -> TrainingBeat:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def beats(folder: Path) -> list[Beat]:
    """Return the trainings that go on in a folder now, sorted; one that was killed is left out."""
    found = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime < _FRESH_SECONDS and (beat := _read(path)):
                found.append(beat)
    return found


@contextmanager
def waiting_for(
    lock: FileLock, folder: Path, tell: Callable[[str, int, int], None]
) -> Iterator[None]:
    """Take a lock; while another process has it, tell how far its training is whenever it moves.

    Args:
        lock: is held within.
        folder: in which the other process trains.
        tell: called with (what, steps done, steps in all).
    """
    seen: Beat | None = None
    while True:
        try:
            lock.acquire(timeout=_EVERY_SECONDS)
            break
        except Timeout:
            beat = _read(_beside(folder))
            if beat is not None and beat != seen:
                seen = beat
                tell(f"training {beat.what} elsewhere", beat.done, beat.total)
    try:
        yield
    finally:
        lock.release()


def _beside(folder: Path) -> Path:
    folder = folder.resolve()  # "." has no name
    return folder.with_name(f"{folder.name}{_SUFFIX}")


def _read(path: Path) -> Beat | None:
    """Return what a file says; None where there is none, or a part of one."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        return Beat(**json.loads(read_file(path, most=_MOST_BYTES)))
    return None
