"""A store gives back what was recorded: runs, whole records, results, trends, predictions."""

from __future__ import annotations

import json
import sqlite3
import string
import zlib
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_results import altered, made_result

from clipq.errors import RecordError, StoreError
from clipq.history.schema import CODES, blobs, results, runs
from clipq.history.store import Store, open_store
from clipq.records import RunRecord
from clipq.verdicts import Verdict

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(url, tmp_path):
    with open_store(url, root=tmp_path, clock=lambda: NOON) as opened:
        yield opened


def test_a_recorded_run_is_described_and_given_back_whole(store, run):
    record = run(3)
    recorded = store.record(record)
    assert recorded.new
    info = recorded.run
    assert (info.id, info.number) == (record.to_plain()["id"], 1)
    assert info.started == record.started
    assert info.recorded == "2025-06-01T12:00:00Z"
    assert dict(info.commit) == dict(record.commit)
    assert (info.policy, info.passed, info.cases, info.planned) == ("ci", True, 4, 4)
    assert dict(info.counts) == {"pass": 4}
    assert info.environment["torch"] == "2.15.0"
    assert store.load(info).to_plain() == record.to_plain()
    assert store.runs() == (info,)


def test_recording_again_changes_nothing_and_says_so(store, run):
    first = store.record(run())
    again = store.record(run())
    assert again.run == first.run
    assert not again.new
    assert len(store.runs()) == 1


def test_verdicts_keep_their_numbers():
    assert set(CODES) == {verdict.value for verdict in Verdict}
    assert CODES[:5] == ("pass", "improved", "inconclusive", "waived", "fail")


def test_trends_have_every_run_oldest_first(store, run):
    values = (0.9, 0.91, 0.7)
    for index, value in enumerate(values):
        verdict = Verdict.FAIL if value < 0.8 else Verdict.PASS
        store.record(run(index, value=value, verdict=verdict))
    rows = store.trend("vit-1/rtn:w4/id.top1")
    assert [row.observed for row in rows] == [value - 0.01 for value in values]
    assert [row.verdict for row in rows] == [Verdict.PASS, Verdict.PASS, Verdict.FAIL]
    assert [row.run.number for row in rows] == [1, 2, 3]


def test_a_trend_table_has_gaps_where_a_run_lacks_a_case(store, run):
    store.record(run(0, cases=2))
    store.record(run(1, cases=4, verdict=Verdict.WAIVED))
    table = store.trend_table()
    assert [info.number for info in table.runs] == [1, 2]
    assert table.cases == tuple(f"vit-{n}/rtn:w4/id.top1" for n in range(4))
    assert set(table.units) == {"fraction"}
    assert set(table.directions) == {"higher"}
    order = list(Verdict)
    waived, passed = order.index(Verdict.WAIVED), order.index(Verdict.PASS)
    np.testing.assert_array_equal(table.verdicts[:, 0], [passed, passed, -1, -1])
    np.testing.assert_array_equal(table.verdicts[:, 1], [waived] * 4)
    np.testing.assert_array_equal(np.isnan(table.loss[:, 0]), [False, False, True, True])
    np.testing.assert_allclose(table.observed[:, 1], [0.9, 0.89, 0.88, 0.87], rtol=0, atol=1e-15)
    np.testing.assert_array_equal(table.error[:, 1], 0.01)
    np.testing.assert_array_equal(table.baseline[:, 1], 0.95)
    np.testing.assert_array_equal(table.margins, 0.02)


def test_a_trend_table_narrows_to_cases_and_newest_runs(store, run):
    for index in range(3):
        store.record(run(index, value=0.9 + index / 100, cases=4 if index < 1 else 2))
    table = store.trend_table(cases=("vit-[01]/*", "vit-3/*"), runs=2)
    assert [info.number for info in table.runs] == [2, 3]
    assert table.cases == ("vit-0/rtn:w4/id.top1", "vit-1/rtn:w4/id.top1")
    np.testing.assert_allclose(table.observed[0], [0.91, 0.92], rtol=0, atol=1e-15)


