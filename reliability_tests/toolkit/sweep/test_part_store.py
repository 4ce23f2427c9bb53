"""A part is its unit's results, whole or absent, once, whoever commits it how often."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipq.cases import Case
from clipq.errors import SweepError
from clipq.estimate import Estimate
from clipq.provenance import canonical_json
from clipq.records import CaseResult
from clipq.sweep.part_schema import columns, from_table, to_bytes
from clipq.sweep.part_store import PartStore
from clipq.sweep.sweep_query import export, query
from clipq.sweep.units import CalibrationDraw, Unit
from clipq.verdicts import Verdict


def result(unit, name="id.ece", **more):
    case = Case.parse(f"{unit.candidate}/{name}")
    return CaseResult(case, **{"verdict": Verdict.PASS, "observed": 0.5} | more)


def results(unit, count=3):
    return [result(unit, f"id.m{number}", observed=number / 7) for number in range(count)]


UNITS = [
    Unit("vit", "rtn:w8"),
    Unit("vit", "rtn:w4,exclude=blocks.0/*@vision", CalibrationDraw(64, 2), "0f"),
    Unit("vit", "quarot:w4a8,seed=3+logit-scale"),
]


@pytest.fixture
def store(tmp_path):
    return PartStore(tmp_path / "a 'sweep'")


finite = st.none() | st.floats(allow_nan=False, allow_infinity=False)
plain = st.text(st.characters(exclude_categories=["Cs"]))
evidence = st.dictionaries(plain, st.none() | st.booleans() | finite | plain | st.lists(finite))
estimates = st.builds(
    Estimate,
    **dict.fromkeys(("loss", "low", "high", "p_value", "standard_error", "margin"), finite),
    samples_needed=st.none() | st.integers(0, 2**62),
)
outcomes = st.fixed_dictionaries(
    {
        "verdict": st.sampled_from(Verdict),
        "reason": plain,
        "baseline": finite,
        "observed": finite,
        "samples": st.integers(0, 2**62),
        "estimate": estimates,
        "evidence": evidence,
    }
)


@given(st.lists(outcomes, min_size=1, max_size=4), st.sampled_from(UNITS))
def test_what_is_read_is_what_was_written(found, unit):
    import io

    written = [result(unit, f"id.m{i}", **fields) for i, fields in enumerate(found)]
    content = to_bytes(unit, written)
    assert content == to_bytes(unit, written[::-1])  # no order of cases, no time
    read, rows = from_table(pq.read_table(io.BytesIO(content)), "it")
    assert read == unit
    assert [canonical_json(json.loads(each.to_json())) for each in rows] == [
        canonical_json(json.loads(each.to_json())) for each in written
    ]


def test_what_no_file_can_hold_is_written_as_an_escape(store):
    (unit, *_) = UNITS
    store.commit(unit, [result(unit, reason="half \udce9")])
    assert store.read(unit.id)[1][0].reason == "half \\udce9"


def test_the_first_commit_stays(store):
    unit = UNITS[0]
    assert store.ids() == set()
    assert store.commit(unit, results(unit))
    assert not store.commit(unit, [result(unit)])
    assert store.read(unit.id) == (unit, tuple(results(unit)))
    assert [path.name for path in store.folder.rglob("*.*")] == [f"{unit.id}.parquet"]


RACE = """
import sys
from pathlib import Path
from test_part_store import PartStore, Unit, results
store = PartStore(Path(sys.argv[1]))
units = [Unit("vit", f"rtn:w{number}") for number in range(2, 62)]
print("ready", flush=True)
sys.stdin.readline()
print(sum(store.commit(unit, results(unit)) for unit in units), flush=True)
"""


def started(store, code):
    path = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    return subprocess.Popen(
        [sys.executable, "-c", code, store.folder],
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
    assert all(len(rows) == 3 for _, rows in store.everything())
    assert not list(store.folder.rglob("*.tmp"))


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
    assert all(list(rows) == results(unit) for unit, rows in found)


def test_a_full_disk_leaves_no_part(store):
    unit, before = UNITS[0], resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        with pytest.raises(SweepError, match="the part of vit/rtn:w8 cannot be written"):
            store.commit(unit, results(unit))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in store.folder.rglob("*") if path.is_file()]
    assert store.commit(unit, results(unit))


def test_what_cannot_be_a_part_is_refused(store):
    one, other, _ = UNITS
    for given_results, problem in (
        ([], "has no result"),
        (results(other), "is another candidate than vit/rtn:w8"),
        ([result(one), result(one)], "a case of vit/rtn:w8 is there twice"),
    ):
        with pytest.raises(SweepError, match=problem):
            store.commit(one, given_results)


def damaged(store, unit, change):
    path = store.path(unit.id)
    content = path.read_bytes()
    path.write_bytes(change(content))
    return path


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content[:-9], "cannot be read as Parquet"),
        (lambda content: b"", "cannot be read as Parquet"),
        (lambda content: to_bytes(UNITS[1], results(UNITS[1])), "holds another unit"),
        (lambda content: content.replace(b"sweep-part/1", b"sweep-part/9"), "its schema is"),
    ],
)
def test_a_damaged_part_is_named(store, change, problem):
    unit = UNITS[0]
    store.commit(unit, results(unit))
    path = damaged(store, unit, change)
    with pytest.raises(SweepError, match=problem) as raised:
        store.read(unit.id)
    assert str(path) in str(raised.value)


def test_rows_that_were_edited_are_noticed(store):
    unit = UNITS[0]
    store.commit(unit, results(unit))
    table = pq.read_table(store.path(unit.id))
    frame = table.to_pandas().assign(observed=0.0)
    import pyarrow as pa

    pq.write_table(pa.Table.from_pandas(frame, schema=table.schema), store.path(unit.id))
    with pytest.raises(SweepError, match="does not hold what was written"):
        store.read(unit.id)


def test_a_part_that_is_not_there_says_how_it_comes(store):
    with pytest.raises(SweepError, match="there is no part"):
        store.read("0" * 64)


# -- queries ----------------------------------------------------------------------------------


@pytest.fixture
def filled(store):
    for unit in UNITS:
        store.commit(unit, results(unit))
    return store


def test_cells_are_asked_in_sql(filled):
    found = query(
        filled,
        "SELECT method, number_format, towers, seed, calibration_samples, count(*) AS cells "
        "FROM cells GROUP BY ALL ORDER BY ALL",
    )
    assert found.names[-1] == "cells"
    assert found.rows == (
        ("quarot", "w4a8", "both", 3, 0, 3),
        ("rtn", "w4", "vision", None, 64, 3),
        ("rtn", "w8", "both", None, 0, 3),
    )


def test_others_read_the_parts_as_they_are(filled):
    frame = pd.read_parquet(filled.folder / "parts")
    assert list(frame.columns) == list(columns())
    assert len(frame) == 9


@pytest.mark.parametrize(
    ("sql", "problem", "fix"),
    [
        ("SELECT obsrved FROM cells", "obsrved", "did you mean 'observed'"),
        ("SELECT 1 FROM cels", "cels", "columns of cells"),
        ("SELEC 1", "syntax error", "columns of cells"),
        ("", "is nothing", "one SELECT|SELECT method"),
        ("SELECT 1; SELECT 2", "is SELECT, SELECT", "SELECT method"),
        ("COPY cells TO 'x.csv'", "is COPY", "SELECT method"),
        ("SELECT * FROM read_csv('/etc/hosts')", "Cannot access file", "columns of cells"),
        ("SELECT * FROM '/etc/hosts'", "does not exist", "columns of cells"),
    ],
)
def test_a_statement_that_is_wrong_or_reaches_out_is_refused(
    filled, sql, problem, fix, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SweepError, match=problem) as raised:
        query(filled, sql)
    assert re.search(fix, raised.value.hint)
    assert not (tmp_path / "x.csv").exists()


def test_nothing_done_yet_is_said(store):
    with pytest.raises(SweepError, match="no unit is done yet"):
        query(store, "SELECT 1")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_holds_every_row_in_one_order(filled, tmp_path, ending):
    path = tmp_path / f"all.{ending}"
    assert export(filled, path) == 9
    read = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
    assert list(read["quantizer"].unique()) == sorted(unit.quantizer for unit in UNITS)
    first = path.read_bytes()
    export(filled, path)
    assert path.read_bytes() == first
    if ending == "csv":
        with path.open(newline="") as stream:
            assert next(csv.reader(stream)) == list(columns())


def test_an_export_of_another_ending_is_refused(filled, tmp_path):
    with pytest.raises(SweepError, match="an export ends in"):
        export(filled, tmp_path / "all.xlsx")
