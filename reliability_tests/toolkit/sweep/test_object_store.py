"""Parts in an object store: what holds of a folder holds there, where the store can promise it."""

from __future__ import annotations

import sys

import fsspec
import pytest
from sweep_parts import EVIDENCE, UNITS, many, results, rows_of

from clipq.errors import SweepError
from clipq.sweep.compaction import compact
from clipq.sweep.object_store import opened
from clipq.sweep.part_store import PartStore
from clipq.sweep.store_files import LocalFiles
from clipq.sweep.sweep_query import export, query


@pytest.fixture
def url(request):
    place = f"memory://{request.node.name}/a sweep"
    yield place
    system = fsspec.filesystem("memory")
    for name in [name for name in system.store if request.node.name in name]:
        del system.store[name]


def filled(place, units=UNITS):
    store = PartStore(place)
    for unit in units:
        store.commit(unit, results(unit), evidence=EVIDENCE)
    return store


def test_a_sweep_in_an_object_store_is_one_in_a_folder(url, tmp_path):
    there, here = filled(url), filled(tmp_path)
    sql = "SELECT * FROM cells ORDER BY unit_id, metric"
    for _ in range(2):
        assert there.ids() == here.ids() == {unit.id for unit in UNITS}
        assert rows_of(there) == rows_of(here)
        assert query(there, sql) == query(here, sql)
        assert export(there, tmp_path / "all.csv") == 9
        assert (there.has(UNITS[0].id), there.has("0" * 64)) == (True, False)
        assert not there.commit(UNITS[0], results(UNITS[0], 1))
        assert compact(there).files == compact(here).files == 1
    assert not fsspec.filesystem("memory").find(f"{url}/parts")
    assert rows_of(PartStore(url)) == rows_of(here)
    assert {each.name for each in tmp_path.glob("compacted/*")} == {
        name.rpartition("/")[2] for name in there.files.names("compacted")
    }


def test_more_units_come_into_a_compacted_object(url):
    units = many(6)
    compact(filled(url, units[:3]))
    store = filled(url, units)
    before = rows_of(store)
    assert (compact(store).units, len(store.files.names("compacted"))) == (3, 1)
    assert rows_of(store) == rows_of(PartStore(url)) == before
    assert len(before) == 6


def test_a_damaged_object_is_refused_and_made_again(url):
    store = filled(url)
    system = fsspec.filesystem("memory")
    path = f"{url}/parts/{UNITS[0].id[:2]}/{UNITS[0].id}.parquet"
    whole = system.cat_file(path)
    system.pipe_file(path, whole[:-1] + b"2")
    assert not store.has(UNITS[0].id)
    for asked in (lambda: store.read(UNITS[0].id), lambda: query(PartStore(url), "SELECT 1")):
        with pytest.raises(SweepError, match=f"{UNITS[0].id}.parquet cannot be read"):
            asked()
    assert store.commit(UNITS[0], results(UNITS[0]), evidence=EVIDENCE)
    assert system.cat_file(path) == whole
    assert len(system.find(f"{url}/damaged")) == 1


def test_an_address_of_files_is_a_folder(tmp_path):
    store = filled(f"file://{tmp_path}/sweep")
    assert isinstance(store.files, LocalFiles)
    assert len(list((tmp_path / "sweep" / "parts").rglob("*.parquet"))) == 3
    assert rows_of(store) == rows_of(PartStore(tmp_path / "sweep"))


@pytest.mark.parametrize(
    ("place", "problem", "fix"),
    [
        ("sftp://host/sweep", "parts are not stored by sftp://", "s3"),
        ("s4://bucket/sweep", "parts are not stored by s4://", "memory"),
        ("file://sweep", "names no folder", "file:///FOLDER"),
    ],
)
def test_an_address_that_parts_are_not_stored_at_is_refused(place, problem, fix, tmp_path):
    with pytest.raises(SweepError, match=problem) as raised:
        PartStore(place)
    assert fix in raised.value.hint


@pytest.mark.parametrize("lacking", ["s3fs", "fsspec"])
def test_a_package_that_is_not_there_is_named(monkeypatch, lacking):
    monkeypatch.setitem(sys.modules, lacking, None)
    url = {"s3fs": "s3://bucket/sweep", "fsspec": "memory://bucket/sweep"}[lacking]
    with pytest.raises(SweepError, match=f"needs {lacking}, which is not there") as raised:
        PartStore(url)
    assert raised.value.hint == f"pip install {lacking}"


def test_what_a_store_says_is_one_message(url, monkeypatch):
    store = PartStore(url)

    def refused(*_, **__):
        raise RuntimeError("403 Forbidden")

    files = opened(url)
    monkeypatch.setattr(type(files._system), "pipe_file", refused)
    with pytest.raises(SweepError, match=r"cannot be written to memory://.*403 Forbidden"):
        store.commit(UNITS[0], results(UNITS[0]))
    monkeypatch.setattr(type(files._system), "find", refused)
    with pytest.raises(SweepError, match=r"cannot be read: .*403 Forbidden"):
        store.ids()
