"""A study from a sweep's units: configurations, draws of calibration data, and the document."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from study_records import study_record

from clipq.errors import StudyError
from clipq.study import (
    MeasuredUnit,
    Measurements,
    answer_claims,
    gather,
    study_document,
    study_rows,
)
from clipq.study.claim_rules import decide
from clipq.study.page_build import study_page
from clipq.study.study_formats import claims_text, table_text
from clipq.study.study_values import study_values, values_text

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


def test_two_definitions_of_a_metric_are_refused_whichever_candidates_they_are_of():
    first, second = unit(PTQ[0]), unit(PTQ[1])
    newer = tuple(replace(one, metric_version=99) for one in second.cases)
    with pytest.raises(StudyError, match=r"definition of .* version 1 and 99"):
        gather([first, replace(second, cases=newer)])


def test_models_of_other_projects_are_asked_on_their_own_probes():
    """Near and far of one, near of the other: its claims are as its table, of near alone."""
    fewer = {key: value for key, value in CHANGES.items() if not key.startswith("far")}
    found = gather([unit(PTQ[0]), unit(PTQ[0], model="siglip", changes=fewer)])
    rows = {row.model: row.finding for row in answer_claims(found).rows if row.name == "C3"}
    assert rows["siglip"].answer == rows["vit"].answer == "reproduced"
    assert rows["siglip"].parts[0][1].value == pytest.approx(CHANGES["near.auroc-mcm"])


def test_a_number_whose_error_is_not_known_stands_without_an_interval_everywhere():
    def unsure(one, metric):
        estimate = replace(one.estimate, standard_error=None)
        return replace(one, estimate=estimate) if one.metric == metric else one

    units = [unit(f"lsq:w4a8,seed={n}@vision", changes=moved(0.01 * n)) for n in range(3)]
    units[2] = replace(units[2], cases=tuple(unsure(one, "ece") for one in units[2].cases))
    plain = unit(PTQ[0])
    found = gather([*units, replace(plain, cases=tuple(unsure(c, "ece") for c in plain.cases))])
    table = {row.quantizer: row.entries[1] for row in study_rows(found)}
    values = {r["configuration"]: r for r in study_values(found) if r["metric"] == "ece"}
    document = study_document(found)["configurations"]
    paged = {each["quantizer"]: each["values"]["ece"] for each in document}
    for text, value in (("lsq:w4a8@vision", 0.085), ("rtn:w8a8@vision", 0.08)):
        numbers = (table[text].value, values[text]["value"], paged[text]["value"])
        assert numbers == pytest.approx((value,) * 3)
    assert values["lsq:w4a8@vision"]["change"] == pytest.approx(0.025)  # of these two seeds
    assert values["lsq:w4a8@vision"]["seeds"] == [0, 1]
    assert table["rtn:w8a8@vision"].cases == ("vit/rtn:w8a8@vision/id.ece",)
    assert table["rtn:w8a8@vision"].low is values["rtn:w8a8@vision"]["low"] is None
    assert paged["rtn:w8a8@vision"]["by_seed"] == [pytest.approx(0.08)]


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, observed=math.nan),
        lambda one: replace(one, baseline=-math.inf),
        lambda one: replace(one, estimate=replace(one.estimate, standard_error=math.inf)),
        lambda one: replace(one, estimate=replace(one.estimate, high=math.inf)),
        lambda one: replace(one, samples=0),
    ],
)
def test_what_is_not_finite_or_has_no_samples_is_not_known(change):
    made = unit("rtn:w4a4@vision")
    found = gather([replace(made, cases=tuple(map(change, made.cases)))])
    json.dumps(study_document(found), allow_nan=False)
    values_text(found, "json")
    claims_text(answer_claims(found), "json")
    table_text(study_rows(found), "json")


def test_what_a_record_adds_to_a_unit_is_not_said_to_be_the_units():
    fewer = {key: value for key, value in CHANGES.items() if key != "blur.top1"}
    for order in (1, -1):
        given = [unit(PTQ[0], changes=fewer), study_record({PTQ[0]: CHANGES})][::order]
        found = gather(given)
        units = {(row["probe"], row["metric"]): row["units"] for row in study_values(found)}
        assert units["blur", "top1"] == [""]
        assert units["id", "top1"] == [given[::order][0].id]
        assert found.units_of([f"vit/{PTQ[0]}/blur.top1"]) == []


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


def test_residuals_at_other_ranks_than_the_models_are_left_out():
    first, second = (unit(text) for text in PTQ[1:])
    other = SPECTRUM | {"rank": [1, 2, 8]}
    figures = second.shared["figures"] | {f"vit/{PTQ[2]}/id": {"spectrum": other}}
    made = study_document(
        gather([first, replace(second, shared=second.shared | {"figures": figures})])
    )
    residuals = {each["quantizer"]: each["residual"] for each in made["configurations"]}
    assert residuals == {PTQ[2]: SPECTRUM["residual"], PTQ[1]: None}
    assert made["models"][0]["spectrum"]["rank"] == [1, 2, 8]
    study_page(made)


def test_claims_of_the_document_lead_to_configurations(document):
    found = {(c["claim"], c["part"], c["model"]): c for c in document["claims"]}
    named = found["C2", "", "vit"]["configurations"]
    assert [document["configurations"][place]["quantizer"] for place in named] == sorted(PTQ)
    assert found["C1", "", "siglip"]["answer"] == "not reproduced"


def test_what_was_not_measured_is_not_looked_for_in_each_configuration_again(monkeypatch):
    looked = Measurements._results
    counts = []

    def counted(*arguments):
        counts[-1] += 1
        return looked(*arguments)

    monkeypatch.setattr(Measurements, "_results", counted)
    for many in (10, 20):
        texts = [f"rtn:w8a8,alpha=0.{n:02}@vision" for n in range(many)]
        measurements = gather([study_record({text: {"id.top1": -0.01} for text in texts})])
        counts.append(0)
        study_rows(measurements)
    assert counts[1] < 2.2 * counts[0]


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
