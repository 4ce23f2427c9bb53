"""A part is its unit's results, whole or absent, once, whoever commits it how often."""

from __future__ import annotations

import dataclasses
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_parts import EVIDENCE, UNITS, result, results

from clipq.errors import SweepError
from clipq.estimate import Estimate
from clipq.records import CaseResult
from clipq.sweep.part_schema import from_bytes, to_bytes
from clipq.sweep.part_store import PartStore
from clipq.sweep.units import CalibrationDraw, Unit
from clipq.verdicts import Verdict


@pytest.fixture
def store(tmp_path):
    return PartStore(tmp_path / "a 'sweep'")


numbers = st.none() | st.floats()  # not a number, infinite and minus zero, too
finite = st.none() | st.floats(allow_nan=False, allow_infinity=False)
plain = st.text(st.characters(exclude_categories=["Cs"]))
counts = st.integers(0, 2**63 - 1)
evidence = st.dictionaries(plain, st.none() | st.booleans() | finite | plain | st.lists(finite))
estimates = st.builds(
    Estimate,
    **{
        field.name: st.none() | counts if field.name == "samples_needed" else numbers
        for field in dataclasses.fields(Estimate)
    },
)
KINDS = {"str": plain, "_Count": counts, "Number | None": numbers, "Estimate": estimates}
GIVEN = ("case", "evidence", "next_command", "waived_by")
outcomes = st.fixed_dictionaries(
    {
        field.name: st.sampled_from(Verdict) if field.name == "verdict" else KINDS[field.type]
        for field in dataclasses.fields(CaseResult)
        if field.name not in GIVEN
    }
)


@given(st.lists(outcomes, min_size=1, max_size=4), st.sampled_from(UNITS), evidence)
def test_what_is_read_is_what_was_written(found, unit, shared):
    written = [result(unit, f"id.m{i}", **fields) for i, fields in enumerate(found)]
    content = to_bytes(unit, written, shared)
    assert content == to_bytes(unit, written[::-1], shared)  # no order of cases, no time
    read = from_bytes(content, unit.id, "it")
    assert (read.unit, read.evidence) == (unit, shared)
    assert repr(read.results) == repr(tuple(written))


def test_what_no_file_can_hold_is_written_as_an_escape(store):
    (unit, *_) = UNITS
    store.commit(unit, [result(unit, reason="half \udce9")])
    assert store.read(unit.id).results[0].reason == "half \\udce9"


def test_the_first_commit_stays(store):
    unit = UNITS[0]
    assert store.ids() == set()
    assert store.commit(unit, results(unit))
    assert not store.commit(unit, [result(unit)])
    assert store.read(unit.id) == (unit, tuple(results(unit)), {})
    assert [path.name for path in Path(store.place).rglob("*.*")] == [f"{unit.id}.parquet"]


RACE = """
import sys
from pathlib import Path
from clipq.sweep.part_store import PartStore
from clipq.sweep.units import Unit
from sweep_parts import results
store = PartStore(Path(sys.argv[1]))
units = [Unit("vit", f"rtn:w{number}") for number in range(2, 62)]
print("ready", flush=True)
sys.stdin.readline()
print(sum(store.commit(unit, results(unit)) for unit in units), flush=True)
"""


