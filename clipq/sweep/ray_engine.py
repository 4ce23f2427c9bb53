"""The engine of a Ray cluster: actors that keep a model loaded, one unit at a time each."""

from __future__ import annotations

import importlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from clipq.errors import SweepError
from clipq.provenance import package_versions
from clipq.sweep.executor import Outcome, Work
from clipq.sweep.units import Unit

__all__ = ["RayExecutor"]

LOOK_EVERY = 2.0  # seconds between looks at the cluster's nodes
LOOK_AHEAD = 4  # units per actor among which one of the model that it has loaded is looked for
FAILED_STARTS = 5  # in a row, after which it is no accident


def _versions() -> dict[str, str]:
    """Return what has to be the same on all machines for results to be the same."""
    return dict(package_versions(("clipq", "torch")))


class _Measurer:
    """What an actor holds: the work, and through it the model that it loaded."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def versions(self) -> dict[str, str]:
        """Return those of this process; that it answers says that it has started."""
        return _versions()

    def measure(self, unit: Unit) -> tuple[str, float, float]:
        """Return why it failed ("" where it did not), and its seconds of processor and of clock."""
        processor, clock = time.process_time(), time.monotonic()
        reason = ""
        try:
            self._work(unit)
        except Exception as error:
            # As text: an exception that cannot be pickled would say nothing on the other side.
            reason = f"{type(error).__name__}: {error}"
        return reason, time.process_time() - processor, time.monotonic() - clock


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
        SweepError: where Ray is missing, nothing answers at the address, nodes have other versions
            of Python, clipq or torch, or no node offers what a unit asks for.

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

    def run(self, units: Iterable[Unit], work: Work, *, time_limit: float) -> Iterator[Outcome]:
        """Yield one outcome per unit, as they end; closing the iterator ends the actors."""
        ray = _import_ray()
        ours = self._join(ray)
        running = _Run(ray, self, iter(units), time_limit)
        try:
            running.place(work)
            yield from running.outcomes()
        finally:
            running.end()
            if ours:
                ray.shutdown()

    def _join(self, ray: Any) -> bool:
        """Connect, and return whether it was this that did."""
        if ray.is_initialized():
            return False
        here = self.address in (None, "local")
        quiet = {"include_dashboard": False} if here else {}
        try:
            ray.init(
                address="local" if here else self.address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env=self.runtime_env,
                **quiet,
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SweepError(
                f"no Ray cluster could be joined at {self.address or 'local'!r}: {first}. Give the "
                'HOST:PORT that "ray start --head" printed, "auto" on one of its nodes, or "local"'
            ) from error
        return True

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


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise SweepError(
            "a sweep on Ray needs the package ray: pip install 'pytest-clipq[ray]'"
        ) from error


class _Run:
    """One run of an executor: its actors, and the units that were taken from the iterable."""

    def __init__(self, ray: Any, engine: RayExecutor, units: Iterator[Unit], limit: float) -> None:
        self._ray, self._engine, self._units, self._limit = ray, engine, units, limit
        self._queue: deque[Unit] = deque()
        self._slots: list[_Slot] = []
        self._most, self._looked, self._bare_since = 0, float("-inf"), float("inf")
        self._failed_starts = 0

    def place(self, work: Work) -> None:
        """Put the work into the object store, once for all actors."""
        self._work = self._ray.put(work)
        self._class = self._ray.remote(
            num_cpus=self._engine.cpus_per_unit,
            num_gpus=self._engine.gpus_per_unit,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )(_Measurer)

    def end(self) -> None:
        """End every actor."""
        for slot in self._slots:
            self._kill(slot)
        self._slots.clear()

    def outcomes(self) -> Iterator[Outcome]:
        """Yield them until there are neither units left nor any in flight."""
        while True:
            self._look()
            self._queue.extend(
                islice(self._units, max(0, LOOK_AHEAD * max(1, self._most) - len(self._queue)))
            )
            if not self._queue and not any(slot.unit for slot in self._slots):
                return
            self._start()
            self._hand_out()
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
        engine = self._engine
        held = engine.held_by(self._ray.nodes())
        self._most = engine.workers or held
        self._bare_since = float("inf") if held else min(self._bare_since, now)
        if now - self._bare_since >= engine.patience:
            raise SweepError(
                f"no node of the Ray cluster offers {engine.cpus_per_unit:g} CPUs and "
                f"{engine.gpus_per_unit:g} GPUs, which one unit asks for (waited "
                f"{engine.patience:g} s): ask for less, add a node, or give an autoscaler patience"
            )

    def _start(self) -> None:
        """Start actors for units that wait, up to what the nodes hold."""
        free = sum(slot.unit is None for slot in self._slots)
        for _ in range(min(self._most - len(self._slots), len(self._queue) - free)):
            actor = self._class.remote(self._work)
            self._slots.append(_Slot(actor, actor.versions.remote()))

    def _hand_out(self) -> None:
        for slot in self._slots:
            if slot.waits_for is None and self._queue:
                unit = next((u for u in self._queue if u.model == slot.model), self._queue[0])
                self._queue.remove(unit)
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
                return self._ended(unit, slot, _reason(error))
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise SweepError(
                    f"{FAILED_STARTS} actors in a row did not start on the Ray cluster: "
                    f"{_reason(error)}. Its nodes need this clipq, and memory for a model"
                ) from error
            return None
        if unit is None:
            self._failed_starts = 0
            self._compare(answer)
            return None
        reason, seconds, clock = answer
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

    def _ended(self, unit: Unit, slot: _Slot, reason: str) -> Outcome:
        # Nobody is left to say how many of them the processor worked: the clock's are counted.
        clock = time.monotonic() - slot.since
        gpus = self._engine.gpus_per_unit
        return Outcome(unit, reason, ended=True, seconds=clock, gpu_seconds=clock * gpus)

    def _compare(self, theirs: dict[str, str]) -> None:
        other = [
            f"{name} {theirs[name]} there, {mine} here"
            for name, mine in _versions().items()
            if theirs[name] != mine
        ]
        if other:
            raise SweepError(
                f"a node of the Ray cluster has other versions ({'; '.join(other)}): results "
                "would not be the same; install the same on all nodes"
            )

    def _drop(self, slot: _Slot) -> None:
        self._kill(slot)
        self._slots.remove(slot)

    def _kill(self, slot: _Slot) -> None:
        # The connection may be gone, and the actor with it: then there is nothing to end.
        with suppress(Exception):
            self._ray.kill(slot.actor, no_restart=True)


def _reason(error: Exception) -> str:
    """Return what Ray says of an end, on one line."""
    said = " ".join(str(error).split())
    # Ray guesses at the kernel's out-of-memory killer for every process that is gone: not quoted.
    said = said.split(" Some common causes include")[0]
    short = said if len(said) <= 400 else said[:397] + "..."
    if "OutOfMemory" in type(error).__name__ or "low on memory" in said:
        return f"out of memory: {short}"
    return f"{type(error).__name__}: {short}"
