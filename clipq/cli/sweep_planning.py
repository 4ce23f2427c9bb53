"""`clipq sweep plan`, and `run --dry-run`: what a plan comes to, before anything is measured."""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipq.cli.sweep_folders import named_plan, no_such_sweep, plan_settings
from clipq.terminal import emit

if TYPE_CHECKING:
    from clipq.sweep.sweep_estimate import Kind, SweepEstimate, Taken
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
        "--price", type=float, metavar="P", help="of a processor's hour, in any currency"
    )
    parser.add_argument("--gpu-price", type=float, metavar="P", help="of a GPU's hour")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--units", action="store_true", help="print each unit, one a line")
    shown.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.set_defaults(dry_run=False)


def plan(options: argparse.Namespace) -> int:
    """Check a plan and print what it comes to; return 0."""
    from clipq.sweep.sweep_plan import MOST_CELLS, read_plan

    if options.folder is not None and not options.dry_run:
        _needs_attempts(options.folder)
    read = read_plan(named_plan(options.plan))
    settings = plan_settings(read)
    survey = read.survey(settings, most=None if options.yes else MOST_CELLS)
    found = _estimated(options, survey)
    if options.units:
        for unit in read.units(settings, lambda model, method: ""):
            emit(str(unit))
    elif options.format == "json":
        emit(_json(survey, found))
    else:
        emit("\n".join(_lines(read, survey, found)))
    return 0


def _estimated(options: argparse.Namespace, survey: Survey) -> SweepEstimate | None:
    """Return what a plan's units will take, by what is said or what a sweep's folder knows."""
    from clipq.sweep.sweep_estimate import Prices, Taken, estimate

    said: float | None = options.seconds_per_unit
    taken, part_bytes = _measured(options.folder) if options.folder else ({}, None)
    found = estimate(
        survey.by_kind,
        taken if said is None else {kind: [Taken(said)] for kind in survey.by_kind},
        processes=options.processes,
        prices=Prices(options.price, options.gpu_price),
        part_bytes=part_bytes,
    )
    if said is None or found is None:
        return found
    return replace(found, basis="seconds per unit as given")


def _needs_attempts(folder: Path) -> None:
    """Refuse a folder that no sweep was ever run in."""
    if not (folder / "attempts").is_dir():
        raise no_such_sweep(f"no sweep was run in {folder}", folder)


def _measured(folder: Path) -> tuple[dict[Kind, list[Taken]], float | None]:
    """Return what units of a sweep took that are done, and bytes of one in its store."""
    from importlib import import_module

    from clipq.sweep.sweep_estimate import Taken, kind_of

    taken: dict[Kind, list[Taken]] = defaultdict(list)
    done: set[str] = set()
    for each in import_module("clipq.sweep.attempts").Attempts(folder / "attempts").read():
        if each.done and each.seconds > 0:
            taken[kind_of(each.name)].append(Taken(each.seconds, each.gpu_seconds))
            done.add(each.unit_id)
    files = [*folder.glob("parts/??/*.parquet"), *folder.glob("compacted/*.parquet")]
    stored = sum(path.stat().st_size for path in files)
    return taken, stored / len(done) if files and done else None


def _json(survey: Survey, found: SweepEstimate | None) -> str:
    import json
    from dataclasses import asdict

    by_kind: dict[str, dict[str, int]] = defaultdict(dict)
    for (model, method), count in survey.by_kind.items():
        by_kind[model][method] = count
    told = asdict(survey) | {"by_model": survey.by_model, "by_kind": by_kind}
    return json.dumps(told | {"estimate": asdict(found) if found else None}, indent=1)


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
        lines.append(
            "time: not known before a unit was measured: `plan` takes it from --folder of a sweep, "
            "or --seconds-per-unit"
        )
        return lines
    lines.append(
        f"time: {_duration(found.processor_seconds)} of processor time, "
        f"{_duration(found.seconds)} in all ({found.basis})"
    )
    if found.gpu_seconds:
        lines.append(f"time of GPUs: {_duration(found.gpu_seconds)}")
    if found.cost is not None:
        lines.append(f"cost: {_money(found.cost)}")
    if found.disk is not None:
        lines.append(f"disk: {found.disk / 1e6:,.1f} MB")
    return lines


def _money(cost: float) -> str:
    """Return a cost with two decimals, or two digits where that would be nothing.

    >>> _money(1234.5), _money(0.0013), _money(0.0)
    ('1,234.50', '0.0013', '0.00')
    """
    return f"{cost:.2g}" if 0 < cost < 0.1 else f"{cost:,.2f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
