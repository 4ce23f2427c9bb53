"""Sweeps on Ray: two nodes against one, a node that is lost, and what actors of a node share.

    python benchmarks/sweep_ray.py [--quick] [--real | --images]

Nodes of one core each, on this machine. Without an option: units that work a processor for a while
(products of matrices of one thread) on one node and on two, in turn. The efficiency is the share of
the time in which actors were at a unit, times what a unit takes of a processor alone by what it
takes beside another; what the clock alone says is shown beside it, and says something on an idle
machine of two cores only. Goal: >= 0.90. Then a node is killed in the middle, by SIGKILL: nothing
is lost, nothing is done twice but what the node was at, and parts are those of an undisturbed run,
byte for byte.

With --real: units of this repository's matrix, of one model on its in-distribution probe, likewise.
With --images: as many processes as actors of a node read a probe's decoded images, as they do from
the cache (mapped files) and from Ray's object store: memory of each and of all, and time until each
is ready. Goal: an actor has at most a tenth of them in memory of its own.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from benchmark import Goals, Script, lacking, quiet
from embedded import REPOSITORY

from clipq.data.sealed_images import SealedWriter, load
from clipq.sweep.coordinator import Parts, SweepSummary, run_sweep
from clipq.sweep.executor import Work
from clipq.sweep.ray_engine import RayExecutor
from clipq.sweep.units import Unit

GOAL = 0.90
LIMIT = 600.0
MIB = 2**20
MODEL, FORMATS = "vit-clean", ("w7", "w7a8", "w5a8", "w5", "w6", "w6a6", "w5g32", "w3")
METRICS = ("top1", "ece")
PROBES = ("id",)


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="two minutes; --real three")
    script.size("--units", full=24, quick=6, help="units that only work, for each number of nodes")
    script.size("--seconds", full=2.0, quick=0.2, help="of a processor, that such a unit takes")
    script.size("--rounds", full=2, quick=1, help="rounds of one node and two")
    script.size("--count", full=2000, quick=64, help="images of 224 x 224 pixels, with --images")
    script.size("--actors", full=4, quick=2, help="processes of a node, with --images")
    script.add_argument("--real", action="store_true", help="measure units of this repository")
    script.add_argument("--images", action="store_true", help="measure what processes share")
    options = script.options(arguments)
    try:
        import ray
    except ImportError as error:
        lacking(str(error))
    goals = Goals(quick=options.quick)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    # Ray lowers its workers' priority: on a busy machine they would stand still.
    normal = mock.patch.dict(os.environ, RAY_worker_niceness="0")
    with tempfile.TemporaryDirectory() as folder, quiet(), normal:
        if options.images:
            images(ray, Path(folder), options.count, options.actors, goals)
        else:
            prepare = real if options.real else synthetic
            nodes(ray, Path(folder), options, prepare, goals)
    return goals.code


@dataclass(frozen=True)
class Job:
    """Units of a sweep, and what is done with them.

    Args:
        units: of it.
        work: called with a sweep's folder.
        store: likewise; where the parts of the work are.
    """

    units: Sequence[Unit]
    work: Callable[[Path], Work]
    store: Callable[[Path], Parts]


@dataclass
class Multiplies:
    """A work that takes a processor so many seconds, and keeps what follows from the unit alone."""

    folder: Path
    seconds: float

    def __call__(self, unit: Unit) -> None:
        seed = int(unit.id[:8], 16)
        matrix = np.random.default_rng(seed).standard_normal((64, 64)) / 64
        first, product, end = None, matrix, time.process_time() + self.seconds
        while first is None or time.process_time() < end:
            product = np.tanh(product @ matrix + matrix)
            first = product.tobytes() if first is None else first
        Folder(self.folder).commit(unit.id, first)


class Folder:
    """Parts as files, each committed by a link that fails where it exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "parts"

    def commit(self, unit_id: str, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".") as file:
            file.write(content)
            file.flush()
            try:
                os.link(file.name, self.folder / unit_id)
            except FileExistsError:
                return

    def ids(self) -> set[str]:
        return {path.name for path in self.folder.glob("[!.]*")}

    def has(self, unit_id: str) -> bool:
        return (self.folder / unit_id).exists()


