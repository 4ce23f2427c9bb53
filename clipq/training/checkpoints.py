"""The checkpoints of one training: two are kept, and the best parameters beside them.

| file | holds |
|---|---|
| `step-00000150` | parameters and moments after 150 steps, the looks so far, the identity |
| `best-00000100` | parameters alone, at the step whose held-out loss was the least by then |
| `lock` | whoever trains here |

A best state stays as long as a kept checkpoint names it, so that a run which is resumed from the
older of the two finds what was best then.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from clipq.errors import CacheError, TrainingError, listed
from clipq.provenance import canonical_json
from clipq.training.sealed_tensors import read_facts, read_sealed, remove_sealed, write_sealed

__all__ = ["Checkpoint", "Checkpoints", "differing_identity"]

_KEPT = 2
_NAMED = re.compile(r"(step|best)-(\d{8,})\.(json|safetensors)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint as it was read.

    Args:
        step: steps done.
        facts: what `Checkpoints.save` was given.
        tensors: by name, on the CPU.
        best: parameters at the best step so far, by name, on the CPU; of `facts["best_step"]`.

    >>> Checkpoint(3, {"best_step": 0}, {}, {}).step
    3
    """

    step: int
    facts: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]
    best: Mapping[str, torch.Tensor]


class Checkpoints:
    """The checkpoints in a folder, which holds nothing else.

    Args:
        folder: is made when something is written.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> checkpoints = Checkpoints(place)
    >>> checkpoints.save_best(0, {"w": torch.zeros(1)})
    >>> for step in (10, 20, 30):
    ...     checkpoints.save(step, {"w": torch.ones(1) * step}, {"best_step": 0, "identity": {}})
    >>> sorted(path.stem for path in place.glob("*.json"))
    ['best-00000000', 'step-00000020', 'step-00000030']
    >>> checkpoints.newest({}).tensors
    {'w': tensor([30.])}
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last_good: int | None = None
        """Step of the newest whole checkpoint that this object read or wrote."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who trains in the folder; the lock of a process that died is free.

        Raises:
            TrainingError: another process trains in it.
            CacheError: the folder is read-only.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            raise TrainingError(
                f"another process trains in {self.folder}",
                hint="wait until it is done, or choose another folder",
            ) from error
        except OSError as error:
            raise CacheError(
                f"cannot use {self.folder}: {error.strerror or error}",
                hint="choose a writable folder",
            ) from error
        try:
            for left in self.folder.glob(".*.tmp"):  # by a process that was killed as it wrote
                left.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def save(
        self, step: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint, then remove those that are no longer needed.

        Args:
            step: steps done.
            tensors: by name.
            facts: strict-JSON values; ``best_step`` names a state that was saved, ``identity`` what
                the training is.

        Raises:
            TrainingError: the disk is full or read-only; what was there before is whole.
        """
        self._write("step", step, tensors, facts)
        self.last_good = step
        self._prune()

    def save_best(self, step: int, parameters: Mapping[str, torch.Tensor]) -> None:
        """Write the parameters of the best step so far.

        Raises:
            TrainingError: the disk is full or read-only; what was there before is whole.
        """
        self._write("best", step, parameters, {})

    def best(self, step: int) -> dict[str, torch.Tensor]:
        """Return the parameters that were the best at a step.

        Raises:
            TrainingError: they are missing or damaged.
        """
        return read_sealed(self._place("best", step))[1]

    def newest(self, identity: Mapping[str, Any]) -> Checkpoint | None:
        """Return the newest whole checkpoint; None where there is none.

        One that is damaged is warned of, and the one before it is taken.

        Args:
            identity: what identifies the training that is to go on.

        Raises:
            TrainingError: it is of another training; the differences are named.
        """
        for step in sorted(self._steps("step"), reverse=True):
            try:
                facts = read_facts(self._place("step", step))
                before = facts["identity"]
            except (TrainingError, KeyError) as error:
                self._warn(step, error)
                continue
            if different := list(differing_identity(before, identity)):
                raise TrainingError(
                    f"{self.folder} holds another training, of which {step:,} steps are done: "
                    f"{listed(different, most=6, between='; ')}",
                    hint="resume it as it was begun, or train in another folder",
                )
            try:
                facts, tensors = read_sealed(self._place("step", step))
                found = Checkpoint(step, facts, tensors, self.best(int(facts["best_step"])))
            except (TrainingError, KeyError) as error:
                self._warn(step, error)
                continue
            self.last_good = step
            return found
        return None

    def good_so_far(self) -> str:
        """Return in words which checkpoint a run can go on from."""
        if self.last_good is None:
            return "no checkpoint was written yet"
        return f"the last good checkpoint, of step {self.last_good:,}, is in {self.folder}"

    def _write(
        self, kind: str, step: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
    ) -> None:
        place = self._place(kind, step)
        try:
            write_sealed(place, tensors, facts)
        except CacheError as error:
            with suppress(OSError):
                remove_sealed(place)
            raise TrainingError(
                f"the state of step {step:,} cannot be saved: {error.problem}; "
                f"{self.good_so_far()}",
                hint="free space or make the folder writable, then resume",
            ) from error

    def _prune(self) -> None:
        """Remove all but the newest whole checkpoints and the best states that they name."""
        needed: set[tuple[str, int]] = set()
        for step in sorted(self._steps("step"), reverse=True):
            if len(needed & {("step", other) for other in self._steps("step")}) == _KEPT:
                break
            with suppress(TrainingError, KeyError):
                best = int(read_facts(self._place("step", step))["best_step"])
                needed |= {("step", step), ("best", best)}
        for path in self.folder.iterdir():
            if (match := _NAMED.fullmatch(path.name)) and (match[1], int(match[2])) not in needed:
                remove_sealed(path.with_suffix(""))

    def _steps(self, kind: str) -> set[int]:
        if not self.folder.is_dir():
            return set()
        # The JSON comes last: tensors without it are what a process that was killed had begun.
        matches = (_NAMED.fullmatch(path.name) for path in self.folder.glob("*.json"))
        return {int(match[2]) for match in matches if match and match[1] == kind}

    def _place(self, kind: str, step: int) -> Path:
        return self.folder / f"{kind}-{step:08d}"

    def _warn(self, step: int, error: Exception) -> None:
        said = error.problem if isinstance(error, TrainingError) else f"it lacks {error}"
        warnings.warn(
            f"the checkpoint of step {step:,} cannot be used, and the one before it is: {said}",
            stacklevel=3,
        )


def differing_identity(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between two trainings, key by key, inner keys after a dot.

    >>> list(differing_identity({"recipe": {"lr": 0.1, "seed": 0}}, {"recipe": {"lr": 0.2}}))
    ['recipe.lr was 0.1, is 0.2', 'recipe.seed was 0, is absent']
    """
    absent = object()
    for name in sorted({*before, *now}):
        was, new = before.get(name, absent), now.get(name, absent)
        if isinstance(was, Mapping) and isinstance(new, Mapping):
            yield from (f"{name}.{inner}" for inner in differing_identity(was, new))
        elif was is absent or new is absent or canonical_json(was) != canonical_json(new):
            said = ["absent" if each is absent else f"{each}" for each in (was, new)]
            yield f"{name} was {said[0]}, is {said[1]}"
