"""The engine of a Ray cluster: actors that keep a model loaded, one unit at a time each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from clipq.errors import SweepError
from clipq.sweep.executor import Outcome, Work
from clipq.sweep.ray_actor import UnitActor
from clipq.sweep.ray_cluster import (
    check_versions,
    import_ray,
    joined,
    node_was_lost,
    reason_of_end,
)
from clipq.sweep.unit_queue import UnitQueue
from clipq.sweep.units import Unit
from clipq.terminal import say

__all__ = ["RayExecutor"]

LOOK_EVERY = 2.0  # seconds between looks at the cluster's nodes
LOOK_AHEAD = 4  # units per actor among which one of the model that it has loaded is looked for
FAILED_STARTS = 5  # in a row, after which it is no accident
NODES_RETURN = 60.0  # seconds at least that a cluster which lost all its nodes is waited for
TELL_AFTER = 30.0  # seconds in which no actor found a place, before that is told


@dataclass(slots=True, eq=False)
class _Slot:
    """An actor, and what it was last asked for."""

    actor: Any
    waits_for: Any
    unit: Unit | None = None
    model: str = ""
    since: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RayExecutor:
    """Runs units on a Ray cluster, as many at once as its nodes offer.

    An actor keeps the work, and so the model that it loaded, from unit to unit; it is given units
    of that model first. Ray places actors (spread over nodes) and says when one died. A unit whose
    actor or node is lost is an outcome with ``ended``: the coordinator tries it again, Ray never.

    Args:
        address: None or "local" starts a cluster of this machine's cores, and ends it; "auto", a
            "HOST:PORT" or "ray://HOST:PORT" joins one that runs. A connection that this process
            has already is used as it is.
        cpus_per_unit: processors that an actor reserves, more than 0.
        gpus_per_unit: GPUs that it reserves; may be a fraction.
        workers: actors at most; None for as many as the nodes that are up hold. An autoscaler
            adds nodes only for actors that wait: give it a number.
        patience: seconds to wait for a node that offers what one unit asks for.
        runtime_env: as Ray takes it; None: what is installed on the nodes, nothing is uploaded.

    Raises:
        SweepError: where Ray is missing or too old, nothing answers at the address, nodes have
            other versions of Python, Ray, clipq or torch, no node offers what a unit asks for, or
            the cluster is lost.

    >>> RayExecutor(address="10.0.0.1:6379", gpus_per_unit=0.5).cpus_per_unit
    1.0
    """

    address: str | None = None
    cpus_per_unit: float = 1.0
    gpus_per_unit: float = 0.0
    workers: int | None = None
    patience: float = 0.0
    runtime_env: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.cpus_per_unit > 0 or not self.gpus_per_unit >= 0:
            raise SweepError(
                f"a unit cannot ask for {self.cpus_per_unit} CPUs and {self.gpus_per_unit} GPUs: "
                "more than 0 CPUs, and 0 or more GPUs"
            )
        if self.workers is not None and self.workers < 1:
            raise SweepError(f"workers is {self.workers}: at least 1, or None")
        if not self.patience >= 0:
            raise SweepError(f"patience is {self.patience}: 0 or more seconds")

    def run(self, units: Iterable[Unit], work: Work, *, time_limit: float) -> Iterator[Outcome]:
        """Yield one outcome per unit, as they end; closing the iterator ends the actors."""
        ray = import_ray()
        with joined(ray, self.address, self.runtime_env):
            running = _Run(ray, self, UnitQueue(units), time_limit)
            try:
                running.place(work)
                yield from running.outcomes()
            except (ConnectionError, ray.exceptions.RayError) as error:
                raise SweepError(
                    f"the Ray cluster is lost: {reason_of_end(error)}",
                    hint="what is done is stored: once it is up, `clipq sweep resume` goes on",
                ) from error
            except SystemError as error:
                # What a signal's handler raises within Ray's compiled code comes as this.
                raise (error.__cause__ or error) from None
            finally:
                running.end()

    def held_by(self, nodes: Iterable[dict[str, Any]]) -> int:
        """Return how many units these nodes, as ``ray.nodes()`` has them, hold at once.

        >>> nodes = [{"Alive": True, "Resources": {"CPU": 5.0, "GPU": 1.0}}, {"Alive": False}]
        >>> RayExecutor(cpus_per_unit=2).held_by(nodes), RayExecutor(gpus_per_unit=1).held_by(nodes)
        (2, 1)
        """
        total = 0
        for node in nodes:
            if node["Alive"]:
                offers = node["Resources"]
                held = int(offers.get("CPU", 0) / self.cpus_per_unit)
                if self.gpus_per_unit:
                    held = min(held, int(offers.get("GPU", 0) / self.gpus_per_unit))
                total += held
        return total

    def __str__(self) -> str:
        return f"{self.cpus_per_unit:g} CPUs and {self.gpus_per_unit:g} GPUs"


class _Run:
    """One run of an executor: its actors, and the units that were taken from the iterable."""

    def __init__(self, ray: Any, engine: RayExecutor, queue: UnitQueue[Unit], limit: float) -> None:
        self._ray, self._engine, self._queue, self._limit = ray, engine, queue, limit
        self._slots: list[_Slot] = []
        self._most, self._looked = 0, float("-inf")
        self._bare_since, self._patience = float("inf"), engine.patience
        self._idle_since, self._failed_starts = float("inf"), 0

    def place(self, work: Work) -> None:
        """Put the work into the object store, once for all actors."""
        self._work = self._ray.put(self._ray.cloudpickle.dumps(work))  # a notebook's classes, too
        self._class = self._ray.remote(
            num_cpus=self._engine.cpus_per_unit,
            num_gpus=self._engine.gpus_per_unit,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )(UnitActor)

    def end(self) -> None:
        """End every actor."""
        for slot in self._slots:
            self._kill(slot)
        self._slots.clear()

    def outcomes(self) -> Iterator[Outcome]:
        """Yield them until there are neither units left nor any in flight."""
        while True:
            self._look()
            ahead = self._queue.read(LOOK_AHEAD * max(1, self._most))
            if not ahead and not any(slot.unit for slot in self._slots):
                return
            self._start(ahead)
            self._hand_out()
            self._tell()
            waiting = {slot.waits_for: slot for slot in self._slots if slot.waits_for is not None}
            if not waiting:
                time.sleep(min(0.2, LOOK_EVERY))
                continue
            ended, _ = self._ray.wait(list(waiting), num_returns=1, timeout=self._next_look())
            for reference in ended:
                outcome = self._receive(waiting[reference])
                if outcome:
                    yield outcome
            yield from self._overdue()

    def _next_look(self) -> float:
        ends = [slot.since + self._limit for slot in self._slots if slot.unit]
        return max(0.01, min([LOOK_EVERY, *(end - time.monotonic() for end in ends)]))

    def _look(self) -> None:
        """Count what the nodes hold, now and then; raise where nothing has for too long."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        held = self._engine.held_by(self._ray.nodes())
        self._most = self._engine.workers or held
        if held:
            self._bare_since = float("inf")
            self._patience = max(self._engine.patience, NODES_RETURN)
            return
        self._bare_since = min(self._bare_since, now)
        if now - self._bare_since >= self._patience:
            raise SweepError(
                f"no node of the Ray cluster offers {self._engine}, which one unit asks for "
                f"(waited {self._patience:g} s)",
                hint="ask for less, add a node, or give an autoscaler patience",
            )

    def _tell(self) -> None:
        """Say once in a while that units wait, and what for: nothing else would be seen."""
        now = time.monotonic()
        if any(slot.unit for slot in self._slots):
            self._idle_since = float("inf")
            return
        self._idle_since = min(self._idle_since, now)
        if now - self._idle_since < TELL_AFTER:
            return
        self._idle_since = now
        free = self._ray.available_resources()
        say(
            f"waiting for the Ray cluster: an actor needs {self._engine}; "
            f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs are free on all nodes "
            "together, the rest is others'; `ray status` shows more",
            error=True,
        )

    def _start(self, units: int) -> None:
        """Start actors for units that wait, up to what the nodes hold."""
        free = sum(slot.unit is None for slot in self._slots)
        for _ in range(min(self._most - len(self._slots), units - free)):
            actor = self._class.remote(self._work)
            self._slots.append(_Slot(actor, actor.versions.remote()))

    def _hand_out(self) -> None:
        """Give each free actor a unit: of its model, else of one that no other has, in order."""
        for slot in list(self._slots):
            if slot.waits_for is not None:
                continue
            others = {one.model for one in self._slots if one is not slot}
            unit = self._queue.take(slot.model, others)
            if unit is None:
                self._drop(slot)  # so that an autoscaler may take its node away
                continue
            slot.unit, slot.model, slot.since = unit, unit.model, time.monotonic()
            slot.waits_for = slot.actor.measure.remote(unit)

    def _receive(self, slot: _Slot) -> Outcome | None:
        """Return what became of its unit; None where it had only been started."""
        reference, unit = slot.waits_for, slot.unit
        slot.waits_for, slot.unit = None, None
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._drop(slot)
            if unit:
                lost = node_was_lost(error)
                return self._ended(unit, slot, reason_of_end(error), outside=lost)
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise SweepError(
                    f"{FAILED_STARTS} actors in a row did not start on the Ray cluster: "
                    f"{reason_of_end(error)}",
                    hint="its nodes need this clipq, and memory for a model",
                ) from error
            return None
        if unit is None:
            self._failed_starts = 0
            check_versions(answer)
            return None
        reason, seconds, clock, stays = answer
        if not stays:
            self._drop(slot)
        return Outcome(
            unit, reason, seconds=seconds, gpu_seconds=clock * self._engine.gpus_per_unit
        )

    def _overdue(self) -> Iterator[Outcome]:
        now = time.monotonic()
        for slot in list(self._slots):
            if slot.unit and now - slot.since > self._limit:
                # An answer that came in the meantime counts: its part is in the store.
                done, _ = self._ray.wait([slot.waits_for], timeout=0)
                if not done:
                    self._drop(slot)
                    reason = f"took longer than its limit of {self._limit:g} s"
                    yield self._ended(slot.unit, slot, reason)

    def _ended(self, unit: Unit, slot: _Slot, reason: str, *, outside: bool = False) -> Outcome:
        # Nobody is left to say how many of them the processor worked: the clock's are counted.
        clock = time.monotonic() - slot.since
        gpus = self._engine.gpus_per_unit
        spent = {"seconds": clock, "gpu_seconds": clock * gpus}
        return Outcome(unit, reason, ended=True, outside=outside, **spent)

    def _drop(self, slot: _Slot) -> None:
        self._kill(slot)
        self._slots.remove(slot)

    def _kill(self, slot: _Slot) -> None:
        # The connection may be gone, and the actor with it: then there is nothing to end.
        with suppress(Exception):
            self._ray.kill(slot.actor, no_restart=True)