def test_margins_are_those_of_the_latest_run_that_has_one(store, run):
    for index, margin in enumerate((0.02, 0.03, None)):
        record = run(index, cases=1)
        case = altered(record.cases[0], margin=margin)
        store.record(replace(record, cases=(case,)))
    np.testing.assert_array_equal(store.trend_table().margins, [0.03])


def test_a_run_s_results_are_sorted_and_know_their_severity(store, run):
    store.record(run(0))
    found = store.results(store.find("latest"))
    assert [result.case for result in found] == sorted(result.case for result in found)
    recorded = {case.id: case.severity for case in run(0).cases}
    assert {result.case: result.severity for result in found} == recorded


def test_runs_are_chosen_by_branch_policy_and_outcome(store, run):
    store.record(run(0))
    store.record(run(1, branch="topic"))
    store.record(run(2, policy="release"))
    store.record(run(3, verdict=Verdict.FAIL))
    numbers = lambda **chosen: [info.number for info in store.runs(**chosen)]  # noqa: E731
    assert numbers() == [4, 3, 2, 1]
    assert numbers(limit=2) == [4, 3]
    assert numbers(branch="topic") == [2]
    assert numbers(policy="release") == [3]
    assert numbers(passed=False) == [4]


def test_equal_predictions_are_kept_once(store, run):
    shared = b"x" * 10_000
    store.record(run(0), {"vit-0/fp32/id": shared, "vit-0/rtn:w4/id": b"first"})
    recorded = store.record(run(1), {"vit-0/fp32/id": shared, "vit-0/rtn:w4/id": b"second"})
    assert recorded.run.predictions == 2
    assert store.cells(recorded.run) == ("vit-0/fp32/id", "vit-0/rtn:w4/id")
    assert store.predictions(store.find("#1"), "vit-0/rtn:w4/id") == b"first"
    assert store.predictions(recorded.run, "vit-0/fp32/id") == shared
    assert store.predictions(recorded.run, "vit-9/fp32/id") is None
    with store.engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(blobs)).scalar() == 3


def test_predictions_that_are_stored_are_not_read_again(store, run):
    digest = "ab" * 32
    evidence = {"predictions": {"vit-0/fp32/id": {"sha256": digest, "key": "k"}}}

    def with_evidence(index: int) -> RunRecord:
        record = run(index)
        first, *rest = record.cases
        return replace(record, cases=(replace(first, evidence=evidence), *rest))

    class Unread(dict[str, bytes]):
        def get(self, *_: Any) -> bytes:
            pytest.fail("read again")

    store.record(with_evidence(0), {"vit-0/fp32/id": b"table"})
    recorded = store.record(with_evidence(1), Unread({"vit-0/fp32/id": b"table"}))
    assert store.predictions(recorded.run, "vit-0/fp32/id") == b"table"


def test_pruning_keeps_the_newest_and_what_they_share(store, run):
    for index in range(4):
        tables = {"a/fp32/id": b"shared", "a/rtn:w4/id": f"own {index}".encode()}
        store.record(run(index, cases=4 if index < 2 else 2), tables)
    would = store.prune(keep=2, dry_run=True)
    assert [info.number for info in would.runs] == [2, 1]
    assert (would.tables, would.table_bytes) == (2, 10)
    assert len(store.runs()) == 4
    assert store.prune(keep=2, dry_run=False) == would
    assert [info.number for info in store.runs()] == [4, 3]
    assert store.predictions(store.find("latest"), "a/fp32/id") == b"shared"
    assert store.case_ids() == ("vit-0/rtn:w4/id.top1", "vit-1/rtn:w4/id.top1")
    assert store.trend_table().loss.shape == (2, 2)
    assert store.record(run(9)).run.number == 5, "a removed run's number is not given again"


def test_pruning_by_day_spares_the_newest_where_both_are_given(store, run):
    for index in range(4):
        store.record(run(index))
    before = date(2025, 1, 3)  # runs 1 and 2 started on January 1 and 2
    assert [i.number for i in store.prune(before=before, dry_run=True).runs] == [2, 1]
    assert [i.number for i in store.prune(before=before, keep=3, dry_run=True).runs] == [1]
    with pytest.raises(StoreError, match="without saying what"):
        store.prune(dry_run=False)
    with pytest.raises(StoreError, match="--keep 0"):
        store.prune(keep=0, dry_run=False)