def started(store, code):
    path = os.pathsep.join((str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")))
    return subprocess.Popen(
        [sys.executable, "-c", code, Path(store.place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )


def test_of_many_that_commit_the_same_exactly_one_wins(store):
    racing = [started(store, RACE) for _ in range(3)]
    for process in racing:
        assert process.stdout.readline() == "ready\n"
    for process in racing:
        process.stdin.write("\n")
        process.stdin.flush()
    won = [int(process.communicate(timeout=120)[0]) for process in racing]
    assert sum(won) == len(store.ids()) == 60
    assert all(len(part.results) == 3 for part in store.everything())
    assert not list(Path(store.place).rglob("*.tmp"))


ENDLESS = RACE.replace(
    "print(sum(store.commit(unit, results(unit)) for unit in units), flush=True)",
    "for number in range(10**6):\n    unit = Unit('vit', f'rtn:w{number}')\n"
    "    store.commit(unit, results(unit))",
)


def test_a_process_that_is_killed_leaves_whole_parts_or_none(store):
    process = started(store, ENDLESS)
    process.stdout.readline()
    process.stdin.write("\n")
    process.stdin.flush()
    while len(store.ids()) < 20 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = list(store.everything())
    assert len(found) >= 20
    assert all(list(part.results) == results(part.unit) for part in found)


def test_a_full_disk_leaves_no_part(store):
    unit, before = UNITS[0], resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        with pytest.raises(SweepError, match="the part of vit/rtn:w8 cannot be written"):
            store.commit(unit, results(unit))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in Path(store.place).rglob("*") if path.is_file()]
    assert store.commit(unit, results(unit))


def test_what_cannot_be_a_part_is_refused(store):
    one, other, _ = UNITS
    for given_results, problem in (
        ([], "has no result"),
        (results(other), "is another candidate than vit/rtn:w8"),
        ([result(one), result(one)], "a case of vit/rtn:w8 is there twice"),
        ([result(one, evidence={"models": {}})], "comes with evidence of its own"),
    ):
        with pytest.raises(SweepError, match=problem):
            store.commit(one, given_results)


@pytest.mark.parametrize("name", ["next_command", "waived_by"])
def test_what_a_part_does_not_keep_is_refused_rather_than_dropped(store, name):
    with pytest.raises(SweepError, match=f"comes with {name} of its own"):
        store.commit(UNITS[0], [result(UNITS[0], **{name: "x"})])


def half(name):
    unit = Unit(name, "rtn:w8")
    return unit, [result(unit)], None


@pytest.mark.parametrize(
    ("given_part", "problem"),
    [
        (lambda: half("v\udce9"), "holds half a character"),
        (lambda: (UNITS[0], [result(UNITS[0], samples=2**63)], None), "samples of vit/rtn:w8"),
        (lambda: (UNITS[0], [result(UNITS[0])], {"x": float("nan")}), "evidence of vit/rtn:w8"),
        (lambda: (UNITS[0], [result(UNITS[0])], {"x": {1, 2}}), "evidence of vit/rtn:w8"),
        (
            lambda: (
                (unit := Unit("vit", f"quarot:w4,seed={2**63}")),
                [result(unit)],
                None,
            ),
            "seed of vit/quarot:w4,seed=9223372036854775808",
        ),
        (
            lambda: (
                (unit := Unit("vit", "rtn:w8a8", CalibrationDraw(2**63))),
                [result(unit)],
                None,
            ),
            "calibration_samples of vit/rtn:w8a8",
        ),
    ],
)
def test_what_no_part_can_hold_is_one_message(store, given_part, problem):
    unit, found, shared = given_part()
    with pytest.raises(SweepError, match=problem):
        store.commit(unit, found, evidence=shared)
    assert store.ids() == set()


def rewritten(content, **metadata):
    """Return a part whose rows an editor has changed, or its metadata."""
    table = pq.read_table(pa.BufferReader(content))
    if not metadata:
        at = table.schema.names.index("observed")
        table = table.set_column(at, "observed", pa.array([0.0] * len(table)))
    table = table.replace_schema_metadata(
        dict(table.schema.metadata)
        | {f"clipq.{name}".encode(): value for name, value in metadata.items()}
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def flipped(content):
    return content[:200] + bytes([content[200] ^ 1]) + content[201:]


DAMAGES = [
    (lambda content: content[:-9], "cannot be read as Parquet"),
    (lambda content: b"", "cannot be read as Parquet"),
    (lambda content: to_bytes(UNITS[1], results(UNITS[1])), "holds another unit"),
    (lambda content: rewritten(content, schema="clipq-sweep-part/9"), "its schema is"),
    (lambda content: rewritten(content, schema=b"\xff\xfe"), "its schema is"),
    (lambda content: rewritten(content), "does not hold what was written"),
    (flipped, "does not hold what was written|cannot be read as Parquet"),
]


@pytest.mark.parametrize(("change", "problem"), DAMAGES)
def test_a_damaged_part_is_named_counts_as_not_done_and_is_made_again(store, change, problem):
    unit, other, _ = UNITS
    for one in (unit, other):
        store.commit(one, results(one), evidence=EVIDENCE)
    path = store.path(unit.id)
    whole = path.read_bytes()
    bad = change(whole)
    path.write_bytes(bad)
    with pytest.raises(SweepError, match=problem) as raised:
        store.read(unit.id)
    assert str(path) in str(raised.value)

    with pytest.warns(UserWarning, match=f"not counted as done: {re.escape(str(path))}"):
        assert store.ids() == {other.id}
    assert (store.has(unit.id), store.has(other.id)) == (False, True)
    assert store.commit(unit, results(unit), evidence=EVIDENCE)
    assert path.read_bytes() == whole
    assert [each.read_bytes() for each in (Path(store.place) / "damaged").iterdir()] == [bad]
    assert store.ids() == {unit.id, other.id}
    assert not store.commit(unit, results(unit))


def test_only_files_that_are_called_as_a_unit_in_its_folder_count(store):
    unit = UNITS[0]
    store.commit(unit, results(unit))
    path = store.path(unit.id)
    elsewhere = path.parent.with_name("zz")
    elsewhere.mkdir()
    for copy in (path.with_name(f"copy of {path.name}"), elsewhere / path.name):
        copy.write_bytes(path.read_bytes())
    with pytest.warns(UserWarning, match="no parts of units, and not counted: .*copy of"):
        assert store.ids() == {unit.id}
    with pytest.warns(UserWarning, match="no parts of units"):
        assert len(list(store.everything())) == 1


def test_names_of_new_folders_are_on_the_disk_before_a_commit_is_told(store, monkeypatch):
    synced = set()
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.add(str(Path(f"/proc/self/fd/{fd}").readlink())), real(fd))
    )
    store.commit(UNITS[0], results(UNITS[0]))
    shard = store.path(UNITS[0].id).parent
    assert {
        str(shard),
        str(shard.parent),
        str(Path(store.place)),
        str(Path(store.place).parent),
    } <= synced


def test_what_a_killed_process_left_half_written_is_dropped_a_day_later(store):
    folder = Path(store.place) / "temporary"
    folder.mkdir(parents=True)
    old, new = folder / "old.tmp", folder / "new.tmp"
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    store.commit(UNITS[0], results(UNITS[0]))
    assert [path.name for path in folder.iterdir()] == ["new.tmp"]


def test_a_part_that_is_not_there_says_how_it_comes(store):
    with pytest.raises(SweepError, match="there is no part"):
        store.read("0" * 64)
