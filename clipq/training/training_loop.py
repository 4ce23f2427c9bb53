"""Steps, looks at the held-out pairs, and checkpoints, until the end or the patience's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import nn

from clipq.errors import TrainingError, listed
from clipq.training.checkpoints import Checkpoint, Checkpoints
from clipq.training.data_order import PairOrder, step_generator
from clipq.training.interruptions import interruptions
from clipq.training.learning import Learning
from clipq.training.passes import Passes
from clipq.training.training_outcome import Look, Outcome, TrainingProgress
from clipq.training.worlds import World
from clipq.training_settings import TrainingSettings

__all__ = ["Loop"]

_EXPLODED = 1e4
_FIX = "train it with a lower lr or step_lr, or a longer warmup"


@dataclass(slots=True)
class Loop:
    """A training under way.

    Args:
        passes: give gradients and held-out losses.
        learning: moves the parameters.
        order: the rows of each step.
        held_out: rows that are never trained on.
        settings: the recipe.
        world: the processes that train.
        checkpoints: where to.
        identity: of the training.
        collapsed: names the steps that are no steps any more.
        progress: is told of each step.
        seed_all: seeds the global generators.
        unwrapped: parameters whose gradients no wrapper averages.
        save_seconds: between checkpoints.

    >>> Loop.__slots__[:3]
    ('passes', 'learning', 'order')
    """

    passes: Passes
    learning: Learning
    order: PairOrder
    held_out: np.ndarray
    settings: TrainingSettings
    world: World
    checkpoints: Checkpoints
    identity: Mapping[str, object]
    collapsed: Callable[[], Sequence[str]]
    progress: Callable[[TrainingProgress], None]
    seed_all: Callable[[int], None]
    unwrapped: list[nn.Parameter]
    save_seconds: float
    step: int = 0
    looks: list[Look] = field(default_factory=list)
    best_step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0
    seconds: float = 0.0

    def run(self, resumed: Checkpoint | None) -> Outcome:
        """Train until the end; the parameters are then those of the best step.

        Args:
            resumed: what to go on from; None to begin.

        Raises:
            TrainingError: as `clipq.training.train`.
            KeyboardInterrupt: Ctrl-C; the step that it came in is saved.
        """
        began = saved = time.monotonic()
        before = 0.0
        if resumed is not None:
            if resumed.facts["finished"]:
                return self._outcome(resumed, resumed)
            self._restore(resumed)
            before = self.seconds
        else:
            self._require_steps()
            self._look()
        first = self.step
        stopped = False
        with interruptions() as interrupted:
            while self.step < self.settings.steps and not stopped:
                loss = self._advance()
                if self.step % self.settings.every == 0 or self.step == self.settings.steps:
                    self._look()
                    stopped = self._out_of_patience()
                now = time.monotonic()
                self.seconds = before + now - began
                finished = stopped or self.step == self.settings.steps
                interrupt, due = self._asked(interrupted, now - saved)
                if finished or interrupt or due:
                    self._save(finished=finished)
                    saved = now
                if self.world.first:
                    rate = (self.step - first) / max(now - began, 1e-9)
                    self.progress(
                        TrainingProgress(
                            *(self.step, self.settings.steps, loss),
                            *(tuple(self.looks), self.best_step, rate),
                        )
                    )
                if interrupt:
                    raise KeyboardInterrupt
        return self._outcome(None, resumed)

    def _advance(self) -> dict[str, float]:
        """Take one step and return its loss."""
        self.seed_all(step_generator(self.settings.seed, self.step).initial_seed())
        self.learning.forget_gradients()
        loss = self.passes.backward(self.order.at(self.step), self.step)
        self._require_sound(loss, "the loss")
        self.world.average(self.unwrapped)
        length = self.learning.move(self.step)
        if not math.isfinite(length):
            raise self._failed(f"the gradient is {length} (the loss is {loss['total']:g})")
        self.learning.forget_gradients()  # before the next pass takes its memory
        self.step += 1
        self._require_steps()
        self.summed += 1
        for name, value in loss.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        return loss

    def _look(self) -> None:
        """Look at the held-out pairs, and keep the parameters where these are the best so far."""
        self.seed_all(step_generator(self.settings.seed, 0, held_out=True).initial_seed())
        blocks = np.array_split(self.held_out, -(-len(self.held_out) // self.settings.batch))
        means: dict[str, float] = {}
        for at, rows in enumerate(blocks):
            for name, value in self.passes.held_out(rows, at).items():
                means[name] = means.get(name, 0.0) + value * len(rows) / len(self.held_out)
        means = self.world.once(lambda: means)
        self._require_sound(means, "the loss of the held-out pairs")
        trained = {name: value / self.summed for name, value in self.sums.items()}
        best = next((look.total for look in self.looks if look.step == self.best_step), math.inf)
        self.looks.append(Look(self.step, means, trained))
        self.sums, self.summed = {}, 0
        if means["total"] < best:
            self.best_step = self.step
            learnt = self.learning.learnt()
            self.world.once(lambda: self.checkpoints.save_best(self.step, learnt))

    def _out_of_patience(self) -> bool:
        since = sum(look.step > self.best_step for look in self.looks)
        return 0 < self.settings.patience <= since

    def _asked(self, interrupted: Callable[[], bool], seconds: float) -> tuple[bool, bool]:
        """Return whether to end, and whether a checkpoint is due: as the first process has it."""
        return self.world.once(lambda: (interrupted(), seconds >= self.save_seconds))

    def _save(self, *, finished: bool) -> None:
        """Write a checkpoint; one of a finished training needs nothing to go on with."""
        tensors = {} if finished else self.learning.tensors()
        facts = {
            "best_step": self.best_step,
            "finished": finished,
            "identity": self.identity,
            "looks": [asdict(look) for look in self.looks],
            "seconds": self.seconds,
            "summed": self.summed,
            "sums": self.sums,
        }
        self.world.once(lambda: self.checkpoints.save(self.step, tensors, facts))

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.learning.restore(checkpoint.tensors, checkpoint.step)
        self.step = checkpoint.step
        self._take(checkpoint.facts)

    def _take(self, facts: Mapping[str, Any]) -> None:
        self.looks = [Look(**look) for look in facts["looks"]]
        self.best_step = facts["best_step"]
        self.sums, self.summed = dict(facts["sums"]), facts["summed"]
        self.seconds = facts["seconds"]

    def _outcome(self, finished: Checkpoint | None, resumed: Checkpoint | None) -> Outcome:
        if finished is not None:
            self.step = finished.step
            self._take(finished.facts)
        best = self.checkpoints.best(self.best_step) if finished is None else finished.best
        self.world.meet()  # the first may now remove what the others read
        self.learning.set(best)
        return Outcome(
            best_step=self.best_step,
            steps_done=self.step,
            looks=tuple(self.looks),
            stopped_early=self.step < self.settings.steps,
            seconds=self.seconds,
            resumed_from=None if resumed is None else resumed.step,
            parameters=best,
        )

    def _require_sound(self, loss: Mapping[str, float], what: str) -> None:
        total = loss["total"]
        if not all(map(math.isfinite, loss.values())):
            parts = ", ".join(f"{name} {value:g}" for name, value in loss.items())
            raise self._failed(f"{what} is {total:g} ({parts})")
        if self.looks and total > (most := _EXPLODED * (1 + abs(self.looks[0].total))):
            raise self._failed(f"{what} exploded to {total:g}, above {most:g}")

    def _require_steps(self) -> None:
        if names := self.collapsed():
            raise self._failed(f"steps collapsed or exploded: {listed(list(names))}")

    def _failed(self, problem: str) -> TrainingError:
        return TrainingError(
            f"after {self.step:,} steps {problem}; {self.checkpoints.good_so_far()}", hint=_FIX
        )