def test_after_the_latest_run_is_gone_its_number_is_not_given_again(store, run):
    store.record(run(0))
    store.record(run(1))
    store.prune(before=date(2026, 1, 1), dry_run=False)
    assert store.record(run(2)).run.number == 3


@pytest.mark.parametrize("statement", [
    sa.update(runs).values(passed=False),
    sa.update(results).values(verdict=0),
    sa.update(results).where(results.c.run == 1).values(loss=0.0),
], ids=["runs", "results", "loss"])  # fmt: skip
def test_runs_and_results_cannot_be_updated(store, run, statement):
    store.record(run(0))
    with pytest.raises(sa.exc.DBAPIError, match="are immutable"), store.engine.begin() as raw:
        raw.execute(statement)


def test_a_tampered_record_is_named_when_it_is_read(store, run):
    store.record(run(0))
    with store.engine.begin() as raw:
        content = raw.execute(sa.select(runs.c.record)).scalar_one()
        forged = zlib.decompress(content).replace(b'"observed":0.9,', b'"observed":0.99,')
        _without_trigger(raw, sa.update(runs).values(record=zlib.compress(forged)))
    with pytest.raises(StoreError, match=r"record of run #1 .* was altered or damaged"):
        store.load(store.find("latest"))
    with pytest.raises(StoreError, match="was altered or damaged"):
        store.record(run(0))  # an id that is stored with other content


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (sa.update(runs).values(passed=False), "passed is False, its record says True"),
        (sa.update(runs).values(counts='{"pass": 2}'), r"counts is \{'pass': 2\}"),
        (sa.update(runs).values(commit_sha="0" * 40), "commit is"),
        (sa.update(runs).values(started="2030-01-01"), "started is 2030-01-01"),
        (sa.update(runs).values(remarks='{"problems": "none"}'), "remarks is"),
        (sa.update(runs).values(environment="{}"), "environment is"),
        (sa.update(results).values(verdict=4), r"is \(.fail., "),
        (sa.update(results).values(loss=-1.0), "its record says"),
        (sa.update(results).values(high=None), "its record says"),
    ],
)
def test_a_row_that_was_edited_behind_the_triggers_is_named(store, run, statement, said):
    store.record(run(0))
    with store.engine.begin() as raw:
        _without_trigger(raw, statement)
    info = store.find("latest")
    of_run = statement.table is runs
    with pytest.raises(StoreError, match=rf"run #1 .* was altered in the store: .*{said}"):
        store.verify([info] if of_run else store.results(info))
    if of_run or "verdict" in str(statement) or "loss" in str(statement):
        with pytest.raises(StoreError, match="was altered in the store"):
            store.verify(store.trend_table())


def test_a_row_that_was_taken_away_is_named(store, run):
    store.record(run(0))
    store.record(run(1))
    with store.engine.begin() as raw:
        raw.execute(sa.delete(results).where(results.c.run == 1))
    with pytest.raises(StoreError, match=r"run #1 .*: .* is \(-1, None"):
        store.verify(store.trend_table())


def test_rows_as_they_were_written_are_what_the_records_say(store, run):
    for day in range(2):
        store.record(run(day))
    store.verify(store.runs())
    store.verify(store.results(store.find("latest")))
    store.verify(store.trend_table())
    store.verify(store.trend(store.case_ids()[0]))


def test_a_truncated_record_is_named_when_it_is_read(store, run):
    store.record(run(0), {"a/b/c": b"x" * 1000})
    with store.engine.begin() as raw:
        content = raw.execute(sa.select(runs.c.record)).scalar_one()
        _without_trigger(raw, sa.update(runs).values(record=content[:-20]))
        raw.execute(sa.update(blobs).values(content=zlib.compress(b"y")))
    with pytest.raises(StoreError, match="was altered or damaged"):
        store.load(store.find("latest"))
    with pytest.raises(StoreError, match="predictions of 'a/b/c' in run #1 are damaged"):
        store.predictions(store.find("latest"), "a/b/c")