def synthetic(folder: Path, options: Any) -> Job:
    """Return units that only work."""
    units = [Unit("none", f"rtn:w{number}") for number in range(options.units)]
    return Job(units, lambda place: Multiplies(place, options.seconds), Folder)


def real(folder: Path, options: Any) -> Job:
    """Return units of this repository; what all of them share is made before."""
    from clipq.settings import load_settings
    from clipq.sweep.measuring import UnitWork
    from clipq.sweep.part_store import PartStore
    from clipq.sweep.unit_context import UnitContexts

    path = REPOSITORY / "clipq.toml"
    formats = FORMATS[:4] if options.quick else FORMATS
    contexts = UnitContexts(load_settings(path), probes=PROBES, metrics=METRICS)
    units = [Unit(MODEL, f"rtn:{each}", context=contexts(MODEL, "rtn")) for each in formats]
    work = UnitWork(path, "", probes=PROBES, metrics=METRICS)
    return Job(units, lambda place: replace(work, store_url=str(place)), PartStore)


def nodes(
    ray: Any, folder: Path, options: Any, prepare: Callable[[Path, Any], Job], goals: Goals
) -> None:
    """Run a job on one node and on two, and on two of which one is lost."""
    job = prepare(folder, options)
    ratios, clocks = [], []
    for number in range(options.rounds):
        one = measured(ray, job, folder / f"one-{number}", nodes=1)
        two = measured(ray, job, folder / f"two-{number}", nodes=2)
        ratios.append(two.busy / one.busy * one.seconds / two.seconds)
        clocks.append(one.clock / two.clock / 2)
        for each in (one, two):
            print(f"{each} (load {os.getloadavg()[0]:.0f})", flush=True)
    efficiency, clock = statistics.median(ratios), statistics.median(clocks)
    print(
        f"two nodes against one: efficiency {efficiency:.2f} (goal {GOAL:.2f}), "
        f"by the clock {clock:.2f}"
    )
    goals.measured(efficiency >= GOAL)
    expected = content(folder / "one-0")
    same = content(folder / f"two-{options.rounds - 1}") == expected
    lost = measured(ray, job, folder / "lost", nodes=2, lose=True)
    whole = content(folder / "lost") == expected
    again = lost.summary.attempts - lost.summary.done
    print(
        f"a node killed: {lost.summary.done} of {len(job.units)} units done, {again} begun again; "
        f"parts {'identical' if whole and same else 'DIFFER'}"
    )
    goals.exact(whole and same and lost.summary.done == len(job.units) and again <= 2)


@dataclass(frozen=True)
class Measured:
    """What a run came to.

    Args:
        nodes: of the cluster.
        clock: seconds from the first unit's beginning to the last one's end.
        busy: share of it in which an actor was at a unit, of all actors.
        seconds: of a processor, per unit.
        summary: of the run.
    """

    nodes: int
    clock: float
    busy: float
    seconds: float
    summary: SweepSummary

    def __str__(self) -> str:
        return (
            f"{self.nodes} nodes: {self.clock:.1f} s, at units {self.busy:.1%} of the time, "
            f"{self.seconds:.2f} processor seconds per unit"
        )


@dataclass
class Timed:
    """A work whose units note when they began and ended, and where; actors begin together."""

    work: Work
    log: Path
    actors: int

    def __call__(self, unit: Unit) -> None:
        there = self.log.with_name("actors")
        there.mkdir(exist_ok=True)
        (there / str(os.getpid())).touch()
        while len(list(there.iterdir())) < self.actors:
            time.sleep(0.05)
        processor, begin = time.process_time(), time.time()
        self.work(unit)
        took = time.process_time() - processor
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {begin} {time.time()} {took}\n")


def measured(ray: Any, job: Job, folder: Path, *, nodes: int, lose: bool = False) -> Measured:
    """Run a job on a cluster of its own; with `lose`, kill a node once both have ended a unit."""
    log = folder / "log"
    folder.mkdir()
    with cluster(ray, nodes) as found:
        left = list(found.worker_nodes)[:1] if lose else []

        def seen(*_: object) -> None:
            if left and len({actor for actor, *_ in lines(log)}) == nodes:
                found.remove_node(left.pop(), allow_graceful=False)

        summary = run_sweep(
            job.units,
            Timed(job.work(folder), log, nodes),
            store=job.store(folder),
            executor=RayExecutor(),
            folder=folder,
            identity={"plan": "0a"},
            time_limit=LIMIT,
            progress=seen,
        )
    if left:
        raise SystemExit("no node was lost, for one did all units: give more of them")
    if summary.failed:
        raise SystemExit(str(summary))
    return _reckoned(nodes, log, summary)


