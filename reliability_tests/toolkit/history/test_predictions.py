"""Predictions come from the cache, checked; what is gone is named and left out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from clipq.cases import Case, Cell
from clipq.evaluation.cache import Cache
from clipq.evaluation.pooling import pool
from clipq.evaluation.tables import (
    as_predictions,
    as_table,
    parse_table,
    read_table,
    table_content,
    write_table,
)
from clipq.history.around import Alike
from clipq.history.estimation import as_recorded, cached_tables, with_pooled
from clipq.history.run_predictions import prediction_tables
from clipq.history.store import open_store
from clipq.metrics import Predictions
from clipq.records import CaseResult, RunRecord
from clipq.verdicts import Verdict

CELLS = ("vit-0/fp32/id", "vit-0/rtn:w4/id")


def cached(cache: Path, key: str, value: float) -> str:
    path = cache / "predictions" / key[:2] / f"{key}.safetensors"
    return write_table(
        path, {"confidence": np.full(100, value)}, {"scalars": []}, key=f"predictions/{key}"
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def record(cache: Path, run) -> RunRecord:
    """A run whose two cells are in the cache."""
    keys = ("aa11", "bb22")
    entries = {
        cell: {"key": key, "sha256": cached(cache, key, float(at))}
        for at, (cell, key) in enumerate(zip(CELLS, keys, strict=True))
    }
    made = run(0)
    first, *rest = made.cases
    return replace(made, cases=(replace(first, evidence={"predictions": entries}), *rest))


def test_every_cell_of_a_run_is_found_by_its_key(cache, record):
    tables = prediction_tables(record, cache)
    assert sorted(tables) == sorted(CELLS)
    path = cache / "predictions" / "bb" / "bb22.safetensors"
    assert tables[CELLS[1]] == path.read_bytes()


def test_a_stored_table_is_a_file_that_reads_back(cache, record, tmp_path):
    with open_store("sqlite:///history.db", root=tmp_path) as store:
        info = store.record(record, prediction_tables(record, cache)).run
        copy = tmp_path / "copy.safetensors"
        copy.write_bytes(store.predictions(info, CELLS[1]))
    columns, _, digest = read_table(copy)
    np.testing.assert_array_equal(columns["confidence"], 1.0)
    assert digest == record.evidence()["predictions"][CELLS[1]]["sha256"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "no longer in the cache"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "not a complete prediction table"),
        (lambda path: cached(path.parents[2], "aa11", 7.0), "the cache has others of that name"),
    ],
    ids=["gone", "truncated", "another"],
)
def test_what_cannot_be_kept_is_named_and_the_rest_is_kept(cache, record, tmp_path, damage, reason):
    damage(cache / "predictions" / "aa" / "aa11.safetensors")
    told: list[str] = []
    with open_store("sqlite:///history.db", root=tmp_path) as store:
        info = store.record(record, prediction_tables(record, cache, warn=told.append)).run
        assert store.cells(info) == CELLS[1:]
    assert len(told) == 1
    assert CELLS[0] in told[0]
    assert reason in told[0]


def test_unless_told_otherwise_a_warning_is_issued(tmp_path, record):
    with pytest.warns(UserWarning, match="no longer in the cache"):
        assert len(prediction_tables(record, tmp_path / "elsewhere")) == 0


def test_tables_that_are_not_the_runs_own_take_no_part_in_a_comparison(cache, record):
    read = as_recorded(cached_tables(record, Cache(cache)), record)
    first, second = map(Cell.parse, CELLS)
    paths = [cache / "predictions" / key[:2] / f"{key}.safetensors" for key in ("aa11", "bb22")]
    assert read(first) == paths[0].read_bytes()
    cached(cache, "aa11", 7.0)
    with pytest.warns(UserWarning, match=r"fp32/id that were kept are not those of run"):
        assert read(first) is None
    shutil.copy(paths[0], paths[1])
    with pytest.warns(UserWarning, match=r"bb22.safetensors is damaged"):
        assert read(second) is None


def test_a_run_without_evidence_has_no_predictions(cache, run):
    assert dict(prediction_tables(run(0), cache)) == {}


class TestPooledProbes:
    """No table of a pooled probe is kept: it is made of its members' when two runs are compared."""

    ORIGINS: ClassVar = {"id": "id", "fog": "id"}
    EVIDENCE: ClassVar = {
        "probes": {
            "id": {"role": "in-distribution", "fingerprint": "0f"},
            "fog": {"role": "corruption", "fingerprint": "1e"},
            "pooled": {"role": "pooled", "fingerprint": "2d", "pools": ORIGINS},
        }
    }

    def record(self, digests):
        predictions = {
            f"m/rtn:w8/{name}": {"sha256": of, "key": of} for name, of in digests.items()
        }
        first = CaseResult(
            Case.parse("m/rtn:w8/pooled.top1"),
            Verdict.PASS,
            evidence=self.EVIDENCE | {"predictions": predictions},
        )
        return RunRecord("ci", 1, (first,))

    def test_its_table_is_that_of_its_members_together(self):
        tables = {
            name: Predictions({"id": np.array(["a", "b"]), "rank": np.array(ranks)})
            for name, ranks in (("id", [0, 1]), ("fog", [2, 3]))
        }
        stored = {
            f"m/rtn:w8/{name}": table_content(*as_table(table, {}))[0]
            for name, table in tables.items()
        }
        read = with_pooled(lambda cell: stored.get(str(cell)), self.record({}))
        content = read(Cell.parse("m/rtn:w8/pooled"))
        found = as_predictions(*parse_table(content, name="pooled")[:2])
        expected = pool(tables, self.ORIGINS)
        assert {name: values.tolist() for name, values in found.columns.items()} == {
            name: values.tolist() for name, values in expected.columns.items()
        }
        assert read(Cell.parse("m/rtn:w8/id")) == stored["m/rtn:w8/id"]
        del stored["m/rtn:w8/fog"]
        assert read(Cell.parse("m/rtn:w8/pooled")) is None

    @pytest.mark.parametrize(("fog", "equal"), [("22", True), ("33", False)])
    def test_it_is_alike_where_all_its_members_are(self, fog, equal):
        before = self.record({"id": "11", "fog": "22"})
        after = self.record({"id": "11", "fog": fog})
        assert Alike(before.evidence(), after.evidence())(after.cases[0]) is equal
