"""The plan and the folder of a sweep, as its commands name them."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipq.errors import SweepError
from clipq.terminal import say

if TYPE_CHECKING:
    from clipq.settings import Settings
    from clipq.sweep.sweep_plan import SweepPlan
    from clipq.sweep.unit_context import UnitContexts
    from clipq.sweep.units import Unit

__all__ = [
    "PlannedSweep",
    "add_folder",
    "add_plan",
    "default_folder",
    "folder_of",
    "named_plan",
    "no_such_sweep",
    "plan_settings",
    "planned_sweep",
    "store_of",
]


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that every action has which needs a plan and its sweep's folder."""
    parser.add_argument("plan", type=Path, metavar="PLAN", help="its file, e.g. plan.toml")
    _add_places(parser)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that every action has which looks at a sweep's folder alone."""
    parser.add_argument(
        "plan", type=Path, metavar="PLAN", help="its file, e.g. plan.toml, or the sweep's folder"
    )
    _add_places(parser)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="of the sweep (default: .clipq/sweeps/NAME beside the plan)",
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help="where its parts are, e.g. s3://bucket/sweep (default: its folder)",
    )


def store_of(options: argparse.Namespace) -> str:
    """Return where the parts of the sweep are that options name."""
    given: str | None = options.store
    return given if given is not None else str(folder_of(options))


def folder_of(options: argparse.Namespace) -> Path:
    """Return the folder of the sweep that options name.

    Raises:
        SweepError: their plan is neither a file nor a folder: the name is not what was meant, and
            another plan's sweep must not answer for it.
    """
    plan: Path = named_plan(options.plan)
    given: Path | None = options.folder
    if given is None and plan.is_dir():
        return plan
    return given if given is not None else default_folder(plan)


def default_folder(plan: Path) -> Path:
    """Return the folder of a plan's sweep where none is given.

    >>> default_folder(Path("study/plan.toml")).as_posix()
    'study/.clipq/sweeps/plan'
    """
    return plan.parent / ".clipq" / "sweeps" / plan.stem


def named_plan(path: Path) -> Path:
    """Return the path of a plan, or of a sweep's folder, which is there.

    Raises:
        SweepError: nothing is there.
    """
    try:
        if path.exists():
            return path
    except (OSError, ValueError):  # too long, or with a NUL: no path at all
        pass
    raise no_such_sweep(f"there is no plan {path}", path)


def no_such_sweep(problem: str, path: Path) -> SweepError:
    """Return the error that nothing is at the path of a plan or a sweep, with what is like it."""
    like = _like(path)
    meant = f"did you mean {' or '.join(like)}? " if like else ""
    return SweepError(
        problem,
        hint=f"{meant}give a plan's file; `query`, `compact`, `export` and `clipq study` take a "
        "sweep's folder, too: .clipq/sweeps/NAME",
    )


def _like(path: Path) -> list[str]:
    """Return plans and sweeps' folders whose names are like that of a path, the nearest first."""
    try:
        plans = [each for each in path.parent.glob("*.toml") if each.is_file()]
        sweeps = [path.parent, default_folder(path).parent]
        records = [record for each in sweeps for record in each.glob("*/sweep.json")]
    except (OSError, ValueError):
        return []
    named = {each.name: str(each) for each in plans}
    near = difflib.get_close_matches(path.name, list(named), cutoff=0.7)
    if not near:
        named = {each.parent.name: str(each.parent) for each in records}
        near = difflib.get_close_matches(path.stem, list(named), cutoff=0.7)
    return [named[name] for name in near]


@dataclass(frozen=True, slots=True)
class PlannedSweep:
    """A plan, its project's settings, and what decides its results."""

    plan: SweepPlan
    settings: Settings
    contexts: UnitContexts

    def units(self) -> Iterator[Unit]:
        """Yield its units, in order."""
        return self.plan.units(self.settings, self.contexts)


def plan_settings(plan: SweepPlan) -> Settings:
    """Return the settings that a plan names, their plug-ins loaded."""
    from clipq.evaluation.plan import load_plugins
    from clipq.settings import load_settings

    settings = load_settings(plan.settings)
    load_plugins(settings)
    return settings


def planned_sweep(path: Path, *, quiet: bool = False) -> PlannedSweep:
    """Return the sweep of a plan's file.

    Which units are done hangs on probes, models and code, which are read when units are first asked
    for. That takes a while, and is said before it begins.

    Args:
        path: of the plan.
        quiet: whether nothing is said.

    Raises:
        ClipqError: its plan or its settings are wrong, or a file that they name is missing.
    """
    named_plan(path)
    if not quiet:
        told = "reading what decides its units: probes, models, baselines, code"
        say(f"clipq: {path}: {told}", error=True)
    from clipq.sweep.sweep_plan import read_plan
    from clipq.sweep.unit_context import UnitContexts

    plan = read_plan(path)
    settings = plan_settings(plan)
    contexts = UnitContexts(settings, probes=plan.probes, metrics=plan.metrics)
    return PlannedSweep(plan, settings, contexts)
