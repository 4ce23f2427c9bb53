"""Runs as files that anything reads: JSON lines of whole records, or CSV of results."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from clipq.csv_cells import no_formula
from clipq.errors import StoreError
from clipq.files import replace_atomically
from clipq.history.model import RunInfo
from clipq.provenance import canonical_json

if TYPE_CHECKING:
    from clipq.history.store import Store

__all__ = ["FORMATS", "export"]

_COLUMNS = (
    "run", "id", "started", "commit", "case", "verdict", "observed", "baseline", "loss", "margin",
    "low", "high", "standard_error",
)  # fmt: skip


def _json_lines(store: Store, runs: Sequence[RunInfo]) -> Iterator[str]:
    for run in runs:
        yield canonical_json(store.load(run).to_plain()) + "\n"


def _csv(store: Store, runs: Sequence[RunInfo]) -> Iterator[str]:
    yield _row(_COLUMNS)
    for run in runs:
        sha = run.commit.get("sha", "")
        for result in store.results(run):
            numbers = (
                result.observed, result.baseline, result.loss, result.margin, result.low,
                result.high, result.error,
            )  # fmt: skip
            texts = (run.id, run.started, sha, result.case, result.verdict.value)
            names = (run.number, *map(no_formula, texts))
            yield _row((*names, *("" if value is None else repr(value) for value in numbers)))


def _row(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


FORMATS: Mapping[str, Callable[[Store, Sequence[RunInfo]], Iterator[str]]] = {
    "jsonl": _json_lines,
    "csv": _csv,
}


def export(store: Store, runs: Sequence[RunInfo], target: Path | TextIO, *, form: str) -> None:
    """Write runs, in the order given.

    Args:
        store: that has them.
        runs: which.
        target: a stream, or a file that is whole or as it was before.
        form: one of `FORMATS`.

    Raises:
        StoreError: an unknown form, or a stored record that was altered.
        CacheError: the file cannot be written.
    """
    if form not in FORMATS:
        raise StoreError(f"no export as {form!r}", hint=f"one of {', '.join(FORMATS)}")
    lines = FORMATS[form](store, runs)
    if isinstance(target, Path):

        def write(temporary: Path) -> None:
            with temporary.open("w", encoding="utf-8", newline="", errors="surrogatepass") as file:
                file.writelines(lines)

        replace_atomically(target, write)
    else:
        target.writelines(lines)
