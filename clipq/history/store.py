"""A store of runs: SQLite or PostgreSQL, written in single transactions, never updated.

with open_store("sqlite:///.clipq/history.db", root=Path.cwd()) as store:
    store.record(read_run(Path("report.json")))
    store.find("latest")
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from clipq.errors import StoreError
from clipq.history import trends
from clipq.history.connect import connect, explain, is_database_error
from clipq.history.migrate import bring_up_to_date, no_store
from clipq.history.model import Pruned, Recorded, RunInfo, StoredResult, TrendTable
from clipq.history.naming import find_run
from clipq.history.prune import prune
from clipq.history.recording import insert, prepare, with_tables
from clipq.history.schema import blobs, cases, results, run_predictions, runs
from clipq.history.stored_rows import (
    RESULT_COLUMNS,
    as_result,
    inflated,
    run_infos,
    select_runs,
    verified,
)
from clipq.history.url import StoreURL, parse_url
from clipq.history.verification import verify_results, verify_runs, verify_table
from clipq.records import RunRecord

__all__ = ["Store", "open_store"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _explained(
    method: Callable[Concatenate[Store, _P], _T],
) -> Callable[Concatenate[Store, _P], _T]:
    """Turn a database's exception into a StoreError that does not carry it along.

    The new error is raised outside of the handler: a driver's exception would stay reachable as its
    context, with whatever it knows of the connection.
    """

    @functools.wraps(method)
    def call(store: Store, /, *arguments: _P.args, **keywords: _P.kwargs) -> _T:
        try:
            return method(store, *arguments, **keywords)
        except Exception as error:
            if not is_database_error(error):
                raise
            failure = explain(error, store.url)
        raise failure

    return call


class Store:
    """An open store; made by `open_store`.

    Args:
        engine: connected to a store of the newest schema.
        url: where it is.
        clock: what time it is, in UTC.

    Attributes:
        notice: what opening it did that its owner should know (a migration); "" otherwise.
    """

    def __init__(
        self,
        engine: sa.Engine,
        url: StoreURL,
        *,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.url = url
        self.notice = ""
        self.engine = engine
        self._clock = clock

    def __repr__(self) -> str:
        return f"Store({self.url.shown!r})"

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    @_explained
    def record(self, record: RunRecord, tables: Mapping[str, bytes] | None = None) -> Recorded:
        """Keep a run, whole or not at all.

        Args:
            record: a run recorded before is left as it is.
            tables: per "model/quantizer/probe", its predictions as a safetensors file's bytes;
                equal ones are kept once. Of a lazy mapping, only what the store lacks is read.

        Raises:
            RecordError: a record that is no strict JSON, or has a case twice.
            StoreError: the store cannot be written, or holds other content under the record's id.
        """
        prepared = prepare(record, now=self._clock())
        stored = self._recorded(prepared.id)
        if stored is None:
            with self.engine.connect() as connection:
                prepared = with_tables(prepared, record, tables or {}, connection)
            with self.engine.execution_options(writes=True).begin() as connection:
                there = select_runs().where(runs.c.id == prepared.id)
                if not run_infos(connection, there):
                    number = insert(connection, prepared, tables or {})
                    mine = select_runs().where(runs.c.number == number)
                    return Recorded(run_infos(connection, mine)[0], new=True)
            stored = self._recorded(prepared.id)
        if stored is None:
            raise StoreError(
                f"run {prepared.id[:12]} was removed while it was recorded", hint="record it again"
            )
        self.load(stored)  # refused where it is stored with other content
        return Recorded(stored, new=False)

    @_explained
    def runs(
        self,
        *,
        limit: int | None = None,
        branch: str | None = None,
        policy: str | None = None,
        passed: bool | None = None,
    ) -> tuple[RunInfo, ...]:
        """Return recorded runs, newest first, of one branch, policy or outcome where given."""
        query = select_runs().limit(limit)
        for column, value in (
            (runs.c.commit_branch, branch),
            (runs.c.policy, policy),
            (runs.c.passed, passed),
        ):
            if value is not None:
                query = query.where(column == value)
        with self.engine.connect() as connection:
            return run_infos(connection, query)

    @_explained
    def find(self, name: str) -> RunInfo:
        """Return the run that is meant; see `clipq.history.naming`.

        Raises:
            StoreError: no run, or several; near ones are listed.
        """
        with self.engine.connect() as connection:
            return find_run(connection, name)

    @_explained
    def load(self, run: RunInfo) -> RunRecord:
        """Return the whole record of a run, checked against its id.

        Raises:
            StoreError: it was altered, damaged or removed.
        """
        query = sa.select(runs.c.record).where(runs.c.id == run.id)
        with self.engine.connect() as connection:
            content = connection.execute(query).scalar()
        if content is None:
            raise StoreError(
                f"run {run.id[:12]} is not in the store (any more)", hint="`clipq history list`"
            )
        return verified(content, run)

    @_explained
    def results(self, run: RunInfo) -> tuple[StoredResult, ...]:
        """Return a run's cases, sorted by id."""
        query = (
            sa.select(cases.c.name, *RESULT_COLUMNS)
            .join(results, sa.and_(results.c.case_id == cases.c.id, results.c.run == run.number))
            .order_by(cases.c.id)
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        stored = (as_result(row, row.name, run) for row in rows)
        return tuple(sorted(stored, key=lambda result: result.case))

    @_explained
    def cells(self, run: RunInfo) -> tuple[str, ...]:
        """Return the "model/quantizer/probe" whose predictions a run kept, sorted."""
        query = sa.select(run_predictions.c.cell).where(run_predictions.c.run == run.number)
        with self.engine.connect() as connection:
            return tuple(sorted(connection.execute(query).scalars()))

    @_explained
    def predictions(self, run: RunInfo, cell: str) -> bytes | None:
        """Return a cell's predictions as a safetensors file's bytes; None where none were kept.

        Raises:
            StoreError: the stored bytes are damaged.
        """
        query = (
            sa.select(blobs.c.content, blobs.c.size)
            .join(run_predictions, run_predictions.c.sha256 == blobs.c.sha256)
            .where(run_predictions.c.run == run.number, run_predictions.c.cell == cell)
        )
        with self.engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        try:
            content = inflated(row.content, int(row.size))
        except (ValueError, TypeError) as error:
            content, reason = b"", str(error)
        else:
            reason = f"{len(content)} bytes instead of {row.size}"
        if len(content) != row.size:
            raise StoreError(
                f"the stored predictions of {cell!r} in run #{run.number} are damaged: {reason}",
                hint="restore the store from a backup",
            )
        return content

    @_explained
    def case_ids(self) -> tuple[str, ...]:
        """Return every case that a run has, sorted."""
        with self.engine.connect() as connection:
            return tuple(sorted(connection.execute(sa.select(cases.c.name)).scalars()))

    @_explained
    def trend(self, case: str) -> tuple[StoredResult, ...]:
        """Return one case over the runs that have it, oldest first.

        Raises:
            StoreError: no run has it; near ones are listed.
        """
        with self.engine.connect() as connection:
            return trends.trend(connection, case)

    @_explained
    def trend_table(self, *, cases: Sequence[str] = ("*",), runs: int | None = None) -> TrendTable:
        """Return many cases over runs as arrays.

        Args:
            cases: ids or globs of ids.
            runs: so many newest runs; None for all.

        Raises:
            StoreError: no run, or no case, to show.
        """
        with self.engine.connect() as connection:
            return trends.trend_table(connection, cases, limit=runs)

    @_explained
    def verify(self, shown: Sequence[RunInfo] | Sequence[StoredResult] | TrendTable) -> None:
        """Hold rows that are about to be shown against the records that they are copies of.

        Triggers keep rows from being changed, and whoever owns the database can drop them.

        Args:
            shown: runs, results of any runs, or a table of cases over runs.

        Raises:
            StoreError: a row, or a record, was altered; the run and the case are named.
        """
        with self.engine.connect() as connection:
            if isinstance(shown, TrendTable):
                verify_table(connection, shown)
                return
            verify_runs(connection, [one for one in shown if isinstance(one, RunInfo)])
            verify_results(connection, [one for one in shown if isinstance(one, StoredResult)])

    @_explained
    def prune(
        self, *, keep: int | None = None, before: date | None = None, dry_run: bool
    ) -> Pruned:
        """Remove old runs and the prediction tables that only they had.

        Args:
            keep: so many newest runs stay.
            before: only runs that started before this day go. With both, a run goes only if
                neither keeps it.
            dry_run: only say what would go.

        Raises:
            StoreError: neither is given, or `keep` is below 1.
        """
        with self.engine.execution_options(writes=not dry_run).begin() as connection:
            return prune(connection, keep=keep, before=before, dry_run=dry_run)

    def _recorded(self, identity: str) -> RunInfo | None:
        with self.engine.connect() as connection:
            matching = run_infos(connection, select_runs().where(runs.c.id == identity))
        return matching[0] if matching else None


def open_store(
    url: str | StoreURL,
    *,
    root: Path,
    create: bool = True,
    clock: Callable[[], datetime] = _utc_now,
) -> Store:
    """Open a store, making it or bringing its schema up to date where need be.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://...``.
        root: what a relative SQLite path is relative to.
        create: whether a store that does not exist is made.
        clock: what time it is, in UTC.

    Raises:
        StoreError: the URL cannot be read; the store does not exist, cannot be reached, is damaged,
            or is of a newer schema.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open_store("sqlite:///history.db", root=Path(folder)) as store:
    ...         first = store.record(RunRecord("ci", 0, ()))
    ...         again = store.record(RunRecord("ci", 0, ()))
    ...         first.new, again.new, len(store.runs())  # a run is known by its content
    (True, False, 1)
    """
    where = url if isinstance(url, StoreURL) else parse_url(url, root=root)
    try:
        if where.path is not None:
            if not create and not where.path.exists():
                raise no_store(where)
            where.path.parent.mkdir(parents=True, exist_ok=True)
        store = Store(connect(where), where, clock=clock)
        try:
            store.notice = bring_up_to_date(store.engine, where, now=clock(), create=create)
        except BaseException:
            store.close()
            raise
        return store
    except Exception as error:
        if not is_database_error(error):
            raise
        failure = explain(error, where)
    raise failure  # outside of the handler, as in `_explained`
