"""Compacted, a sweep holds what it held: nothing lost, nothing doubled, wherever it is cut off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from sweep_parts import EVIDENCE, many, result, results, rows_of

from clipq.cli import main
from clipq.errors import SweepError
from clipq.sweep import compacted
from clipq.sweep.compaction import compact
from clipq.sweep.part_store import PartStore
from clipq.sweep.sweep_folder import claimed
from clipq.sweep.sweep_query import query

COUNT = "SELECT count(*), count(DISTINCT unit_id || metric), sum(observed) FROM cells"


def filled(place, units):
    store = PartStore(place)
    for unit in units:
        store.commit(unit, results(unit), evidence=EVIDENCE | {"quantizers": {unit.quantizer: {}}})
    return store


@pytest.fixture(autouse=True)
def few_rows_in_a_group(monkeypatch):
    monkeypatch.setattr(compacted, "_ROW_GROUP", 7)


def state(place):
    """Return what every way of reading says of a store."""
    store = PartStore(place)
    ids = store.ids()
    reads = [repr(store.read(unit_id)) for unit_id in sorted(ids)]
    assert reads == rows_of(store)
    assert all(map(store.has, ids))
    units = query(store, "SELECT * FROM units ORDER BY unit_id").rows
    return ids, reads, query(store, COUNT).rows, units


def test_what_is_stored_is_the_same_before_and_after(tmp_path):
    units = many(10)
    store = filled(tmp_path, units)
    before = state(tmp_path)
    told = compact(store)
    assert (told.units, told.files, list(store.paths())) == (10, 1, [])
    assert state(tmp_path) == before
    assert not any(store.commit(unit, results(unit)) for unit in units)
    assert not list(tmp_path.rglob("*.tmp"))


def test_more_units_come_into_the_same_file_and_nothing_is_done_twice(tmp_path):
    units = many(12)
    store = filled(tmp_path, units[::2])
    compact(store)
    (first,) = (tmp_path / "compacted").iterdir()
    assert (compact(store).units, [*(tmp_path / "compacted").iterdir()]) == (0, [first])
    filled(tmp_path, units)
    before = state(tmp_path)
    assert compact(store).units == 6
    (second,) = (tmp_path / "compacted").iterdir()
    assert second != first
    assert state(tmp_path) == before


def test_a_file_that_is_large_enough_is_not_written_again(tmp_path):
    units = many(9)
    store = filled(tmp_path, units[:5])
    assert compact(store, rows_per_file=6).files == 3  # two units, two units, one
    large = [file.name for file in store.compacted() if file.rows >= 6]
    filled(tmp_path, units)
    before = state(tmp_path)
    assert compact(store, rows_per_file=6).files == 5
    assert {*large} < {file.name for file in store.compacted()}
    assert state(tmp_path) == before


def test_values_that_equal_nothing_come_back(tmp_path):
    (unit,) = many(1)
    store = PartStore(tmp_path)
    odd = [result(unit, observed=float("nan"), baseline=float("-inf"), noise=-0.0, reason="\x00")]
    store.commit(unit, odd)
    compact(store)
    assert repr(store.read(unit.id).results) == repr(tuple(odd))


KILLED = """
import os, shutil, sys
from pathlib import Path
import pyarrow.compute, pyarrow.parquet
from clipq.sweep import compacted
from clipq.sweep.compaction import compact
from clipq.sweep.part_store import PartStore

compacted._ROW_GROUP = 7
source, target = map(Path, sys.argv[1:])
OPERATIONS = ("link", "replace", "unlink", "fsync", "mkdir", "chmod")
done = 0

def counted(operation, last):
    def act(*given, **more):
        global done
        done += 1
        if done == last:  # after all that was done before
            os._exit(9)
        return operation(*given, **more)
    return act

number = 0
ended = 9
while ended == 9:
    number += 1
    folder = target / f"{number:02d}"
    shutil.copytree(source, folder)
    child = os.fork()
    if not child:
        for name in OPERATIONS:
            setattr(os, name, counted(getattr(os, name), number))
        compact(PartStore(folder))
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
if ended:
    raise SystemExit(f"{ended} at {number}")
