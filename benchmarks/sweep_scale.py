"""What a study of ImageNet size takes on a cluster, by a simulation that is held against a sweep.

    python benchmarks/sweep_scale.py [--quick] [--gpus 64 256]

10 models x 16 methods x 3 bit-widths x 3 proxies x 2 scopes, three seeds where something is drawn,
on 12 probes of a million images: time, traffic, storage, the coordinator's load, and what holds up
whom with 64 GPUs and with more. `scale_study.py` says of every cost whether it was measured,
counted or assumed; what is assumed is halved and doubled in turn.

Two things are measured here: processor seconds of the coordinator for a unit, over units of no
work, with as many actors as asked for; and whether the simulator is right. For that, units that
sleep are run by two processes of this machine, and simulated. Goal: within 10 % of the clock.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import cycle
from pathlib import Path
from random import Random
from statistics import median

from benchmark import Goals, Script
from cluster_simulation import Cluster, Done, Job, simulate
from scale_study import (
    CELLS,
    COMPACTED_ROW_BYTES,
    IMAGES,
    MODELS,
    PART_ROW_BYTES,
    Assumptions,
    jobs,
    judge_core_s,
)
from tabulate import tabulate

from clipq.sweep import local_engine, ray_engine
from clipq.sweep.coordinator import run_sweep
from clipq.sweep.executor import Outcome
from clipq.sweep.local_engine import LocalExecutor
from clipq.sweep.unit_queue import UnitQueue
from clipq.sweep.units import Unit

GOAL, GPUS_PER_NODE = 0.10, 8
COMMIT_S = 5.4e-3
"""Measured: benchmarks/README.md, `sweep_store.py`."""


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="four minutes")
    gpus = (64, 128, 256, 512, 1024, 2048)
    script.size("--gpus", full=gpus, quick=(8, 16), help="eight in a node; the first in detail")
    script.size("--models", full=len(MODELS), quick=1, help="of the study's, the first so many")
    script.size("--works", full=40, quick=8, help="that sleep, in the comparison with a sweep")
    script.size("--rounds", full=3, quick=1, help="of that comparison")
    script.size("--units", full=2000, quick=50, help="of no work, to time the coordinator")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    compare(options.works, options.rounds, goals)
    costs = {count: coordinator_s(count, options.units) for count in options.gpus}
    first = options.gpus[0]
    given = Assumptions()
    done = simulated(first, options.models, given, costs[first])
    units = len(list(jobs(MODELS[: options.models], given, actors=GPUS_PER_NODE)))
    goals.exact(done.units == units)
    tell(done, first)
    by_gpus = {first: done}
    for count in options.gpus[1:]:
        by_gpus[count] = simulated(count, options.models, given, costs[count])
    tell_growth(by_gpus, costs)
    tell_sensitivity(done, first, options.models, costs[first])
    return goals.code


# -- is the simulator right ----------------------------------------------------------------------


@dataclass
class SleepingWork:
    """Sleeps as long as a unit and the loading of its model take."""

    folder: Path
    load_s: Mapping[str, float]
    unit_s: Mapping[str, float]
    loaded: str = field(default="", compare=False)

    def __call__(self, unit: Unit) -> None:
        if unit.model != self.loaded:
            time.sleep(self.load_s[unit.model])
            self.loaded = unit.model
        time.sleep(self.unit_s[unit.quantizer])
        (self.folder / unit.id).touch()


class Touched:
    """The files that works leave behind, as a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, unit_id: str) -> bool:
        return (self.folder / unit_id).exists()

    def ids(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


def compare(works: int, rounds: int, goals: Goals) -> None:
    """Run units that sleep, simulate the same ones, and print both."""
    rng = Random(0)
    models = {f"model-{at}": rng.uniform(0.5, 1.5) for at in range(5)}
    quantizers = {f"q{at}": rng.uniform(0.1, 1.5) for at in range(works // len(models) + 1)}
    units = [Unit(model, one) for model in models for one in quantizers][:works]
    idle = dict.fromkeys(models, 0.0), dict.fromkeys(quantizers, 0.0)
    asked = [
        Job(one.model, load_s=models[one.model], encode_s=quantizers[one.quantizer])
        for one in units
    ]
    errors = []
    for at in range(rounds):
        start_s = clocked(units[:2], *idle)  # what processes take to begin and to end
        cluster = Cluster(nodes=1, actors=2, ahead=local_engine._AHEAD, start_s=start_s)
        predicted = simulate(asked, cluster)
        took = clocked(units, models, quantizers)
        errors.append(abs(predicted.seconds - took) / took)
        print(
            f"round {at + 1}: {works} units that sleep, two processes: {took:.2f} s by the clock, "
            f"{predicted.seconds:.2f} s simulated ({start_s:.2f} s of them to begin): "
            f"{predicted.seconds / took - 1:+.1%}",
            flush=True,
        )
    print(f"simulated against measured: off by {median(errors):.1%} (goal {GOAL:.0%})")
    goals.measured(median(errors) <= GOAL)


def clocked(
    units: Sequence[Unit], load_s: Mapping[str, float], unit_s: Mapping[str, float]
) -> float:
    """Return the seconds of a sweep by two processes."""
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder) / "parts"
        parts.mkdir()
        started = time.perf_counter()
        summary = run_sweep(
            units,
            SleepingWork(parts, load_s, unit_s),
            store=Touched(parts),
            executor=LocalExecutor(2),
            folder=Path(folder),
            identity={},
            time_limit=math.inf,
        )
        seconds = time.perf_counter() - started
    if summary.done != len(units):
        raise SystemExit(f"{summary}")
    return seconds


# -- what the coordinator takes ------------------------------------------------------------------


class _Inline:
    """An engine whose units are done at once."""

    def run(self, units, work, *, time_limit: float) -> Iterator[Outcome]:
        for unit in units:
            work(unit)
            yield Outcome(unit)


class _Actor:
    """What the Ray engine calls, without a cluster."""

    measure = None

    def __init__(self) -> None:
        self.measure = self

    def remote(self, unit: Unit) -> object:
        return object()


def coordinator_s(actors: int, count: int) -> float:
    """Return processor seconds for a unit: of the loop, and of handing out to so many actors."""
    units = [Unit(f"model-{at * 10 // count}", f"q{at}") for at in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder) / "parts"
        parts.mkdir()
        store = Touched(parts)
        options = {"store": store, "executor": _Inline(), "folder": Path(folder)}
        begun = time.process_time()
        run_sweep(
            units,
            lambda unit: (parts / unit.id).touch(),
            identity={},
            time_limit=math.inf,
            **options,
        )
        loop_s = (time.process_time() - begun) / count
    return loop_s + _hand_out_s(actors, units)


def _hand_out_s(actors: int, units: Sequence[Unit]) -> float:
    """Return seconds of the Ray engine's choice of a unit, with all other actors at work."""
    queue = UnitQueue(cycle(units))
    queue.read(ray_engine.LOOK_AHEAD * actors)
    run = ray_engine._Run(None, ray_engine.RayExecutor(), queue, math.inf)
    run._slots = [ray_engine._Slot(_Actor(), object(), units[0], "model-0") for _ in range(actors)]
    repeats = 20
    begun = time.process_time()
    for slot in (run._slots * repeats)[:repeats]:
        slot.waits_for = slot.unit = None
        run._hand_out()
    return (time.process_time() - begun) / repeats


# -- what comes of it ----------------------------------------------------------------------------


def simulated(
    gpus: int, models: int, given: Assumptions, own_s: float, *, once_per_node: bool = True
) -> Done:
    """Return what the study comes to on so many GPUs."""
    per_node = min(GPUS_PER_NODE, gpus)
    cluster = Cluster(
        nodes=gpus // per_node,
        actors=per_node,
        ahead=ray_engine.LOOK_AHEAD * gpus,
        start_s=given.start_s,
        coordinator_s=own_s + given.ray_ms / 1e3,
        commit_s=COMMIT_S,
        link_bytes_per_s=given.link_gb_s * 1e9,
        once_per_node=once_per_node,
    )
    return simulate(jobs(MODELS[:models], given, actors=per_node), cluster)


def tell(done: Done, gpus: int) -> None:
    """Print time, traffic, storage and the coordinator's load."""
    rows = done.units * CELLS
    decoded = {model.preprocessing: IMAGES * model.pixel_bytes for model in MODELS}
    print(
        f"\n{done.units:,} units, {rows:,} metric cells ({CELLS} a unit), {IMAGES:,} images a "
        f"unit; values and intervals {judge_core_s():.0f} processor seconds a unit\n"
        f"{gpus} GPUs: {done.seconds / 3600:.1f} h, "
        f"{done.seconds * gpus / 3600:,.0f} GPU hours"
    )
    shares = sorted(done.shares.items(), key=lambda each: -each[1])
    print("time of actors: " + ", ".join(f"{what} {share:.2%}" for what, share in shares))
    sent = ", ".join(f"{what} {size / 1e9:,.2f} GB" for what, size in sorted(done.traffic.items()))
    print(f"over the store's link: {sent}; full for {done.link_busy_s / done.seconds:.2%}")
    print(
        f"storage: parts {rows * PART_ROW_BYTES / 1e6:.0f} MB, compacted "
        f"{rows * COMPACTED_ROW_BYTES / 1e6:.0f} MB; decoded images of a node "
        + ", ".join(f"{name} {size / 1e9:.0f} GB" for name, size in decoded.items())
        + f", together {sum(decoded.values()) / 1e9:,.0f} GB"
    )
    print(
        f"coordinator: {done.units / done.seconds:.3f} commits/s, "
        f"{2 * done.units / done.seconds:.3f} messages/s, busy "
        f"{done.coordinator_busy_s / done.seconds:.3%}; {done.loads} models loaded"
    )


def tell_growth(by_gpus: Mapping[int, Done], costs: Mapping[int, float]) -> None:
    """Print what more GPUs come to, and what holds them up."""
    first = min(by_gpus)
    table = []
    for gpus, done in by_gpus.items():
        efficiency = by_gpus[first].seconds * first / (done.seconds * gpus)
        lost = {what: share for what, share in done.shares.items() if what not in _WORK}
        worst = sorted(lost, key=lambda what: -lost[what])[:3]
        table.append(
            (
                gpus,
                f"{done.seconds / 3600:.2f}",
                f"{efficiency:.3f}",
                f"{costs[gpus] * 1e3:.2f}",
                f"{done.coordinator_busy_s / done.seconds:.2%}",
                f"{done.link_busy_s / done.seconds:.1%}",
                ", ".join(f"{what} {lost[what]:.1%}" for what in worst),
            )
        )
    columns = ("GPUs", "hours", "efficiency", "ms a unit", "coordinator", "link", "lost to")
    print("\n" + tabulate(table, columns, disable_numparse=True))
    rate = by_gpus[first].units / by_gpus[first].seconds / first
    print(f"the coordinator alone would be full at some {full_at(costs, rate):,.0f} GPUs")


def full_at(costs: Mapping[int, float], rate: float) -> float:
    """Return the GPUs at which units come as fast as the coordinator takes them.

    Args:
        costs: its seconds for a unit, by GPUs: taken to grow along a line.
        rate: units a second of one GPU.
    """
    least, most = min(costs), max(costs)
    slope = (costs[most] - costs[least]) / max(1, most - least)
    fixed = costs[least] - slope * least + Assumptions().ray_ms / 1e3
    if slope <= 0:
        return 1 / (rate * fixed)
    return (math.sqrt(fixed**2 + 4 * slope / rate) - fixed) / (2 * slope)


_WORK = ("encode", "quantize or train", "judge")


def tell_sensitivity(done: Done, gpus: int, models: int, own_s: float) -> None:
    """Print how far each assumption moves the time."""
    given, table = Assumptions(), []
    for name in (each.name for each in fields(given)):
        assumed = getattr(given, name)
        row = [name, f"{assumed:g}"]
        for factor in (0.5, 2.0):
            other = replace(given, **{name: assumed * factor})
            row.append(f"{simulated(gpus, models, other, own_s).seconds / done.seconds - 1:+.1%}")
        table.append(row)
    apart = simulated(gpus, models, given, own_s, once_per_node=False)
    print("\n" + tabulate(table, ("assumed", "", "halved", "doubled"), disable_numparse=True))
    print(
        f"each actor with images and weights of its own: {apart.seconds / done.seconds - 1:+.1%}, "
        f"{sum(apart.traffic.values()) / sum(done.traffic.values()):.1f} x the traffic"
    )


if __name__ == "__main__":
    sys.exit(main())
