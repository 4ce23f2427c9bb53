"""A sweep on a cluster, as events in order of time: which actor does what, and what it waits for.

Actors are generators that yield when they go on; shared things (the coordinator, the store's link)
serve one request after the other. Units are handed out by the queue of clipq's engines.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field

from clipq.sweep.unit_queue import UnitQueue

__all__ = ["Cluster", "Done", "Job", "simulate"]


@dataclass(frozen=True, slots=True)
class Job:
    """A unit, as far as time and traffic go.

    Args:
        model: its name.
        images: which decoded images it reads: those of one preprocessing.
        prepare_s: seconds of quantizing or training, on the actor's GPU or its processors.
        encode_s: of encoding.
        judge_s: of values and intervals, on the actor's processors; its GPU waits.
        image_bytes: of the images as they are stored, before they are decoded.
        decode_s: that one process needs to decode all of them.
        verify_s: that each process needs to check them, when it reads them first.
        weight_bytes: of the model.
        load_s: from weights on the node to a loaded model.
        part_bytes: of its results.
    """

    model: str
    images: str = ""
    prepare_s: float = 0.0
    encode_s: float = 0.0
    judge_s: float = 0.0
    image_bytes: float = 0.0
    decode_s: float = 0.0
    verify_s: float = 0.0
    weight_bytes: float = 0.0
    load_s: float = 0.0
    part_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What does the units.

    Args:
        nodes: machines.
        actors: on each; an actor does one unit at a time.
        ahead: units that are read ahead in search of one of an actor's model.
        start_s: from nothing to an actor that can be given a unit.
        coordinator_s: that the coordinator needs for one unit: to hand it out, to note its outcome.
        commit_s: of an actor, to store a part.
        link_bytes_per_s: of the store that images and weights come from and parts go to, in all.
        once_per_node: whether actors of a node share images and weights; else each has its own.
    """

    nodes: int
    actors: int
    ahead: int
    start_s: float = 0.0
    coordinator_s: float = 0.0
    commit_s: float = 0.0
    link_bytes_per_s: float = float("inf")
    once_per_node: bool = True


@dataclass(slots=True)
class Done:
    """What a sweep came to.

    Args:
        actors: that there were.
        seconds: from the start to the last outcome.
        units: done.
        actor_s: seconds of all actors by what they were spent on.
        traffic: bytes over the store's link, by what.
        loads: times that a model was loaded.
        coordinator_busy_s: seconds in which the coordinator worked.
        link_busy_s: seconds in which the link was full.
    """

    actors: int
    seconds: float = 0.0
    units: int = 0
    actor_s: Counter[str] = field(default_factory=Counter)
    traffic: Counter[str] = field(default_factory=Counter)
    loads: int = 0
    coordinator_busy_s: float = 0.0
    link_busy_s: float = 0.0

    @property
    def shares(self) -> dict[str, float]:
        """Parts of all actors' time, by what; "idle" is the wait for the others' last units."""
        whole = self.seconds * self.actors
        found = {what: seconds / whole for what, seconds in self.actor_s.items()}
        return found | {"idle": 1.0 - sum(found.values())}


class _Server:
    """Serves one request after the other, in the order in which they come."""

    def __init__(self) -> None:
        self.free_at = self.busy_s = 0.0

    def until(self, now: float, seconds: float) -> float:
        """Return when a request of now is served."""
        self.free_at = max(self.free_at, now) + seconds
        self.busy_s += seconds
        return self.free_at


_Times = Generator[float, float, None]


class _Simulation:
    def __init__(self, jobs: Iterable[Job], cluster: Cluster) -> None:
        self.cluster = cluster
        self.queue = UnitQueue(jobs)
        self.coordinator, self.link = _Server(), _Server()
        self.loaded: Counter[str] = Counter()
        self.there: dict[tuple[int, str], float] = {}  # when a node has something
        self.done = Done(cluster.nodes * cluster.actors)

    def run(self) -> Done:
        actors = [
            self._actor(node if self.cluster.once_per_node else node * self.cluster.actors + at)
            for node in range(self.cluster.nodes)
            for at in range(self.cluster.actors)
        ]
        events = [(next(actor), order) for order, actor in enumerate(actors)]
        heapq.heapify(events)
        while events:
            now, order = heapq.heappop(events)
            then = next_of(actors[order], now)
            if then is not None:
                heapq.heappush(events, (then, order))
        self.done.coordinator_busy_s = self.coordinator.busy_s
        self.done.link_busy_s = self.link.busy_s
        return self.done

    def _actor(self, place: int) -> _Times:
        cluster, spent, model, checked = self.cluster, self.done.actor_s, "", set[str]()
        now = yield cluster.start_s
        spent["start"] += now
        while True:
            others = self.loaded - Counter([model])
            self.queue.read(cluster.ahead)
            job = self.queue.take(model, others)
            if job is None:
                return
            if model != job.model:
                self.loaded = others + Counter([job.model])
            before, now = now, (yield self.coordinator.until(now, cluster.coordinator_s))
            spent["coordinator"] += now - before
            if model != job.model:
                model = job.model
                self.done.loads += 1
                ready = self._fetched(place, now, f"weights {model}", job.weight_bytes, 0.0)
                before, now = now, (yield ready + job.load_s)
                spent["load"] += now - before
            if job.images not in checked:
                checked.add(job.images)
                name = f"images {job.images}"
                ready = self._fetched(place, now, name, job.image_bytes, job.decode_s)
                before, now = now, (yield ready + job.verify_s)
                spent["images"] += now - before
            for what, seconds in (
                ("quantize or train", job.prepare_s),
                ("encode", job.encode_s),
                ("judge", job.judge_s),
            ):
                now = yield now + seconds
                spent[what] += seconds
            stored = self._sent(now, "parts", job.part_bytes)
            before, now = now, (yield stored + cluster.commit_s)
            spent["commit"] += now - before
            self.done.units += 1
            self.done.seconds = max(self.done.seconds, now)

    def _fetched(self, place: int, now: float, what: str, size: float, decode_s: float) -> float:
        """Return when a place has something: who comes first fetches, others wait for it."""
        if (place, what) not in self.there:
            arrived = self._sent(now, what.partition(" ")[0], size)
            self.there[place, what] = max(arrived, now + decode_s)
        return max(now, self.there[place, what])

    def _sent(self, now: float, what: str, size: float) -> float:
        self.done.traffic[what] += int(size)
        return self.link.until(now, size / self.cluster.link_bytes_per_s)


def next_of(actor: _Times, now: float) -> float | None:
    """Return when an actor goes on; None where no unit is left for it."""
    try:
        return actor.send(now)
    except StopIteration:
        return None


def simulate(jobs: Iterable[Job], cluster: Cluster) -> Done:
    """Return what doing the jobs in this order comes to.

    >>> jobs = [Job("a", encode_s=3.0)] * 2 + [Job("b", encode_s=2.0)] * 3
    >>> done = simulate(jobs, Cluster(nodes=1, actors=2, ahead=32))
    >>> done.seconds, done.loads
    (6.0, 2)
    """
    return _Simulation(jobs, cluster).run()