def lines(log: Path) -> list[list[str]]:
    """Return what units noted, in words."""
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def _reckoned(nodes: int, log: Path, summary: SweepSummary) -> Measured:
    by_actor: dict[str, list[tuple[float, float, float]]] = {}
    for actor, begin, end, took in lines(log):
        by_actor.setdefault(actor, []).append((float(begin), float(end), float(took)))
    over = max(end for units in by_actor.values() for _, end, _ in units)
    there = sum(over - units[0][0] for units in by_actor.values())
    busy = sum(end - begin for units in by_actor.values() for begin, end, _ in units)
    # The first unit of an actor loads what its others share.
    later = [took for units in by_actor.values() for _, _, took in units[1:]]
    clock = over - min(units[0][0] for units in by_actor.values())
    seconds = statistics.mean(later) if later else math.nan
    return Measured(nodes, clock, busy / there, seconds, summary)


def content(folder: Path) -> dict[str, bytes]:
    """Return the parts of a sweep's folder."""
    found = sorted((folder / "parts").rglob("*"))
    return {
        path.name: path.read_bytes()
        for path in found
        if path.is_file() and not path.name.startswith(".")
    }


@contextmanager
def cluster(ray: Any, nodes: int, *, cores: int = 1, store: int = 10**8) -> Iterator[Any]:
    """Be connected to a cluster of so many nodes on this machine."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": store}
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes - 1):
            found.add_node(num_cpus=cores, object_store_memory=store)
        ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


class Reader:
    """An actor that reads all pixels of a probe, and says what that took of it."""

    def read(self, place: Any) -> float:
        """Return processor seconds until they are there, without those of unpacking `place`."""
        start = time.process_time()
        self.pixels = load(place, key="probe") if isinstance(place, Path) else place
        took = time.process_time() - start
        self.total = int(self.pixels.sum(dtype=np.int64))
        return took

    def memory(self) -> tuple[float, float]:
        """Return MiB that are this process's alone, and MiB with its share of what several map."""
        return _memory()


def _memory() -> tuple[float, float]:
    kib = {"Anonymous:": 0.0, "Pss:": 0.0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, *rest = line.split()
        if name in kib:
            kib[name] = float(rest[0])
    return kib["Anonymous:"] / 1024, kib["Pss:"] / 1024


def images(ray: Any, folder: Path, count: int, actors: int, goals: Goals) -> None:
    """Compare mapped files with Ray's object store."""
    shape = (count, 224, 224, 3)
    size = math.prod(shape) / MIB
    path, generator = folder / "images.npy", np.random.default_rng(0)
    with path.open("wb") as stream:
        writer = SealedWriter(stream, shape, key="probe")
        for _ in range(count):
            writer.add(generator.integers(0, 256, shape[1:], np.uint8))
        writer.seal()
    with cluster(ray, 1, cores=actors, store=int(1.5 * size * MIB) + 10**8):
        for name in ("mapped file", "object store"):
            start = time.process_time()
            # Of a mapped array Ray gives every actor a copy: it is to be one in memory.
            place = path if name == "mapped file" else ray.put(np.array(load(path, key="probe")))
            put = time.process_time() - start
            made = [ray.remote(num_cpus=1)(Reader).remote() for _ in range(actors)]
            before = np.array(ray.get([one.memory.remote() for one in made]))
            took = statistics.median(ray.get([one.read.remote(place) for one in made]))
            more = np.array(ray.get([one.memory.remote() for one in made])) - before
            own, total = float(np.median(more[:, 0])), float(more[:, 1].sum())
            print(
                f"{name}: {actors} actors, {count:,} images ({size:.0f} MiB): {put:.2f} processor "
                f"seconds once, {took:.2f} each; {own:.0f} MiB of an actor's own, with what they "
                f"share {total:.0f} MiB of all",
                flush=True,
            )
            goals.exact(own <= 0.1 * size + 16)
            for one in made:
                ray.kill(one)
            del place


if __name__ == "__main__":
    sys.exit(main())
