"""`clipq history` and `clipq bisect` as a user meets them."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from private_postgresql import PASSWORD

from clipq.cli import main
from clipq.history.store import open_store
from clipq.verdicts import Verdict

CASE = "vit-0/rtn:w4/id.top1"
PROJECT = """\
[matrix]
quantizers = ["rtn:w4", "rtn:w8"]
[[models]]
name = "vit-0"
source = "local-dir:vit-0"
[[probes]]
name = "id"
role = "in-distribution"
source = "folder:id"
[[probes]]
name = "calibration"
role = "calibration"
source = "folder:id"
[profiles.default]
exclude = ["*/rtn:w4/*"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder outside of any project, with no store in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPQ_STORE", raising=False)
    return tmp_path


@pytest.fixture
def filled(url, run, monkeypatch):
    """A store of four runs, the last two of which fail, named by CLIPQ_STORE."""
    monkeypatch.setenv("CLIPQ_STORE", url)
    with open_store(url, root=Path.cwd()) as store:
        for index, value in enumerate((0.9, 0.91, 0.7, 0.71)):
            verdict = Verdict.PASS if value > 0.8 else Verdict.FAIL
            store.record(run(index, value=value, verdict=verdict), {"a/b/c": b"%d" % index})
    return url


def write_report(record, name="report.json") -> str:
    Path(name).write_text(json.dumps(record.to_plain()))
    return name


def test_a_report_is_recorded_once(run, capsys):
    report = write_report(run(0))
    assert main(["history", "record", report]) == 0
    assert "recorded as run #1 in sqlite:////" in capsys.readouterr().out
    assert main(["history", "record", report]) == 0
    assert "recorded before, as run #1: nothing changed" in capsys.readouterr().out
    assert main(["history", "record", report, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["run"], told["new"]) == (1, False)


def test_a_damaged_or_missing_report_is_named(run, capsys):
    report = write_report(run(0))
    text = Path(report).read_text()
    Path(report).write_text(text.replace('"planned": 4', '"planned": 5'))
    assert main(["history", "record", report]) == 2
    assert "report.json was altered" in capsys.readouterr().err
    assert main(["history", "record", "elsewhere.json"]) == 2
    assert "elsewhere.json" in capsys.readouterr().err
    assert main(["history", "record"]) == 2
    assert "no report to record" in capsys.readouterr().err


def test_runs_are_listed_newest_first(filled, capsys):
    assert main(["history", "list", "--limit", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["#4", "#3", "#2"]
    assert "FAILED" in lines[2]
    assert main(["history", "list", "--failed", "--json"]) == 0
    assert [info["run"] for info in json.loads(capsys.readouterr().out)] == [4, 3]
    assert main(["history", "list", "--branch", "nowhere"]) == 0
    assert "no such run" in capsys.readouterr().out


def test_a_run_is_shown_with_its_worst_cases_first(filled, capsys):
    assert main(["history", "show", "--worst", "2"]) == 0
    shown = capsys.readouterr().out
    assert "FAILED under policy ci" in shown
    assert "torch" in shown
    assert shown.index("vit-3/rtn:w4") < shown.index("vit-2/rtn:w4")
    assert "vit-1/rtn:w4" not in shown
    assert main(["history", "show", "latest~2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["predictions"], told["worst"][0]["verdict"]) == (2, 1, "pass")


def test_one_case_is_followed_over_runs(filled, capsys):
    assert main(["history", "trend", CASE]) == 0
    shown = capsys.readouterr().out
    assert "observed ██▁▁" in shown
    assert [line.split()[0] for line in shown.splitlines()[5:]] == ["#4", "#3", "#2", "#1"]
    assert main(["history", "trend", CASE, "--runs", "2", "--json"]) == 0
    assert [row["observed"] for row in json.loads(capsys.readouterr().out)] == [0.7, 0.71]


def test_many_cases_are_followed_in_a_line_each(filled, capsys):
    assert main(["history", "trend", "vit-[01]/*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "██▁▁" in lines[2]
    assert lines[2].endswith("fail")
    assert main(["history", "trend", "*", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [case["verdict"] for case in told["cases"]] == [["pass", "pass", "fail", "fail"]] * 4
    assert main(["history", "trend", "vit-0/rtn:w4/id.top2"]) == 2
    assert f"did you mean '{CASE}'" in capsys.readouterr().err


def test_bisect_says_where_the_files_of_an_artifact_changed(tmp_path, run, monkeypatch, capsys):
    """They need not be in any commit, so that git may look for a commit that is not there."""
    store = f"sqlite:///{tmp_path}/artifacts.db"
    monkeypatch.setenv("CLIPQ_STORE", store)
    with open_store(store, root=Path.cwd()) as opened:
        for index, (value, sha) in enumerate(((0.9, "ab"), (0.9, "ab"), (0.7, "cd"))):
            verdict = Verdict.PASS if value > 0.8 else Verdict.FAIL
            made = run(index, value=value, verdict=verdict, cases=1)
            entry = {"runtime": "onnxruntime", "files": {"image": {"i.onnx": sha * 32}}}
            kinds = {"artifacts": {"vit-0/rtn:w4": entry}}
            opened.record(replace(made, cases=(replace(made.cases[0], evidence=kinds),)))
    assert main(["bisect", CASE]) == 0
    said = "artifact changed: the files of vit-0/rtn:w4"
    assert f"note: {said}" in capsys.readouterr().out
    assert main(["bisect", CASE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["artifact"] == [said]


def test_history_first_and_bisect_say_since_when_and_what_to_type(filled, run, capsys):
    assert main(["history", "first", CASE]) == 0
    shown = capsys.readouterr().out
    assert main(["bisect", CASE]) == 0
    assert capsys.readouterr().out == shown
    good, bad = (run(index).commit["sha"] for index in (1, 2))
    assert f"{CASE} has blocked for 2 runs, since run #3" in shown
    assert f"git bisect start {bad} {good}\n" in shown
    assert "git bisect run sh -c 'rm -f .clipq/report/bisect/report.json; " in shown
    assert "; clipq gate --model vit-0" in shown
    assert main(["bisect", CASE, "--changed", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["last_before"]["run"], told["first_after"]["run"]) == (3, 4)
    assert (told["by"], told["worse"], told["runs_since"]) == ("value", False, 1)
    assert main(["bisect", "vit-9/rtn:w4/id.top1"]) == 2
    assert "no recorded run has the case" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("bisect",), ("history", "first")])
def test_since_when_is_not_told_of_rows_that_were_edited(command, run, folder, capsys):
    url = f"sqlite:///{folder}/history.db"
    with open_store(url, root=folder) as store:
        store.record(run(0))
        with store.engine.begin() as raw:
            raw.exec_driver_sql("DROP TRIGGER results_are_immutable")
            raw.exec_driver_sql("UPDATE results SET observed = 0.5")
    assert main([*command, CASE, "--store", url]) == 2
    assert "was altered in the store" in capsys.readouterr().err


def test_bisect_judges_a_report_as_git_expects(run, capsys):
    report = write_report(run(0, value=0.9))
    judge = ["bisect", CASE, "--judge", report]
    assert main([*judge, "--old=0.9", "--new=0.7"]) == 0
    assert main([*judge, "--old=0.7", "--new=0.88"]) == 1
    assert main([*judge, "--old=none", "--new=0.9"]) == 1
    assert main([*judge, "--old=0.9"]) == 2
    assert main(["bisect", "vit-9/x/id.y", "--judge", report, "--old=1", "--new=2"]) == 125
    assert main(["bisect", CASE, "--judge", "gone.json", "--old=1", "--new=2"]) == 125
    assert "cannot be told" in capsys.readouterr().out


def test_bisect_judges_a_report_by_the_verdict_of_the_case(run, capsys):
    good = ["bisect", CASE, "--judge", write_report(run(0))]
    assert main([*good, "--old=pass", "--new=fail"]) == 0
    assert main([*good, "--old=fail", "--new=pass"]) == 1
    unsure = run(0, verdict=Verdict.INCONCLUSIVE, policy="release")
    judge = ["bisect", CASE, "--judge", write_report(unsure)]
    assert main([*judge, "--old=pass", "--new=fail"]) == 1
    assert main([*judge, "--old=pass", "--new=fail", "--policy=ci"]) == 0
    for verdict in (Verdict.MISSING, Verdict.ERROR, Verdict.INCOMPARABLE):
        write_report(run(0, verdict=verdict))
        assert main([*judge, "--old=pass", "--new=fail"]) == 125
    assert f"cannot be told: the case is {verdict}" in capsys.readouterr().out
    assert main([*judge, "--old=pass", "--new=0.9"]) == 2
    assert "give two verdicts or two values" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*judge, "--old=pass", "--new=worse"])
    assert "'worse' is neither a verdict nor a value" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["sub/clipq.toml", "clipq.toml", "sub/pyproject.toml"])
def test_bisect_prints_what_runs_at_the_top_of_the_repository(filled, folder, capsys, place):
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    path = folder / place
    path.parent.mkdir(exist_ok=True)
    table = "tool.clipq." if path.name == "pyproject.toml" else ""
    path.write_text(re.sub(r"^(\[+)", rf"\1{table}", PROJECT, flags=re.MULTILINE))
    assert main(["--config", place, "bisect", CASE, "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["commands"][1]
    inside = "sub/" if place.startswith("sub") else ""
    assert f"rm -f {inside}.clipq/report/bisect/report.json" in run
    assert (f"clipq --config {place} gate" in run) == bool(inside)
    assert f"--report {inside}.clipq/report/bisect --profile full --policy ci" in run


def test_pruning_names_what_would_go_and_removes_it_only_when_told(filled, capsys):
    assert main(["history", "prune", "--keep", "3"]) == 0
    assert "#1" in (shown := capsys.readouterr().out)
    assert "nothing was yet" in shown
    with open_store(filled, root=Path.cwd()) as store:
        assert len(store.runs()) == 4
    assert main(["history", "prune", "--keep", "3", "--yes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["removed"] is True
    assert [info["run"] for info in told["runs"]] == [1]
    assert (told["prediction_tables"], told["prediction_bytes"]) == (1, 1)
    with open_store(filled, root=Path.cwd()) as store:
        assert len(store.runs()) == 3
    assert main(["history", "prune", "--keep", "3", "--yes"]) == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert main(["history", "prune"]) == 2


def test_exported_records_are_recorded_elsewhere_with_their_ids(filled, capsys):
    assert main(["history", "export", "--output", "runs.jsonl"]) == 0
    assert len(Path("runs.jsonl").read_text().splitlines()) == 4
    assert main(["history", "--store", "sqlite:///copy.db", "record", "runs.jsonl"]) == 0
    capsys.readouterr()
    assert main(["history", "list", "--json", "--store", "sqlite:///copy.db"]) == 0
    copied = [info["id"] for info in json.loads(capsys.readouterr().out)]
    assert main(["history", "list", "--json"]) == 0
    assert copied == [info["id"] for info in json.loads(capsys.readouterr().out)]


def test_an_altered_line_of_an_export_is_named(filled, capsys):
    assert main(["history", "export", "#1", "#2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    Path("runs.jsonl").write_text(f"{first}\n{second.replace('0.91', '0.99')}\n")
    assert main(["history", "--store", "sqlite:///copy.db", "record", "runs.jsonl"]) == 2
    assert "runs.jsonl, line 2 was altered" in capsys.readouterr().err


def test_an_empty_export_is_no_run(filled, capsys):
    Path("runs.jsonl").write_text("")
    assert main(["history", "record", "runs.jsonl"]) == 2
    assert "runs.jsonl holds no run" in capsys.readouterr().err


def test_exported_results_are_rows_of_numbers(filled, capsys):
    assert main(["history", "export", "latest", "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [float(row["observed"]) for row in rows] == [0.71 - 0.01 * n for n in range(4)]
    assert {row["verdict"] for row in rows} == {"fail"}
    assert rows[0]["case"] == CASE


def test_an_export_that_fails_leaves_the_file_as_it_was(filled, capsys, monkeypatch):
    Path("runs.csv").write_text("as it was")
    monkeypatch.setattr(
        "clipq.history.store.Store.results", lambda *_: (_ for _ in ()).throw(OSError("no"))
    )
    assert main(["history", "export", "--format", "csv", "--output", "runs.csv"]) == 2
    assert Path("runs.csv").read_text() == "as it was"
    assert [path.name for path in Path().glob("*.tmp")] == []


def test_an_export_into_a_closed_pipe_ends_quietly(filled):
    export = subprocess.Popen(
        [sys.executable, "-m", "clipq", "history", "export"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    export.stdout.close()
    assert export.stderr.read() == ""
    assert export.wait(timeout=60) == 0
    export.stderr.close()


@pytest.mark.parametrize("action", [["list"], ["show"], ["trend", "*"], ["first", "x"], ["export"]])
def test_without_a_store_every_reading_action_says_how_to_make_one(action, capsys):
    assert main(["history", *action]) == 2
    told = capsys.readouterr().err
    assert "no store yet at sqlite:////" in told
    assert "clipq history record REPORT.json" in told
    assert list(Path().iterdir()) == []


def test_an_empty_store_is_no_error_to_list_and_one_to_show(url, capsys):
    open_store(url, root=Path.cwd()).close()
    assert main(["history", "list", "--store", url]) == 0
    assert main(["history", "list", "--store", url, "--json"]) == 0
    assert capsys.readouterr().out.endswith("[]\n")
    assert main(["history", "show", "--store", url]) == 2
    assert "the store is empty" in capsys.readouterr().err


def test_no_command_shows_the_password(filled, capsys, run):
    report = write_report(run(9))
    for command in (
        ["list"],
        ["record", report],
        ["show"],
        ["prune", "--keep", "1"],
        ["trend", "y"],
    ):
        main(["history", *command])
        main(["history", *command, "--store", filled.replace("s3cr", "wr0ng")])
    told = "".join(capsys.readouterr())
    for secret in (PASSWORD, "s3cr", "wr0ng"):
        assert secret not in told


def test_what_a_terminal_would_obey_is_printed_as_an_escape(run, capsys):
    record = run(0)
    commit = {**record.commit, "subject": "\x1b[2Jgone", "branch": "\x07bell"}
    with open_store("sqlite:///.clipq/history.db", root=Path.cwd()) as store:
        store.record(replace(record, commit=commit))
    assert main(["history", "list"]) == 0
    assert main(["history", "show"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b[2Jgone" in shown


@pytest.mark.parametrize(
    "wrong", [["list", "--limit", "0"], ["prune", "--before", "May"], [], ["frobnicate"]]
)
def test_wrong_usage_exits_with_2(wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["history", *wrong])
    assert caught.value.code == 2
    assert "usage: clipq history" in capsys.readouterr().err


def test_help_gives_examples(capsys):
    for command in (["history"], ["bisect"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        assert "examples:" in capsys.readouterr().out
