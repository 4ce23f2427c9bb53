"""`clipq study`: records in, answers out; what it cannot use, it says."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_records import study_record

from clipq.cli import main
from clipq.evaluation.tables import as_table, table_content
from clipq.history.store import open_store
from clipq.metrics import Predictions, metrics

SEEDS = [f"quarot:w8a8,seed={seed}@vision" for seed in range(3)]
KEYS = ("id.top1", "id.ece", "near.auroc-mcm", "far.auroc-mcm", "id.sqnr-low")


def changes(*values):
    return dict(zip(KEYS, values, strict=True))


RTN = {"rtn:w8a8@vision": changes(-0.001, 0.02, 0.01, 0.03, 40.0)}
ROTATED = {
    text: changes(0.01 + 0.001 * seed, -0.01, 0.0, 0.0, 42.0) for seed, text in enumerate(SEEDS)
}


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # outside of any project: no settings are needed
    for name, own in (("rtn", RTN), ("rotated", ROTATED)):
        plain = study_record(own).to_plain()
        (tmp_path / f"{name}.json").write_text(json.dumps(plain, allow_nan=False))
    return ["rtn.json", "rotated.json"]


def test_claims_are_printed_and_written(records, capsys, tmp_path):
    assert main(["study", "claims", *records]) == 0
    said = capsys.readouterr().out
    assert "C3" in said
    assert "FP32's mean confidence - accuracy in distribution: vit +0.050" in said
    assert main(["study", "claims", *records, "--format", "json", "--output", "claims.json"]) == 0
    plain = json.loads((tmp_path / "claims.json").read_text())
    answers = {(c["claim"], c["part"], c["model"]): c["answer"] for c in plain["claims"]}
    assert answers["C3", "", "vit"] == answers["C3", "", None] == "reproduced"
    assert answers["C2", "", "vit"] == "reproduced"  # on average over the two
    assert capsys.readouterr().out.startswith("written: claims.json")


@pytest.mark.parametrize("action", [["claims"], ["table"], ["advise", "vit"]])
def test_text_is_as_wide_as_the_terminal_and_whole_in_a_file(records, capsys, monkeypatch, action):
    asked = ["study", *action, *records]
    assert main(asked) == 0
    piped = capsys.readouterr().out
    assert max(map(len, piped.splitlines())) > 100
    for width in (100, 80, 40):
        monkeypatch.setattr("clipq.cli.study_sources.shown_width", lambda width=width: width)
        assert main(asked) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
        assert not any(line.endswith(" ") for line in lines)
        for form in () if action[0] == "advise" else ("markdown", "csv"):
            assert main([*asked, "--format", form]) == 0
            assert max(map(len, capsys.readouterr().out.splitlines())) > 100
    assert main([*asked, "--output", "said.txt"]) == 0
    assert Path("said.txt").read_text() == piped


def test_the_table_has_means_over_seeds_with_intervals_of_the_change(records, capsys):
    assert main(["study", "table", *records, "--format", "csv"]) == 0
    rows = {
        (row["quantizer"], row["column"]): row
        for row in csv.DictReader(capsys.readouterr().out.splitlines())
    }
    assert float(rows["fp32", "AUROC far"]["value"]) == 0.88
    drawn = rows["quarot:w8a8@vision", "top-1"]
    assert float(drawn["value"]) == pytest.approx(0.871)
    # The error of the samples, 0.001, and of three seeds: S / sqrt 3 times t of 2 degrees.
    half = ((1.96 * 0.001) ** 2 + (4.302653 * 0.001 / 3**0.5) ** 2) ** 0.5
    assert float(drawn["low"]) == pytest.approx(0.011 - half, abs=1e-6)
    assert (drawn["seeds"], drawn["better"], drawn["worse"]) == ("3", "True", "False")
    assert rows["rtn:w8a8@vision", "ECE"]["worse"] == "True"
    assert rows["rtn:w8a8@vision", "SQNR 0-8"]["value"] == "40.0"
    assert ("rtn:w8a8@vision", "corruption error") not in rows


def test_rows_of_the_table_are_chosen_by_globs_and_fp32_stays(records, capsys):
    def shown(*arguments):
        code = main(["study", "table", *records, "--format", "csv", *arguments])
        said = capsys.readouterr()
        return code, {row["quantizer"] for row in csv.DictReader(said.out.splitlines())}, said.err

    rotated = {"fp32", "quarot:w8a8@vision"}
    assert shown("--quantizer", "quarot*", "--model", "v?t")[:2] == (0, rotated)
    assert shown("--quantizer", "quarot*", "--quantizer", "rtn*")[1] == rotated | RTN.keys()
    code, none, said = shown("--quantizer", "rtn:w4*")
    assert (code, none) == (2, set())
    assert "--quantizer rtn:w4*: no quantizer of this study is called so" in said
    assert "there are: quarot:w8a8@vision, rtn:w8a8@vision" in said
    assert "--model resnet: no model of this study" in shown("--model", "resnet")[2]


def test_what_is_surely_better_is_bold_in_markdown_and_starred_in_text(records, capsys):
    main(["study", "table", *records, "--format", "markdown"])
    markdown = capsys.readouterr().out
    assert "**0.871** [+0.008, +0.014]" in markdown
    assert "Bold: surely better than FP32" in markdown
    main(["study", "table", *records])
    text = capsys.readouterr().out
    assert "0.871* [" in text
    assert "0.080- [" in text


def test_names_from_elsewhere_stay_names_in_every_form(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = {"rtn:w8a8,keep=a|b`<i>@vision": changes(-0.001, 0.02, 0.01, 0.03, 40.0)}
    for name, model in (("a", "=1+1"), ("b", "red\x1b[31m|\nnext")):
        plain = study_record(own, model=model).to_plain()
        (tmp_path / f"{name}.json").write_text(json.dumps(plain))
    given = ["a.json", "b.json"]

    def said(*arguments):
        assert main(["study", *arguments]) == 0
        return capsys.readouterr().out

    for action in ("claims", "table"):
        text, markdown = (said(action, *given, "--format", f) for f in ("text", "markdown"))
        assert "\x1b" not in text + markdown
        assert "red\\x1b[31m| next" in text
        rows = [line for line in markdown.splitlines() if line.startswith("|")]
        assert len({line.replace(r"\|", "").count("|") for line in rows}) == 1
    assert r"`rtn:w8a8,keep=a\|b'<i>@vision`" in markdown
    for action in ("claims", "table", "values"):
        records = list(csv.DictReader(io.StringIO(said(action, *given, "--format", "csv"))))
        assert "'=1+1" in {row["model"] for row in records}
    advised = said("advise", "=1+1", *given)
    assert "rtn:w8a8,keep=a|b`<i>@vision" in advised


def test_a_name_that_the_output_cannot_encode_is_no_reason_to_end(records, monkeypatch):
    plain = study_record(RTN, model="m\xfcll").to_plain()
    Path("umlaut.json").write_text(json.dumps(plain))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    assert main(["study", "table", "umlaut.json", "--format", "csv"]) == 0
    stream.flush()
    assert rb"m\xfcll,rtn:w8a8@vision" in stream.buffer.getvalue()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["nowhere.json"], "nowhere.json"),
        (["old.json"], "schema = 'clipq-run/5'"),
        (["rtn.json", "other.json"], "records differ in FP32's values: vit id.ece"),
        (["empty.json"], "without a quantized candidate"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(given, words, records, capsys, tmp_path):
    plain = study_record(RTN).to_plain()
    (tmp_path / "old.json").write_text(json.dumps(plain | {"schema": "clipq-run/5"}))
    other = study_record(ROTATED, baseline={"id.ece": 0.08}).to_plain()
    (tmp_path / "other.json").write_text(json.dumps(other))
    fp32 = study_record({"fp32": changes(0.0, 0.0, 0.0, 0.0, 40.0)}).to_plain()
    (tmp_path / "empty.json").write_text(json.dumps(fp32))
    assert main(["study", "claims", *given]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "fix:" in said


def test_help_teaches(capsys):
    for action in ([], ["claims"], ["table"]):
        with pytest.raises(SystemExit):
            main(["study", *action, "--help"])
        assert "clipq study claims records/*.json" in capsys.readouterr().out


def test_candidates_whose_predictions_the_store_keeps_are_paired(tmp_path, monkeypatch, capsys):
    """The same samples, each more confident by 0.03: added errors cannot tell, paired ones can."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.5, 0.9, 800)
    shared = {"correct": (rng.uniform(size=800) < confidence - 0.1).astype(np.int64)}
    shared |= {"id": np.array([f"{i:05d}" for i in range(800)]), "rank": 1 - shared["correct"]}
    tables = {
        text: Predictions(shared | {"confidence": confidence + more}, {})
        for text, more in (("rtn:w8a8@vision", 0.0), ("rtn:w8a8", 0.03))
    }
    ece = {text: metrics.get("ece").compute(table, table) for text, table in tables.items()}
    made = study_record({text: {"id.ece": x - 0.06} for text, x in ece.items()}, error=0.02)
    stored = {
        f"vit/{text}/id": table_content(*as_table(table, {})) for text, table in tables.items()
    }
    entries = {cell: {"sha256": digest, "key": digest} for cell, (_, digest) in stored.items()}
    first, *rest = made.cases
    evidence = {**first.evidence, "predictions": entries}
    statistics = {"alpha": 0.05, "replicates": 200, "seed": 1, "correction": "holm"}
    record = replace(made, cases=(replace(first, evidence=evidence), *rest), statistics=statistics)
    with open_store("sqlite:///runs.db", root=tmp_path, create=True) as store:
        store.record(record, {cell: content for cell, (content, _) in stored.items()})

    def answered(*options):
        given = ["latest", "--store", "sqlite:///runs.db", "--format", "csv", *options]
        assert main(["study", "claims", *given]) == 0
        rows = csv.DictReader(capsys.readouterr().out.splitlines())
        row = next(r for r in rows if (r["claim"], r["part"], r["model"]) == ("C9", "text", "vit"))
        return row["answer"], float(row["high"]) - float(row["low"])

    answer, paired = answered()
    assert answer == "reproduced"
    answer, added = answered("--no-pairing")
    assert answer == "undecided"
    assert added == pytest.approx(2 * 1.96 * 0.04, rel=1e-3)
    assert paired < added / 4
