"""`clipq sweep run` and `resume`: do what of a plan is not done yet."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from clipq.cli.progress import watching
from clipq.cli.sweep_folders import PlannedSweep, add_plan, folder_of, planned_sweep, store_of
from clipq.terminal import say

if TYPE_CHECKING:
    from clipq.sweep.coordinator import SweepSummary
    from clipq.sweep.executor import Executor
    from clipq.sweep.spending import Spending
    from clipq.sweep.units import Unit

__all__ = ["RESUME", "RUN", "declare", "resume", "run"]

RUN = """\
Evaluate every unit of a plan: a model, a quantizer with its seed, and the draw of its calibration
data, on all probes. A unit's results are one Parquet file in the sweep's folder, whole or absent.
What is there already is not done again, so that the same command goes on with what was interrupted.
FP32's baselines are those of the project: `clipq baseline create` makes them.

A unit that fails is tried again, and set aside after --tries: its reason is shown here and by
`clipq sweep status`, the others go on, and the exit code says so.
"""
RESUME = """\
Go on with a sweep that was interrupted: as `run`, and an error where nothing was begun.
"""
_DEFAULT_LIMIT = 3600.0


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of both."""
    add_plan(parser)
    cores = _cores()
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help=f"that do a unit each at a time (default: {cores}, one per core; of a cluster, all)",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="processes of this machine, or actors of a Ray cluster (default: local)",
    )
    parser.add_argument(
        "--address",
        metavar="A",
        help="of the cluster: auto, HOST:PORT or ray://HOST:PORT (default: one of this machine)",
    )
    parser.add_argument(
        "--gpus-per-unit",
        type=float,
        default=0.0,
        metavar="G",
        help="GPUs that a unit has on a cluster; may be a fraction (default: 0)",
    )
    parser.add_argument(
        "--cpus-per-unit",
        type=float,
        default=1.0,
        metavar="C",
        help="processors that it has there: as many as the settings' threads (default: 1)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds to wait for a node of the cluster that has room for a unit (default: 0)",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=_DEFAULT_LIMIT,
        metavar="S",
        help="seconds that a unit may take before it counts as hanging (default: 3600)",
    )
    parser.add_argument(
        "--memory-limit",
        type=float,
        metavar="GB",
        help="that each process may have: a unit that needs more fails by itself (default: none)",
    )
    parser.add_argument(
        "--tries", type=int, default=3, metavar="N", help="attempts at a unit (default: 3)"
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="S",
        help="seconds after which no unit is begun; those under way are finished",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only say what the plan comes to, as `plan --folder` of this sweep does",
    )
    parser.add_argument(
        "--cpu-hours",
        type=float,
        metavar="H",
        help="of processors that the sweep may take in all its runs: then no unit is begun",
    )
    parser.add_argument("--gpu-hours", type=float, metavar="H", help="likewise, of GPUs")
    parser.add_argument(
        "--max-cost", type=float, metavar="C", help="likewise, at --price and --gpu-price"
    )
    parser.add_argument(
        "--price", type=float, default=0.0, metavar="P", help="of a processor's hour"
    )
    parser.add_argument("--gpu-price", type=float, default=0.0, metavar="P", help="of a GPU's hour")
    parser.add_argument(
        "--another",
        action="store_true",
        help="go on though plan, code, data or settings changed; units that are the same stay done",
    )
    parser.add_argument(
        "--yes", action="store_true", help="run more than a million metric cells: it is meant so"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(options: argparse.Namespace) -> int:
    """Do the units that are left; return 0, or 1 where some have failed or are left."""
    if options.dry_run:
        return _dry_run(options)
    from clipq.sweep.coordinator import run_sweep
    from clipq.sweep.measuring import UnitWork, check_baselines
    from clipq.sweep.part_store import PartStore
    from clipq.sweep.sweep_plan import MOST_CELLS
    from clipq.sweep.thrifty_run import losses_of, read_dropped, run_thriftily

    spending = _spending(options)
    sweep = planned_sweep(options.plan, quiet=options.quiet)
    folder, executor = folder_of(options), _executor(options)
    survey = sweep.plan.survey(sweep.settings, most=None if options.yes else MOST_CELLS)
    check_baselines(sweep.settings, tuple(survey.by_model))
    work = UnitWork(
        sweep.plan.settings, store_of(options), probes=sweep.plan.probes, metrics=sweep.plan.metrics
    )
    store, identity = PartStore(store_of(options)), _identity(sweep)
    start = time.monotonic()

    def done_of(units: Iterable[Unit], planned: Iterable[Unit]) -> SweepSummary:
        left = None if options.budget is None else options.budget - (time.monotonic() - start)
        with watching(options, unit="unit", closing=False) as progress:
            return run_sweep(
                units,
                work,
                store=store,
                executor=executor,
                folder=folder,
                identity=identity,
                another=options.another,
                tries=options.tries,
                time_limit=options.time_limit,
                budget_seconds=left,
                spending=spending,
                planned=() if options.quiet else planned,
                progress=progress,
            )

    thrift = sweep.plan.thrift
    if thrift is None:
        summary = done_of(sweep.units(), sweep.units())
    else:
        summary = run_thriftily(
            list(sweep.units()),
            thrift,
            folder=folder,
            losses=lambda: losses_of(store, thrift),
            run=lambda units: done_of(units, units),
        )
    say(f"{folder}: {summary}")
    if thrift is not None:
        say(f"{len(read_dropped(folder)):,} units dropped, {thrift}: {folder}/thrift.jsonl")
    return summary.exit_code


def resume(options: argparse.Namespace) -> int:
    """As `run`, of a sweep that was begun."""
    from clipq.errors import SweepError

    folder = folder_of(options)
    if not (folder / "sweep.json").exists():
        raise SweepError(
            f"no sweep was begun in {folder}", hint=f"clipq sweep run {options.plan} begins it"
        )
    return run(options)


def _dry_run(options: argparse.Namespace) -> int:
    """Say what `plan` says, of this folder and as many processes; return 0."""
    from clipq.cli.sweep_planning import plan

    _spending(options)
    _executor(options)
    asked = vars(options) | {
        "folder": folder_of(options),
        "processes": options.processes if options.processes is not None else _cores(),
        "price": options.price or None,
        "gpu_price": options.gpu_price or None,
        "seconds_per_unit": None,
        "units": False,
        "format": "text",
    }
    return plan(argparse.Namespace(**asked))


def _spending(options: argparse.Namespace) -> Spending:
    from clipq.sweep.spending import Spending

    return Spending(
        options.cpu_hours, options.gpu_hours, options.max_cost, options.price, options.gpu_price
    )


def _executor(options: argparse.Namespace) -> Executor:
    from clipq.errors import SweepError
    from clipq.sweep.local_engine import LocalExecutor

    for name, unit in (("time_limit", "seconds"), ("budget", "seconds"), ("memory_limit", "GB")):
        given = getattr(options, name)
        if given is not None and not (0 < given < math.inf):
            raise SweepError(
                f"--{name.replace('_', '-')} {given:g}", hint=f"give a number of {unit} above 0"
            )
    if options.engine == "ray":
        if options.memory_limit is not None:
            raise SweepError(
                "--memory-limit is of this machine's processes", hint="a cluster has its own"
            )
        from clipq.sweep.ray_engine import RayExecutor

        return RayExecutor(
            address=options.address,
            cpus_per_unit=options.cpus_per_unit,
            gpus_per_unit=options.gpus_per_unit,
            workers=options.processes,
            patience=options.patience,
        )
    asked = (options.address, options.gpus_per_unit, options.cpus_per_unit, options.patience)
    if asked != (None, 0.0, 1.0, 0.0):
        raise SweepError(
            "--address, --gpus-per-unit, --cpus-per-unit and --patience are of a cluster",
            hint="give --engine ray, too",
        )
    processes = options.processes if options.processes is not None else _cores()
    limit = options.memory_limit
    return LocalExecutor(processes, memory_limit=None if limit is None else int(limit * 1e9))


def _cores() -> int:
    return os.cpu_count() or 1


def _identity(sweep: PlannedSweep) -> dict[str, str]:
    """Return what decides the units and their results."""
    pairs: dict[tuple[str, str], None] = {}

    def noted(model: str, method: str) -> str:
        pairs[model, method] = None
        return ""

    for _ in sweep.plan.units(sweep.settings, noted):
        pass
    return sweep.contexts.identity(list(pairs), plan=sweep.plan.digest)
