"""A sweep is asked in SQL and exported: every whole part once, and nothing else."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from sweep_parts import EVIDENCE, UNITS, result, results

from clipq.cli import main
from clipq.cli.sweep_answers import shown
from clipq.errors import SweepError
from clipq.sweep.attempts import Attempts
from clipq.sweep.compaction import compact
from clipq.sweep.executor import Outcome
from clipq.sweep.part_columns import stored_columns
from clipq.sweep.part_schema import to_bytes
from clipq.sweep.part_store import PartStore
from clipq.sweep.sweep_query import Answer, export, query
from clipq.sweep.sweep_tables import table_columns
from clipq.sweep.units import Unit


def filled_in(folder):
    store = PartStore(folder)
    for unit in UNITS:
        store.commit(unit, results(unit), evidence=EVIDENCE)
    return store


@pytest.fixture(params=["parts", "compacted"])
def filled(tmp_path, request):
    store = filled_in(tmp_path / "a 'sweep'")
    if request.param == "compacted":
        compact(store)
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


def test_every_table_has_its_columns(filled):
    for name, columns in table_columns().items():
        assert query(filled, f"SELECT * FROM {name}").names == tuple(columns)


def test_units_are_a_row_each_with_their_evidence(filled):
    found = query(filled, "SELECT unit_id, context, evidence FROM units ORDER BY unit_id")
    expected = sorted((unit.id, unit.context) for unit in UNITS)
    assert [(unit_id, context) for unit_id, context, _ in found.rows] == expected
    assert all(json.loads(text) == EVIDENCE for *_, text in found.rows)


def test_what_units_cost_is_asked_in_sql(filled, tmp_path):
    attempts = Attempts(tmp_path / "attempts")
    failed = Unit("vit", "gptq:w4@vision")
    for unit, seconds, reason in (
        (UNITS[0], 2.0, ""),
        (UNITS[1], 3.0, ""),
        (UNITS[1], 4.0, "killed"),
        (failed, 5.0, "no memory"),
    ):
        attempts.add(Outcome(unit, reason, seconds=seconds))
    sql = "SELECT model, method, sum(seconds) AS s FROM attempts GROUP BY ALL ORDER BY ALL"
    assert query(filled, sql, attempts=attempts.folder).rows == (
        ("vit", "gptq", 5.0),
        ("vit", "rtn", 9.0),
    )
    joined = "SELECT sum(seconds) FROM attempts JOIN units USING (unit_id) WHERE reason = ''"
    assert query(filled, joined, attempts=attempts.folder).rows == ((5.0,),)
    none = PartStore(tmp_path / "none")
    assert query(none, "SELECT count(*) FROM attempts", attempts=attempts.folder).rows == ((4,),)
    for table in ("units", "attempts"):  # no name is a word of SQL's own
        names = query(filled, f"SELECT * FROM {table}", attempts=attempts.folder).names
        assert len(names) > 5
        query(filled, f"SELECT {', '.join(names)} FROM {table}", attempts=attempts.folder)


def test_others_read_the_files_as_they_are(filled):
    folder = "compacted" if filled.compacted() else "parts"
    frame = pd.read_parquet(Path(filled.place) / folder)
    assert list(frame.columns) == list(stored_columns())
    assert sorted(frame["observed"]) == sorted([0.0, 1 / 7, 2 / 7] * 3)


@pytest.mark.parametrize("how", ["parts", "compacted"])
def test_a_folder_whose_name_is_a_pattern_is_that_folder(tmp_path, how):
    def made(name, unit):
        store = PartStore(tmp_path / name)
        store.commit(unit, results(unit, 1))
        if how == "compacted":
            compact(store)
        return store

    for other in ("a1", "axb", "ax", "ay", "ab"):  # what the patterns would take
        made(other, UNITS[1])
    for name in ("a[1]", "a*b", "a?b", "a{x,y}", "a\\b", "a'b"):
        store = made(name, UNITS[2])
        assert query(store, "SELECT unit_id FROM cells").rows == ((UNITS[2].id,),)
        written = tmp_path / name / f"{name}.csv"
        assert export(store, written) == len(pd.read_csv(written)) == 1


@pytest.mark.parametrize(
    ("sql", "problem", "fix"),
    [
        ("SELECT obsrved FROM cells", "obsrved", "did you mean 'observed'"),
        ("SELECT c.obsrved FROM cells c", "obsrved", "did you mean 'observed'"),
        ("SELECT u.evidense FROM units u", "evidense", "did you mean 'evidence'"),
        ("SELECT 1 FROM cels", "cels", "did you mean 'cells'"),
        ("SELEC 1", "syntax error", "columns of cells"),
        ("SELECT offset FROM cells", "syntax error", '"offset"'),
        ("", "is nothing", "one SELECT|SELECT method"),
        ("SELECT 1; SELECT 2", "is SELECT, SELECT", "SELECT method"),
        ("COPY cells TO 'x.csv'", "is COPY", "SELECT method"),
        ("SELECT * FROM read_csv('/etc/hosts')", "Cannot access file", "columns of cells"),
        ("SELECT * FROM '/etc/hosts'", "does not exist", "known: attempts, cells, units"),
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


def test_nothing_done_yet_is_said(tmp_path):
    with pytest.raises(SweepError, match="no unit is done yet"):
        query(PartStore(tmp_path), "SELECT 1")


def test_a_part_that_is_not_what_was_written_is_not_counted(tmp_path):
    store = filled_in(tmp_path / "sweep")
    path = store.path(UNITS[0].id)
    path.write_bytes(to_bytes(UNITS[0], [result(UNITS[0], observed=0.9)])[:-1] + b"2")
    for asked in (
        lambda: query(store, "SELECT 1"),
        lambda: export(store, tmp_path / "all.csv"),
    ):
        with pytest.raises(SweepError, match=re.escape(str(path))):
            asked()
    assert not (tmp_path / "all.csv").exists()


def test_a_copy_of_a_part_is_not_counted(tmp_path):
    store = filled_in(tmp_path / "sweep")
    path = store.path(UNITS[0].id)
    path.with_name(f"copy of {path.name}").write_bytes(path.read_bytes())
    with pytest.warns(UserWarning, match="not counted: .*copy of"):
        assert query(store, "SELECT count(*) FROM cells").rows == ((9,),)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_holds_every_row_in_one_order(tmp_path, ending):
    store, path = filled_in(tmp_path / "sweep"), tmp_path / f"all.{ending}"
    assert export(store, path) == 9
    read = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
    assert list(read["quantizer"].unique()) == sorted(unit.quantizer for unit in UNITS)
    first = path.read_bytes()
    export(store, path)
    assert path.read_bytes() == first
    compact(store)
    export(store, path)
    again = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
    pd.testing.assert_frame_equal(again, read)
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, "sweep"]
    if ending == "csv":
        with path.open(newline="") as stream:
            assert next(csv.reader(stream)) == table_columns()["cells"]


def test_an_export_of_another_ending_is_refused(filled, tmp_path):
    with pytest.raises(SweepError, match=r"ends in \.xlsx, an export in \.parquet"):
        export(filled, tmp_path / "all.xlsx")


def test_an_export_that_cannot_be_written_says_so(filled, tmp_path):
    with pytest.raises(SweepError, match="cannot be written: No such file") as caught:
        export(filled, tmp_path / "no" / "all.csv")
    assert "in a folder that can be written" in str(caught.value)


ANSWER = Answer(("name", "value"), (("a|b\nc", float("nan")), ("12e3", None), ("c", [0.5])))


def test_an_answer_is_strict_json():
    assert json.loads(shown(ANSWER, "json"), parse_constant=pytest.fail) == [
        {"name": "a|b\nc", "value": None},
        {"name": "12e3", "value": None},
        {"name": "c", "value": [0.5]},
    ]
    with pytest.raises(SweepError, match="2 columns are called 'x'") as raised:
        shown(Answer(("x", "y", "x"), ((1, 2, 3),)), "json")
    assert "AS" in raised.value.hint


def test_an_answer_is_a_table_of_markdown_whatever_texts_hold():
    lines = shown(ANSWER, "markdown").splitlines()
    assert [line.replace("\\|", "").count("|") for line in lines] == [3] * 5
    assert "a\\|b c" in lines[2]
    assert "12e3" in lines[3]


def test_an_answer_is_text_and_csv():
    assert "12e3" in shown(ANSWER, "text")
    assert shown(ANSWER, "csv").startswith("name,value\n")


@pytest.mark.parametrize(
    "action",
    [
        ["sweep", "query", "plan.tml", "SELECT 1"],
        ["sweep", "query", "plan.tml", "SELECT 1", "--folder", ".clipq/sweeps/plan"],
        ["sweep", "export", "plan.tml", "rows.csv"],
        ["sweep", "compact", "plan.tml"],
        ["sweep", "status", "plan.tml"],
        ["sweep", "plan", "plan.tml"],
        ["sweep", "run", "plan.tml"],
        ["sweep", "run", "plan.tml", "--dry-run"],
        ["sweep", "resume", "plan.tml"],
        ["study", "claims", "--sweep", "plan.tml"],
        ["study", "values", "--sweep", "plan.tml"],
    ],
)
def test_no_other_plan_answers_for_a_name_that_is_not_there(tmp_path, monkeypatch, capsys, action):
    monkeypatch.chdir(tmp_path)
    begun = tmp_path / ".clipq/sweeps/plan"
    filled_in(begun)
    (begun / "sweep.json").write_text("{}")
    (tmp_path / "plan.toml").write_text("")
    assert main(action) == 2
    told = capsys.readouterr()
    assert "plan.tml" in told.err
    assert "fix: did you mean plan.toml?" in told.err
    assert told.out == ""


def test_a_sweep_whose_plan_is_gone_is_named_by_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    begun = tmp_path / ".clipq/sweeps/plan"
    filled_in(begun)
    (begun / "sweep.json").write_text("{}")
    for name in ("plan.toml", ".clipq/sweeps/plam"):
        assert main(["sweep", "query", name, "SELECT 1"]) == 2
        assert "fix: did you mean .clipq/sweeps/plan?" in capsys.readouterr().err
    assert main(["sweep", "query", "a\0b", "SELECT 1"]) == 2
    assert main(["sweep", "query", "a" * 5000, "SELECT 1"]) == 2
    assert main(["sweep", "query", ".clipq/sweeps/plan", "SELECT 1"]) == 0