print(number - 1)
"""


def test_cut_off_at_any_step_nothing_is_lost_and_the_next_one_finishes(tmp_path):
    units = many(6)
    source, target = tmp_path / "source", tmp_path / "target"
    compact(filled(source, units[:2]))
    filled(source, units[:4])
    store = PartStore(source)
    expected = state(source)
    target.mkdir()
    told = subprocess.run(
        [sys.executable, "-c", KILLED, source, target], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    steps = int(told.stdout)
    assert steps >= 12  # the file's name and bytes on the disk, and what it replaces gone
    folders = sorted(target.iterdir())
    assert len(folders) == steps + 1
    midway, seen = set(), set()
    for folder in folders:
        files = frozenset(path.relative_to(folder) for path in folder.rglob("*.*"))
        if {path for path in files if path.suffix != ".tmp"} in seen:
            continue  # as another step left it
        seen.add(frozenset(path for path in files if path.suffix != ".tmp"))
        midway.add((len(list(folder.glob("compacted/*"))), len(list(folder.glob("parts/??/*")))))
        assert state(folder) == expected, folder.name
        compact(PartStore(folder))
        assert state(folder) == expected, folder.name
        assert not list(folder.glob("parts/??/*"))
        assert len(list(folder.glob("compacted/*"))) == 1
    assert {(1, 2), (2, 2), (2, 1), (2, 0), (1, 0)} <= midway
    assert store.ids() == {unit.id for unit in units[:4]}


def test_another_measurement_of_a_compacted_unit_is_set_aside_and_named(tmp_path):
    first, second = many(2)
    store = filled(tmp_path, [first, second])
    part = store.path(first.id)
    content = part.read_bytes()
    compact(store)
    before = state(tmp_path)
    part.write_bytes(content)  # what a compaction that was cut off leaves
    other = PartStore(tmp_path / "other")
    other.commit(second, [result(second, observed=0.25)])
    shutil.copy(other.path(second.id), store.path(second.id))
    assert state(tmp_path) == before
    with pytest.warns(UserWarning, match="was measured twice, with other results"):
        compact(store)
    assert [path.name for path in (tmp_path / "damaged").iterdir()] == [f"{second.id}.parquet"]
    assert (list(tmp_path.glob("parts/??/*")), state(tmp_path)) == ([], before)


def test_a_damaged_part_stays_where_it_is_and_is_named(tmp_path):
    units = many(3)
    store = filled(tmp_path, units)
    bad = store.path(units[0].id)
    bad.write_bytes(bad.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="damaged, and left where"):
        assert compact(store).units == 2
    assert list(store.paths()) == [bad]
    assert store.commit(units[0], results(units[0]))


def test_a_damaged_compacted_file_is_refused_and_then_taken_out(tmp_path):
    units = many(3)
    compact(filled(tmp_path, units))
    (path,) = (tmp_path / "compacted").iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    for asked in (
        lambda: PartStore(tmp_path).ids(),
        lambda: query(PartStore(tmp_path), "SELECT 1"),
    ):
        with pytest.raises(SweepError, match="does not hold what was written") as raised:
            asked()
        assert "clipq sweep compact" in raised.value.hint
    with pytest.warns(UserWarning, match=r"is damaged, and now in .*damaged"):
        compact(PartStore(tmp_path))
    assert PartStore(tmp_path).ids() == set()
    store = filled(tmp_path, units)
    assert store.ids() == {unit.id for unit in units}


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    store = filled(tmp_path, many(4))
    before = state(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full)
        with pytest.raises(SweepError, match="cannot be compacted: No space left"):
            compact(store)
    assert state(tmp_path) == before
    assert compact(store).units == 4


def test_what_is_compacted_while_it_is_asked_is_found(tmp_path, monkeypatch):
    store = filled(tmp_path, many(4))
    stored = PartStore.stored

    def slow(self):
        held = stored(self)
        if self is store:
            compact(PartStore(tmp_path))
        return held

    monkeypatch.setattr(PartStore, "stored", slow)
    assert query(store, COUNT).rows[0][:2] == (12, 12)


def test_the_command_names_a_plan_or_a_folder_and_leaves_a_running_sweep_alone(tmp_path, capsys):
    folder = tmp_path / ".clipq" / "sweeps" / "plan"
    (tmp_path / "other").mkdir()
    assert main(["sweep", "compact", str(tmp_path / "other")]) == 2
    assert f"there is no sweep in {tmp_path / 'other'}" in capsys.readouterr().err
    assert not list((tmp_path / "other").iterdir())
    assert main(["sweep", "compact", str(tmp_path / "plan.toml")]) == 2
    assert f"there is no plan {tmp_path / 'plan.toml'}" in capsys.readouterr().err
    (tmp_path / "plan.toml").write_text("")
    assert main(["sweep", "compact", str(tmp_path / "plan.toml")]) == 2
    assert f"there is no sweep in {folder}" in capsys.readouterr().err
    for asked in (["query", "SELECT 1"], ["export", str(tmp_path / "rows.csv")]):
        assert main(["sweep", asked[0], str(tmp_path / "other"), asked[1]]) == 2
        assert f"there is no sweep in {tmp_path / 'other'}" in capsys.readouterr().err
    assert main(["sweep", "status", str(tmp_path / "other")]) == 2
    assert f"{tmp_path / 'other'} is a folder, and a plan is a file" in capsys.readouterr().err
    filled(folder, many(4))
    with claimed(folder):
        assert main(["sweep", "compact", str(folder)]) == 2
    assert "is being run already" in capsys.readouterr().err
    assert main(["sweep", "compact", str(tmp_path / "plan.toml")]) == 0
    assert "4 units compacted; 1 file" in capsys.readouterr().out
    assert main(["sweep", "compact", str(folder)]) == 0
    assert "0 units compacted; 1 file" in capsys.readouterr().out
    assert len(PartStore(folder).ids()) == 4


def test_the_commands_find_parts_where_the_store_is(tmp_path, capsys):
    folder, store = tmp_path / "sweep", f"file://{tmp_path}/elsewhere"
    folder.mkdir()
    filled(store, many(4))
    assert main(["sweep", "compact", str(folder), "--store", store]) == 0
    asked = ["SELECT count(*) AS n FROM units", "--format", "csv", "--store", store]
    assert main(["sweep", "query", str(folder), *asked]) == 0
    assert capsys.readouterr().out.endswith("n\n4\n")
    assert main(["sweep", "export", str(folder), str(tmp_path / "a.csv"), "--store", store]) == 0
    assert main(["sweep", "query", str(folder), "SELECT 1", "--store", "sftp://host/x"]) == 2
    assert "parts are not stored by sftp://" in capsys.readouterr().err


def test_a_compacted_file_that_goes_while_it_is_looked_for_is_not_missed(tmp_path, monkeypatch):
    units = many(4)
    compact(filled(tmp_path, units[:2]))
    filled(tmp_path, units)
    store = PartStore(tmp_path)
    names, looked = store.files.names, []

    def slow(under):
        found = names(under)
        if under == "compacted" and not looked:
            looked.append(found)
            compact(PartStore(tmp_path))
        return found

    monkeypatch.setattr(store.files, "names", slow)
    assert store.ids() == {unit.id for unit in units}
    assert looked
