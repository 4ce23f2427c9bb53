"""Many writers lose nothing; a writer that is killed leaves nothing behind."""

from __future__ import annotations

import signal

import pytest
import sqlalchemy as sa
from forking_writers import CASES, KILLED_CASES

from clipq.errors import StoreError
from clipq.history import schema
from clipq.history.store import open_store

WRITERS, EACH = 10, 4


def test_ten_writers_at_once_lose_nothing(url, tmp_path, run, forking):
    parts = [[1 + index * EACH, EACH] for index in range(WRITERS)]
    assert forking("write", url, parts) == [0] * WRITERS
    expected = {run(n, cases=CASES).to_plain()["id"] for n in range(WRITERS * EACH + 1)}
    with open_store(url, root=tmp_path, create=False) as store:
        found = store.runs()
        assert {info.id for info in found} == expected
        assert len(found) == len(expected)
        for info in found:
            assert store.load(info).planned == CASES
            index = int(info.commit["subject"].split()[1])
            assert store.predictions(info, "own") == (b"%d" % index if index else None)
        table = store.trend_table()
        assert table.loss.shape == (CASES, len(expected))
        assert (table.verdicts >= 0).all()
        with store.engine.connect() as connection:
            count = sa.select(sa.func.count()).select_from(schema.blobs)
            assert connection.execute(count).scalar() == WRITERS * EACH + 1  # "shared" once


def test_processes_that_open_a_new_store_at_once_all_find_it_whole(url, tmp_path, forking):
    assert forking("open", url, 6) == [0] * 6
    with open_store(url, root=tmp_path, create=False) as store:
        assert store.runs() == ()


@pytest.fixture
def durable(url, request):
    """An empty store whose commits wait for the disk."""
    if url.startswith("sqlite"):
        yield url
        return
    server = request.getfixturevalue("postgresql")
    server.set_fsync("on")
    yield url
    server.set_fsync("off")


def test_a_killed_writer_leaves_the_store_as_it_was(durable, tmp_path, run, forking):
    with open_store(durable, root=tmp_path) as store:
        store.record(run(0, cases=4), {"own": b"kept"})
        before = rows(store.engine)
        point = 1
        while forking("kill", durable, 5, point) == [-signal.SIGKILL]:
            assert rows(store.engine) == before, f"after the kill at INSERT {point}"
            point += 1
        assert point > 8  # the run, the cases and results in blocks, blobs, links
        latest = store.find("latest")
        assert [info.id for info in store.runs()][1:] == [run(0, cases=4).to_plain()["id"]]
        assert store.load(latest).to_plain() == run(5, cases=KILLED_CASES).to_plain()
        assert len(store.results(latest)) == KILLED_CASES
        assert store.predictions(latest, "own") == b"o" * 999


def test_a_writer_that_waits_too_long_says_what_it_waited_for(url, tmp_path, run, monkeypatch):
    monkeypatch.setattr("clipq.history.connect._BUSY_SECONDS", 1)
    with (
        open_store(url, root=tmp_path) as busy,
        open_store(url, root=tmp_path) as store,
        busy.engine.execution_options(writes=True).begin(),
    ):
        assert store.runs() == ()  # who reads does not wait
        with pytest.raises(StoreError, match="was locked by another process for too long"):
            store.record(run(0))
    with open_store(url, root=tmp_path) as store:
        assert store.record(run(0)).new


def test_a_mistake_in_clipq_is_not_told_as_the_store_s_fault(url, tmp_path, monkeypatch):
    with open_store(url, root=tmp_path) as store:
        monkeypatch.setattr("clipq.history.store.select_runs", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.runs()


def rows(engine: sa.Engine) -> dict[str, list[tuple[object, ...]]]:
    with engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(sa.select(table))]
            for table in schema.metadata.sorted_tables
        }
