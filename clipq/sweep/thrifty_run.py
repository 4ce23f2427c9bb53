"""A sweep under thrift: seed by seed, each with the units that the seeds before have left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from clipq.errors import CacheError, SweepError
from clipq.files import write_atomically
from clipq.sweep.coordinator import SweepSummary
from clipq.sweep.part_store import PartStore
from clipq.sweep.sweep_query import query
from clipq.sweep.thrift import Dropped, Thrift, dropped, rungs
from clipq.sweep.units import Unit

__all__ = ["losses_of", "read_dropped", "run_thriftily"]

_NAME = "thrift.jsonl"


def run_thriftily(
    units: Sequence[Unit],
    thrift: Thrift,
    *,
    folder: Path,
    losses: Callable[[], Mapping[str, float]],
    run: Callable[[Sequence[Unit]], SweepSummary],
) -> SweepSummary:
    """Do the first seed of every configuration, then the next of those that are kept, and so on.

    What is dropped is in the sweep's folder before the next seed begins. A part that is there
    already, of a run without thrift for example, stays, and decides nothing before its turn.

    Args:
        units: of the plan, in order.
        thrift: what decides.
        folder: of the sweep.
        losses: returns those of the units that are done, by id.
        run: does some units; where it was ended, no further ones are begun.

    Raises:
        SweepError: what is dropped cannot be written down.
    """
    summary, gone = SweepSummary(), set[str]()
    steps = rungs(units)
    if len(steps) == 1:
        (folder / _NAME).unlink(missing_ok=True)  # of another plan, that had more seeds
    for at, step in enumerate(steps):
        if at:
            found = dropped(units, losses(), seeds=at, keep=thrift.keep)
            gone = {one.unit_id for one in found}
            _write(folder / _NAME, found)
        wanted = [unit for unit in step if unit.id not in gone]
        if wanted:
            summary = _together(summary, run(wanted))
        if summary.ended_by:
            later = sum(unit.id not in gone for step in steps[at + 1 :] for unit in step)
            return replace(summary, left=summary.left + later)
    return summary


def losses_of(store: PartStore, thrift: Thrift) -> dict[str, float]:
    """Return the loss that decides of each unit that is done and has one."""
    if not store.ids():
        return {}
    probe, metric = (text.replace("'", "''") for text in (thrift.probe, thrift.metric))
    rows = query(
        store,
        f"SELECT unit_id, loss FROM cells WHERE probe = '{probe}' AND metric = '{metric}' "
        "AND loss IS NOT NULL",
    ).rows
    return {str(unit_id): float(loss) for unit_id, loss in rows}


def read_dropped(folder: Path) -> list[Dropped]:
    """Return the units that were dropped of a sweep; none where it was run without thrift.

    Raises:
        SweepError: the file cannot be read, or holds what is no such unit.
    """
    path = folder / _NAME
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [Dropped(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise SweepError(
            f"{path} does not say what was dropped: {error}",
            hint="delete it: the next run writes it again",
        ) from error


def _write(path: Path, found: Sequence[Dropped]) -> None:
    content = "".join(json.dumps(asdict(one)) + "\n" for one in found)
    try:
        write_atomically(path, content.encode())
    except (OSError, CacheError) as error:
        raise SweepError(f"{path} cannot be written to: {error}") from error


def _together(first: SweepSummary, second: SweepSummary) -> SweepSummary:
    return SweepSummary(
        first.done + second.done,
        first.found + second.found,
        (*first.failed, *second.failed),
        first.left + second.left,
        first.attempts + second.attempts,
        first.seconds + second.seconds,
        first.gpu_seconds + second.gpu_seconds,
        second.ended_by,
        first.untold + second.untold,
    )
