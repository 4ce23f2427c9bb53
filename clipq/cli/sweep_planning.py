"""`clipq sweep plan`, and `run --dry-run`: what a plan comes to, before anything is measured."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clipq.cli.sweep_folders import plan_settings
from clipq.terminal import emit

if TYPE_CHECKING:
    from clipq.sweep.sweep_estimate import SweepEstimate
    from clipq.sweep.sweep_plan import Survey, SweepPlan

__all__ = ["PLAN", "declare", "plan"]

PLAN = """\
Check a plan and say what it comes to, without measuring anything: units, metric cells, how many
seeds each unit has and why, and what it will take.
"""


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", type=Path, metavar="PLAN", help="its file, e.g. plan.toml")
    parser.add_argument(
        "--yes", action="store_true", help="plan more than a million metric cells: it is meant so"
    )
    known = parser.add_mutually_exclusive_group()
    known.add_argument(
        "--seconds-per-unit", type=float, metavar="S", help="processor seconds, to estimate from"
    )
    known.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="of a sweep, to estimate from what units took"
    )
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="that will work at once (default: 1)"
    )
    parser.add_argument(
        "--price", type=float, metavar="P", help="of an hour of one process, in any currency"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--units", action="store_true", help="print each unit, one a line")
    shown.add_argument("--format", choices=("text", "json"), default="text", help="default: text")


def plan(options: argparse.Namespace) -> int:
    """Check a plan and print what it comes to; return 0."""
    from clipq.sweep.sweep_estimate import estimate
    from clipq.sweep.sweep_plan import MOST_CELLS, read_plan

    read = read_plan(options.plan)
    settings = plan_settings(read)
    survey = read.survey(settings, most=None if options.yes else MOST_CELLS)
    given = options.seconds_per_unit
    seconds, sizes = _measured(options.folder) if options.folder else ((), ())
    found = estimate(
        survey.units,
        seconds if given is None else (given,),
        processes=options.processes,
        price=options.price,
        sizes=sizes,
        said=given is not None,
    )
    if options.units:
        for unit in read.units(settings, lambda model, method: ""):
            emit(str(unit))
    elif options.format == "json":
        emit(_json(survey, found))
    else:
        emit("\n".join(_lines(read, survey, found)))
    return 0


def _measured(folder: Path) -> tuple[Sequence[float], Sequence[int]]:
    """Return the processor seconds of a sweep's units that are done, and the bytes of its parts."""
    from importlib import import_module

    attempts = import_module("clipq.sweep.attempts").Attempts(folder / "attempts")
    seconds = [each.seconds for each in attempts.read() if each.done and each.seconds > 0]
    return seconds, [path.stat().st_size for path in folder.glob("parts/??/*.parquet")]


def _json(survey: Survey, found: SweepEstimate | None) -> str:
    import json
    from dataclasses import asdict

    return json.dumps(asdict(survey) | {"estimate": asdict(found) if found else None}, indent=1)


def _lines(plan: SweepPlan, survey: Survey, found: SweepEstimate | None) -> list[str]:
    """Return what a plan comes to, as text."""
    lines = [f"{plan.path}: {survey.units:,} units, {survey.cells:,} metric cells"]
    lines += [f"  {model}: {count:,} units" for model, count in survey.by_model.items()]
    lines.append("seeds: one seed where nothing random changes, else all of the plan's")
    lines += [f"  {count:,} units: {reason}" for reason, count in survey.seeds.items()]
    if plan.thrift is not None:
        lines.append(f"thrift: {plan.thrift}; all units are counted here")
    if survey.merged:
        lines.append(
            f"  {survey.merged:,} combinations came to a unit that there was: their quantizers "
            "look at no calibration data"
        )
    if survey.excluded:
        lines.append(f"  {survey.excluded:,} units are left out: the settings exclude all of them")
    if found is None:
        lines.append("time: not known before a unit was measured; --seconds-per-unit says it")
        return lines
    lines.append(
        f"time: {_duration(found.processor_seconds)} of processor time, "
        f"{_duration(found.seconds)} in all ({found.basis})"
    )
    if found.cost is not None:
        lines.append(f"cost: {found.cost:,.2f}")
    if found.disk is not None:
        lines.append(f"disk: {found.disk / 1e6:,.1f} MB")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
