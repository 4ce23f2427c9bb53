"""Lists of runs explain: why a run failed, and which measured only a part of the matrix."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from clipq.cli import main
from clipq.history.store import open_store
from clipq.records import KernelResult
from clipq.verdicts import Verdict


def test_a_failed_run_is_explained(url, run, monkeypatch, capsys):
    monkeypatch.setenv("CLIPQ_STORE", url)
    kernels = (KernelResult("fast", "matches", "fail"), KernelResult("slow", "matches", "pass"))
    record = replace(
        run(0, verdict=Verdict.MISSING), problems=("waiver 'a/*' expired",), kernels=kernels
    )
    with open_store(url, root=Path.cwd()) as store:
        store.record(record)
    assert main(["history", "list"]) == 0
    header, _, row = capsys.readouterr().out.splitlines()[:3]
    assert row[header.index("other") :].split()[0] == str(len(record.cases))
    assert main(["history", "show"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"problems +waiver 'a/\*' expired", told)
    assert re.search(r"failed kernel checks +fast/matches", told)
    assert main(["history", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["remarks"] == {
        "problems": "waiver 'a/*' expired",
        "failed kernel checks": "fast/matches",
    }


def test_suspect_cases_have_their_column_and_are_among_the_worst(url, run, monkeypatch, capsys):
    monkeypatch.setenv("CLIPQ_STORE", url)
    record = run(0, verdict=Verdict.SUSPECT)
    with open_store(url, root=Path.cwd()) as store:
        store.record(record)
    assert main(["history", "list"]) == 0
    header, _, row = capsys.readouterr().out.splitlines()[:3]
    assert row[header.index("suspect") :].split()[0] == str(len(record.cases))
    assert "FAILED" in row
    assert main(["history", "show"]) == 0
    told = capsys.readouterr().out
    assert f"{len(record.cases)} suspect" in told
    assert re.search(r"vit-\d/rtn:w4/id\.top1 +suspect ", told)


def test_a_remark_is_no_part_of_the_environment(url, run):
    """Trend pages mark what changed in the environment from run to run: no failure is that."""
    record = run(0)
    with open_store(url, root=Path.cwd()) as store:
        store.record(record)
        store.record(replace(run(1), problems=("waiver 'a/*' expired",)))
        latest, first = store.runs()
    assert latest.remarks == {"problems": "waiver 'a/*' expired"}
    assert latest.environment == first.environment


@pytest.mark.parametrize(
    ("values", "partial"),
    [
        ({}, False),
        ({"selection": {"profile": ["default"], "of": 9}}, False),
        ({"selection": {"keyword": ["id"], "of": 9}}, True),
        ({"unreported": ("vit-9/rtn:w4/id.top1",), "planned": 5}, True),
    ],
)
def test_a_part_of_the_matrix_is_marked(url, run, monkeypatch, capsys, values, partial):
    monkeypatch.setenv("CLIPQ_STORE", url)
    with open_store(url, root=Path.cwd()) as store:
        store.record(replace(run(0), **values))
    assert main(["history", "list"]) == 0
    assert (", partial" in capsys.readouterr().out) is partial
    assert main(["history", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["partial"] is partial
    assert main(["history", "show"]) == 0
    assert ("part of the matrix: 4 of " in capsys.readouterr().out) is bool(values)
