"""A study from a sweep's units: configurations, draws of calibration data, and the document."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from study_records import study_record

from clipq.errors import StudyError
from clipq.study import MeasuredUnit, answer_claims, gather, study_document, study_rows
from clipq.study.claim_rules import decide
from clipq.study.study_formats import claims_text

PTQ = ("rtn:w8a8@vision", "rtn:w6a8@vision", "rtn:w4a8@vision")
CHANGES = {
    "id.top1": -0.004,
    "id.ece": 0.02,
    "near.auroc-mcm": 0.01,
    "far.auroc-mcm": 0.02,
    "shifted.top1": -0.02,
    "blur.top1": 0.03,
    "corruptions.corruption-error": 0.1,
    "id.sqnr-low": 40.0,
}
SPECTRUM = {"rank": [1, 2, 4], "signal": [1.0, 0.5, 0.1], "residual": [0.01, 0.01, 0.02]}


def unit(quantizer, *, samples=0, seed=0, model="vit", changes=None, **record):
    """A unit of a sweep, as a part holds it: rows without evidence, and theirs beside them."""
    made = study_record({quantizer: changes or CHANGES}, model=model, **record)
    evidence = {kind: dict(entries) for kind, entries in made.evidence().items()}
    facts = {"weight_bits": 8.25, "bytes": 1000}
    known = evidence.get("quantizers", {}).get(f"{model}/{quantizer}", {})
    evidence["quantizers"] = {f"{model}/{quantizer}": {**facts, **known}}
    evidence["figures"][f"{model}/{quantizer}/id"] = {"spectrum": SPECTRUM}
    cases = tuple(replace(one, evidence={}) for one in made.cases)
    return MeasuredUnit(f"{quantizer}#{samples}#{seed}", cases, evidence, samples, seed)


def moved(by):
    return {key: value + by for key, value in CHANGES.items()}


def test_units_answer_what_a_record_of_the_same_cases_answers():
    record = study_record(dict.fromkeys(PTQ, CHANGES))
    of_units = answer_claims(gather(map(unit, PTQ)))
    assert claims_text(of_units, "json") == claims_text(answer_claims(gather([record])), "json")
    answers = {row.name: row.finding.answer.value for row in of_units.rows if row.model}
    assert (answers["C2"], answers["C5 blur: PTQ"]) == ("reproduced", "reproduced")


def test_which_calibration_samples_were_drawn_is_a_seed_and_how_many_another_configuration():
    units = [unit("rtn:w8a8@vision"), unit("rtn:w8a8@vision", samples=64, seed=1)]
    units += [unit("rtn:w8a8@vision", samples=64, seed=2, changes=moved(0.01))]
    units += [unit("rtn:w8a8@vision", samples=256, seed=1, changes=moved(0.02))]
    found = gather(units)
    texts = [each.text for each in found.configurations["vit"]]
    assert texts == [
        "rtn:w8a8@vision",
        "rtn:w8a8@vision (calibration: 256 samples)",
        "rtn:w8a8@vision (calibration: 64 samples)",
    ]
    whole, _, drawn = found.configurations["vit"]
    assert (whole.draws, drawn.draws, drawn.bits, drawn.towers) == (False, True, "w8a8", "vision")
    assert found.seeds("vit", drawn) == (1, 2)
    assert found.units("vit", drawn) == ("rtn:w8a8@vision#64#1", "rtn:w8a8@vision#64#2")
    (row,) = [row for row in study_rows(found) if row.quantizer == drawn.text]
    ece = row.entries[1]
    assert ece.value == pytest.approx(0.06 + 0.025)
    assert "vit/rtn:w8a8@vision/id.ece (calibration: 64 samples, seed 1)" in ece.cases
    # Half of what two seeds differ by, times t of one degree, 12.7, over the root of two.
    assert ece.effect.drawn**0.5 == pytest.approx(0.005)


def test_one_seed_serves_rotation_and_calibration():
    units = [unit(f"quarot:w8a8,seed={seed}@vision", samples=64, seed=seed) for seed in (1, 2)]
    (found,) = gather(units).configurations["vit"]
    assert found.text == "quarot:w8a8@vision (calibration: 64 samples)"


def test_a_unit_in_two_sweeps_counts_once_and_what_differs_is_refused():
    assert len(gather([unit(PTQ[0]), unit(PTQ[0])]).configurations["vit"]) == 1
    with pytest.raises(StudyError, match="two records that differ") as refused:
        gather([unit(PTQ[0]), unit(PTQ[0], changes=moved(0.01))])
    assert "give the plan" in str(refused.value)


@pytest.fixture(scope="module")
def document():
    units = [unit(text) for text in PTQ]
    units += [
        unit(f"lsq:w4a8,seed={seed}@vision", changes=moved(0.001 * seed)) for seed in range(3)
    ]
    units += [unit("rtn:w8a8@vision", model="siglip", bias=-0.1)]
    known = {units[0].id: 2.0, **{each.id: 10.0 * at for at, each in enumerate(units[3:6])}}
    return study_document(gather(units), seconds=known, provenance={"sweeps": ["plan"]})


def test_the_document_is_strict_json_and_numbers_lead_to_units(document):
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    trained = next(c for c in document["configurations"] if c["id"] == "vit/lsq:w4a8@vision")
    assert (trained["kind"], trained["bits"], trained["seeds"]) == ("qat", "w4a8", [0, 1, 2])
    assert trained["units"] == [f"lsq:w4a8,seed={seed}@vision#0#0" for seed in range(3)]
    ece = trained["values"]["ece"]
    assert ece["by_seed"] == pytest.approx([0.08, 0.081, 0.082])
    assert ece["change"] == pytest.approx(0.021)
    half = (1.96 * ece["sampling"]) ** 2 + (4.302653 * ece["drawn"]) ** 2
    assert ece["high"] - ece["change"] == pytest.approx(half**0.5, rel=1e-4)
    assert trained["costs"]["weight-bits"] == 8.25
    assert (trained["costs"]["nominal-bits"], trained["costs"]["activation-bits"]) == (4.0, 8.0)
    assert trained["costs"]["unit-seconds"] == 10.0
    assert trained["residual"] == SPECTRUM["residual"]


def test_the_document_says_what_figures_set_against_each_other(document):
    columns = {column["key"] for column in document["columns"]}
    assert all({each["x"], each["y"]} <= columns | {"bias"} for each in document["figures"])
    models = {model["name"]: model for model in document["models"]}
    assert models["vit"]["bias"]["low"] > 0 > models["siglip"]["bias"]["high"]
    assert models["vit"]["spectrum"] == {"rank": [1, 2, 4], "signal": [1.0, 0.5, 0.1]}
    assert models["vit"]["fp32"]["top1"] == 0.86
    values = document["configurations"][-1]["values"]
    assert values["auroc-mcm"]["change"] == pytest.approx(0.015)
    assert values["top1.shift"]["change"] == pytest.approx(-0.02)
    assert values["sqnr-low"]["change"] is None


def test_claims_of_the_document_lead_to_configurations(document):
    found = {(c["claim"], c["part"], c["model"]): c for c in document["claims"]}
    named = found["C2", "", "vit"]["configurations"]
    assert [document["configurations"][place]["quantizer"] for place in named] == sorted(PTQ)
    assert found["C1", "", "siglip"]["answer"] == "not reproduced"


def test_how_often_options_are_weighed_does_not_grow_with_how_many_there_are(monkeypatch):
    """A sweep has hundreds of them: weighing all once for each would take hours."""
    counts = []

    def counted(*arguments, **options):
        counts[-1] += 1
        return decide(*arguments, **options)

    monkeypatch.setattr("clipq.study.claim_table.decide", counted)
    for texts in (PTQ, [f"{text[:-7]},alpha=0.{n}@vision" for text in PTQ for n in range(1, 5)]):
        measurements = gather([study_record(dict.fromkeys(texts, CHANGES))])
        counts.append(0)
        answer_claims(measurements)
    assert counts[0] == counts[1] > 0
