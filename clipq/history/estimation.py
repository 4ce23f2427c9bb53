"""Where two runs' per-sample predictions are at hand, what estimates their differences."""

from __future__ import annotations

import warnings

from clipq.cases import Cell
from clipq.evaluation.cache import Cache
from clipq.evaluation.pooling import pool
from clipq.evaluation.tables import (
    as_predictions,
    as_table,
    parse_table,
    stated_digest,
    table_content,
)
from clipq.history.around import in_distribution
from clipq.history.pairs import PairedEstimator, ReadTable, with_replicates
from clipq.records import RunRecord

__all__ = ["as_recorded", "cached_tables", "paired_estimator", "with_pooled"]


def cached_tables(record: RunRecord, cache: Cache | None) -> ReadTable:
    """Return the reader of a run's tables in the cache that its gate filled; None reads none."""
    predictions = record.evidence().get("predictions", {})

    def read(cell: Cell) -> bytes | None:
        if cache is None or str(cell) not in predictions:
            return None
        key = predictions[str(cell)]["key"]
        path = cache.path("predictions", key, ".safetensors")
        if not path.is_file():
            return None
        content = path.read_bytes()
        if not stated_digest(content, key=f"predictions/{key}"):
            warnings.warn(f"{path} is damaged, and left aside", stacklevel=2)
            return None
        return content

    return read


def as_recorded(read: ReadTable, record: RunRecord) -> ReadTable:
    """Return a reader that gives tables which are the run's own, and no others.

    Whoever parses a table checks its columns against the digest that it states; here that digest is
    held against the record's.

    Args:
        read: of a run's stored tables.
        record: of the run.
    """
    predictions = record.evidence().get("predictions", {})

    def checked(cell: Cell) -> bytes | None:
        content = read(cell)
        expected = predictions.get(str(cell), {}).get("sha256", "")
        if content is not None and stated_digest(content) != expected:
            warnings.warn(
                f"the predictions of {cell} that were kept are not those of run {record.id[:12]}: "
                "they are left aside",
                stacklevel=2,
            )
            return None
        return content

    return checked


def with_pooled(read: ReadTable, record: RunRecord) -> ReadTable:
    """Return a reader that makes a pooled probe's table of its members', as a gate does.

    Args:
        read: of a run's stored tables.
        record: of the run, which says what each pooled probe pools.
    """
    probes = record.evidence().get("probes", {})

    def made(cell: Cell) -> bytes | None:
        origins = probes.get(cell.probe, {}).get("pools")
        if origins is None:
            return read(cell)
        tables = {}
        for name in origins:
            content = read(cell.on(name))
            if content is None:
                return None
            columns, metadata, _ = parse_table(content, name=f"the predictions of {cell.on(name)}")
            tables[name] = as_predictions(columns, metadata)
        return table_content(*as_table(pool(tables, origins), {}))[0]

    return made


def paired_estimator(
    before: RunRecord, after: RunRecord, tables: tuple[ReadTable, ReadTable], *, replicates: int
) -> PairedEstimator | None:
    """Return what estimates differences on the same samples; None where that cannot be.

    Args:
        before: the first run.
        after: the second, whose error rates and seed apply.
        tables: of each.
        replicates: bootstrap replicates per case.
    """
    known = in_distribution(after.evidence())
    if known is None or not all(run.evidence().get("predictions") for run in (before, after)):
        return None
    return PairedEstimator(
        with_pooled(as_recorded(tables[0], before), before),
        with_pooled(as_recorded(tables[1], after), after),
        in_distribution=known,
        statistics=with_replicates(after.statistics, replicates=replicates),
    )