def _without_trigger(connection: sa.Connection, statement: sa.Update) -> None:
    table = statement.table.name
    on = "" if connection.dialect.name == "sqlite" else f" ON {table}"
    connection.exec_driver_sql(f"DROP TRIGGER {table}_are_immutable{on}")
    connection.execute(statement)


def test_a_record_that_is_no_strict_json_or_has_a_case_twice_is_refused(store, run):
    record = run(0)
    odd = altered(record.cases[0], loss=float("nan"))
    with pytest.raises(RecordError, match="no strict JSON"):
        store.record(replace(record, cases=(odd,)))
    with pytest.raises(RecordError, match=r"the case 'vit-0/rtn:w4/id.top1' twice"):
        store.record(replace(record, cases=record.cases[:1] * 2))
    with pytest.raises(RecordError, match="no strict JSON"):  # it could never be read again
        store.record(replace(record, problems=("half \ud800",)))
    assert store.runs() == ()


def test_an_unknown_case_is_answered_with_near_ones(store, run):
    store.record(run(0))
    with pytest.raises(StoreError, match=r"did you mean 'vit-1/rtn:w4/id\.top1'"):
        store.trend("vit-1/rtn:w4/id.top5")
    with pytest.raises(StoreError, match="no recorded run has the case 'vit-9"):
        store.trend_table(cases=("vit-9*",))


def test_an_empty_store_says_how_to_fill_it(store):
    for ask in (lambda: store.find("latest"), store.trend_table):
        with pytest.raises(StoreError, match=r"(?s)the store is empty.*clipq history record"):
            ask()


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_number = st.none() | st.floats(allow_nan=False, allow_infinity=False)
_cases = st.builds(
    made_result,
    _text, _text, _text, _text, st.sampled_from(Verdict),
    reason=_text, unit=_text, direction=_text, samples=st.integers(0, 10**9),
    baseline=_number, observed=_number, loss=_number, margin=_number, low=_number, high=_number,
    p_value=_number, adjusted_p=_number, standard_error=_number,
    samples_needed=st.none() | st.integers(0, 10**12),
)  # fmt: skip
_records = st.builds(
    RunRecord,
    policy=st.sampled_from(["ci", "release"]),
    planned=st.integers(0, 10**6),
    cases=st.lists(_cases, max_size=4, unique_by=lambda case: case.id).map(tuple),
    unreported=st.lists(_text, max_size=2).map(tuple),
    selection=st.dictionaries(_text, st.lists(_text, max_size=2) | st.integers(0, 99), max_size=2),
    versions=st.dictionaries(_text, _text, max_size=2),
    warnings=st.lists(_text, max_size=2).map(tuple),
    started=_text,
    commit=st.just({}) | st.fixed_dictionaries({
        "sha": st.text(string.hexdigits, max_size=40), "subject": _text, "branch": _text,
        "date": _text, "dirty": st.booleans(),
    }),
    problems=st.lists(_text, max_size=2).map(tuple),
)  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(record=_records)
def test_any_record_comes_back_exactly(store: Store, record: RunRecord):
    info = store.record(record).run
    found = store.load(store.find(info.id))
    assert found.to_plain() == record.to_plain()
    assert json.dumps(found.to_plain(), sort_keys=True) == json.dumps(
        record.to_plain(), sort_keys=True
    )
    stored = {result.case: result for result in store.results(info)}
    assert set(stored) == {case.id for case in record.cases}
    for case in record.cases:
        result = stored[case.id]
        assert result.verdict is case.verdict
        for name in ("observed", "baseline"):
            assert getattr(result, name) == getattr(case, name), name
        for name in ("loss", "margin", "low", "high"):
            assert getattr(result, name) == getattr(case.estimate, name), name
    if record.commit.get("sha"):
        assert info.commit["subject"] == record.commit.get("subject", "")


def test_a_store_is_found_beside_the_settings_file(tmp_path: Path, run):
    with open_store("sqlite:///folder/history.db", root=tmp_path) as store:
        store.record(run(0))
    with closing(sqlite3.connect(tmp_path / "folder" / "history.db")) as raw:
        assert raw.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
