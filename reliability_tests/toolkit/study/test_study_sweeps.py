"""`clipq study --sweep`: a sweep's folder in, claims, values and advice out."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from study_records import FP32, PROBES, study_record

from clipq.cli import main
from clipq.sweep.attempts import Attempts
from clipq.sweep.executor import Outcome
from clipq.sweep.part_store import PartStore
from clipq.sweep.units import CalibrationDraw, Unit

KEYS = ("id.top1", "id.ece", "near.auroc-mcm", "far.auroc-mcm")
GOOD, BAD = (-0.001, 0.001, 0.0, 0.0), (-0.2, 0.1, -0.1, -0.1)
SWEEP = {
    Unit("vit", "rtn:w8a8@vision"): (8.25, GOOD),
    Unit("vit", "rtn:w4a8@vision"): (4.25, BAD),
    Unit("vit", "smoothquant:w8a8@vision"): (8.25, (-0.03, 0.03, 0.0, 0.0)),
    Unit("vit", "rtn:w6a8@vision", CalibrationDraw(64, 1)): (6.25, GOOD),
    Unit("vit", "rtn:w6a8@vision", CalibrationDraw(64, 2)): (6.25, (-0.0012, 0.0012, 0.0, 0.0)),
}


def committed(store, unit, bits, values):
    made = study_record({unit.quantizer: dict(zip(KEYS, values, strict=True))})
    evidence = made.evidence()
    facts = {"code_sha256": "0f", "weight_bits": bits, "bytes": int(1000 * bits)}
    evidence["quantizers"] = {str(unit.candidate): facts}
    store.commit(unit, [replace(one, evidence={}) for one in made.cases], evidence=evidence)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # outside of any project: no settings are needed
    store = PartStore(tmp_path / "sweep")
    attempts = Attempts(tmp_path / "sweep" / "attempts")
    for place, (unit, (bits, values)) in enumerate(SWEEP.items()):
        committed(store, unit, bits, values)
        attempts.add(Outcome(unit, "no memory", seconds=50.0))
        attempts.add(Outcome(unit, seconds=1.0 + place))
    return tmp_path / "sweep"


def said(capsys, *arguments, code=0):
    assert main(["study", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_a_sweep_that_is_given_as_a_record_is_told_how_it_is_given(folder, capsys):
    told = said(capsys, "claims", folder, code=2)
    assert f"{folder} is no record" in told
    assert f"--sweep {folder}" in told


def test_a_warning_from_a_shell_is_one_line(folder):
    (folder / "parts" / "copy").write_text("")
    command = [sys.executable, "-m", "clipq", "sweep", "query", str(folder), "SELECT 1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    place = folder / "parts" / "copy"
    assert done.stderr == f"clipq: no parts of units, and not counted: {place}\n"


def test_what_thrift_dropped_is_told(folder, capsys):
    assert main(["study", "table", "--sweep", str(folder)]) == 0
    assert "thrift" not in capsys.readouterr().err
    dropped = {
        "unit_id": "0f",
        "name": "vit/quarot:w4a8,seed=1",
        "loss": 0.2,
        "cut": 0.1,
        "seeds": 1,
    }
    (folder / "thrift.jsonl").write_text(f"{json.dumps(dropped)}\n" * 2)
    assert main(["study", "table", "--sweep", str(folder)]) == 0
    assert "2 units were dropped by the plan's [thrift]" in capsys.readouterr().err


def test_configurations_that_lack_a_probe_of_a_column_are_told(folder, capsys, monkeypatch):
    assert main(["study", "table", "--sweep", str(folder)]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(PROBES, "farther", PROBES["far"])
    monkeypatch.setitem(FP32, "farther.auroc-mcm", 0.9)
    more = study_record({"gptq:w4@vision": {"id.top1": -0.001, "farther.auroc-mcm": 0.0}})
    (folder.parent / "more.json").write_text(json.dumps(more.to_plain()))
    told = "AUROC far of vit is the mean over far, farther; 5 configurations lack one of them"
    for action in (["table"], ["page", "--format", "json"], ["advise", "vit"]):
        assert main(["study", *action, "more.json", "--sweep", str(folder)]) == 0
        assert told in capsys.readouterr().err


def test_claims_of_a_sweep_name_its_units(folder, capsys):
    plain = json.loads(said(capsys, "claims", "--sweep", folder, "--format", "json"))
    (c2,) = [c for c in plain["claims"] if (c["claim"], c["model"]) == ("C2", "vit")]
    assert c2["answer"] == "reproduced"
    assert set(c2["units"]) == {unit.id for unit in SWEEP}


def test_a_record_and_a_sweep_are_put_together_and_contradictions_are_named(folder, capsys):
    more = study_record({"gptq:w4@vision": dict(zip(KEYS, GOOD, strict=True))})
    (folder.parent / "more.json").write_text(json.dumps(more.to_plain()))
    table = said(capsys, "table", "more.json", "--sweep", folder, "--format", "csv")
    rows = {(row["quantizer"], row["column"]): row for row in csv.DictReader(table.splitlines())}
    assert rows["gptq:w4@vision", "ECE"]["units"] == ""
    drawn = rows["rtn:w6a8@vision (calibration: 64 samples)", "ECE"]
    assert (drawn["seeds"], len(drawn["units"].split())) == ("2", 2)
    other = study_record({"gptq:w4@vision": dict(zip(KEYS, GOOD, strict=True))}, fingerprint="ef")
    (folder.parent / "other.json").write_text(json.dumps(other.to_plain()))
    assert "samples of probe" in said(capsys, "table", "other.json", "--sweep", folder, code=2)


def test_the_long_table_has_every_probe_and_metric_with_fp32_and_units(folder, capsys):
    rows = list(csv.DictReader(said(capsys, "values", "--sweep", folder).splitlines()))
    assert len(rows) == 4 * len(KEYS)
    drawn = next(
        row
        for row in rows
        if row["calibration_samples"] == "64" and (row["probe"], row["metric"]) == ("id", "ece")
    )
    assert (drawn["fp32"], drawn["seeds"], drawn["unit"]) == ("0.06", "1 2", "fraction")
    assert float(drawn["value"]) == pytest.approx(0.0611)
    assert float(drawn["low"]) < float(drawn["change"]) < float(drawn["high"])
    parts = [unit.id for unit in SWEEP if unit.calibration.samples]
    assert drawn["units"].split() == parts


def test_the_document_knows_where_it_comes_from_and_what_units_took(folder, capsys):
    found = json.loads(said(capsys, "page", "--sweep", folder, "--format", "json"))
    (sweep,) = found["provenance"]["sweeps"]
    assert (sweep["units"], sweep["missing"], sweep["dropped_by_thrift"]) == (5, 0, 0)
    seconds = {c["quantizer"]: c["costs"]["unit-seconds"] for c in found["configurations"]}
    assert seconds["rtn:w8a8@vision"] == 1.0
    assert seconds["rtn:w6a8@vision (calibration: 64 samples)"] == 4.5


@pytest.mark.parametrize("large", [1e308, 9.9e99])
@pytest.mark.parametrize("where", ["observed", "error", "margin", "evidence", "seconds"])
def test_numbers_that_cannot_be_added_up_end_nothing(folder, capsys, large, where):
    store = PartStore(folder)
    for unit in SWEEP:
        part = store.read(unit.id)
        if unit.calibration.samples:
            store.path(unit.id).unlink()
            cases, evidence = part.results, dict(part.evidence)
            if where == "evidence":
                bins = dict.fromkeys(("samples", "confidence", "accuracy"), [large] * 10)
                spectrum = {"rank": [1, 2], "signal": [large] * 2, "residual": [large] * 2}
                evidence["figures"] = {
                    "vit/fp32/id": {"calibration": bins},
                    f"{unit.candidate}/id": {"spectrum": spectrum},
                }
                facts = {"bytes": abs(large), "weight_bits": abs(large)}
                evidence["quantizers"] = {str(unit.candidate): facts}
            elif where != "seconds":
                cases = [_with(one, where, large) for one in cases]
            store.commit(unit, cases, evidence=evidence)
            Attempts(folder / "attempts").add(Outcome(unit, seconds=abs(large)))
    actions = {"claims": ("text", "csv"), "table": ("text", "csv"), "page": ("html",)}
    for name, forms in (actions | {"values": ("csv",), "advise": ("text",)}).items():
        for form in (*forms, "json"):
            own = [name, "vit"] if name == "advise" else [name]
            assert main(["study", *own, "--sweep", str(folder), "--format", form]) == 0
            captured = capsys.readouterr()
            told = (
                "8 results have a number beyond 1e+100, which counts as not measured: vit/rtn:w6a8"
            )
            beyond = where in ("observed", "error", "margin") and abs(large) > 1e100
            assert (told in captured.err) is beyond
            if form == "json":
                json.loads(captured.out, parse_constant=pytest.fail)


def _with(case, where, large):
    estimate = case.estimate
    if where == "observed":
        return replace(case, observed=large, estimate=replace(estimate, loss=large))
    if where == "margin":
        return replace(case, estimate=replace(estimate, margin=abs(large)))
    bounds = {"low": -abs(large), "high": abs(large), "standard_error": abs(large)}
    return replace(case, estimate=replace(estimate, **bounds))


def test_advice_is_by_margins_and_says_how_sure_it_is(folder, capsys):
    text = said(capsys, "advise", "vit", "--sweep", folder)
    first, *_ = [line for line in text.splitlines() if "rtn:" in line]
    assert first.split()[:2] == ["rtn:w6a8@vision", "(calibration:"]  # as good, and smaller
    asked = ("advise", "vit", "--sweep", folder, "--format", "json")
    found = {c["quantizer"]: c for c in json.loads(said(capsys, *asked))["configurations"]}
    answers = {text: each["answer"] for text, each in found.items()}
    assert answers["rtn:w8a8@vision"] == "surely"
    assert answers["rtn:w4a8@vision"] == answers["smoothquant:w8a8@vision"] == "surely not"
    assert found["smoothquant:w8a8@vision"]["over"] == ["top1", "ece"]
    assert found["rtn:w4a8@vision"]["front"] == 1.0  # nothing is as small
    assert found["smoothquant:w8a8@vision"]["front"] == 0.0
    lax = json.loads(said(capsys, *asked, "--margin", "top1=0.1", "--margin", "ece=0.1"))
    answers = {c["quantizer"]: c["answer"] for c in lax["configurations"]}
    assert answers["smoothquant:w8a8@vision"] == "surely"
    assert lax["margins"]["ece"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["claims"], "neither a record nor a sweep"),
        (["claims", "--sweep", "nowhere"], "there is no sweep nowhere"),
        (["claims", "--sweep", "."], "there is no sweep ."),
        (["claims", "--sweep", "begun"], "no unit of begun is done yet"),
        (["advise", "vti", "--sweep", "sweep"], "vit"),
        (["advise", "vit", "--sweep", "sweep", "--margin", "ece"], "--margin ece is no margin"),
        (["advise", "vit", "--sweep", "sweep", "--margin", "ece=-1"], "is no margin"),
        (["advise", "vit", "--sweep", "sweep", "--margin", "ece=1e-320"], "is no margin"),
        (["advise", "vit", "--sweep", "sweep", "--margin", "ecc=1"], "'ecc' is no criterion"),
        (
            ["advise", "vit", "--sweep", "sweep", "--margin", "relative-gap=0.1"],
            "--margin relative-gap: no configuration of vit has a change of it",
        ),
        (["advise", "vit", "--sweep", "sweep", "--cost", "price"], "is no cost"),
    ],
)
def test_what_cannot_be_used_is_refused(folder, capsys, arguments, words):
    begun = folder.parent / "begun"
    begun.mkdir()
    (begun / "sweep.json").write_text("{}")
    told = said(capsys, *arguments, code=2)
    assert words in told
    assert "fix:" in told


def test_a_damaged_part_is_refused_by_its_name(folder, capsys):
    path = next(iter(PartStore(folder).paths()))
    path.write_bytes(path.read_bytes()[:-100])
    assert path.name in said(capsys, "claims", "--sweep", folder, code=2)
