"""Each claim of the study: surely reproduced, surely not, undecided, and not to be asked."""

from __future__ import annotations

import json

import pytest
from study_records import OVER, UNDER, study_record

from clipq.errors import StudyError
from clipq.records import read_run
from clipq.study import answer_claims, gather
from clipq.study.study_formats import claims_text

YES, NO, OPEN = "reproduced", "not reproduced", "undecided"
QAT = [f"lsq:w4a8,objective=distil,seed={seed}@vision" for seed in range(3)]
ROTATED = [f"rot+lsq:w8a8,seed={seed}@vision" for seed in range(3)]
PTQ = ("rtn:w8a8@vision", "rtn:w6a8@vision", "rtn:w4a8@vision")
BOTH = "rtn:w8a8"


def answer(claim, changes, *, model="vit", **record):
    """The answer of one claim, about one model."""
    table = answer_claims(gather([study_record(changes, model=model, **record)]))
    (row,) = [row for row in table.rows if row.model == model and row.name == claim]
    return row


def over_seeds(texts, values, *keys):
    """The same changes of each seed, moved a little between seeds."""
    return {
        text: dict(zip(keys, (value + 0.0005 * (seed - 1) for value in values), strict=True))
        for seed, text in enumerate(texts)
    }


def of_all(texts, **changes):
    named = {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    return dict.fromkeys(texts, named)


def c3(auroc, ece, others=0):
    """One quantizer that changes detection and calibration, and many that change nothing."""
    still = {"near.auroc-mcm": 0.0, "far.auroc-mcm": 0.0, "id.ece": 0.0}
    one = {"near.auroc-mcm": auroc, "far.auroc-mcm": auroc, "id.ece": ece}
    return {"rtn:w4a8@vision": one} | {f"rtn:w8g{n}a8@vision": still for n in range(2, 2 + others)}


def c4(top1, ece, auroc):
    keys = ("id.top1", "id.ece", "near.auroc-mcm", "far.auroc-mcm")
    return over_seeds(QAT, (top1, ece, auroc, auroc), *keys)


def c5(quantized, noise):
    noises = [f"noise:w4a8,seed={seed}@vision" for seed in range(3)]
    return {"rtn:w4a8@vision": {"blur.top1": quantized}} | over_seeds(noises, (noise,), "blur.top1")


def c9(vision, both, tuned):
    texts = ("rtn:w8a8@vision", BOTH, f"{BOTH}+logit-scale")
    return {text: {"id.ece": ece} for text, ece in zip(texts, (vision, both, tuned), strict=True)}


def c10(trained, plain):
    return over_seeds(QAT, (trained,), "id.ece") | {"rtn:w4a8@vision": {"id.ece": plain}}


def sqnr(low, middle, high):
    own = {"id.sqnr-low": low, "id.sqnr-mid": middle, "id.sqnr-high": high}
    return dict.fromkeys(PTQ, own)


CASES = [
    ("C1", YES, of_all(PTQ, id__ece=-0.02), {"bias": UNDER}),
    ("C1", NO, of_all(PTQ, id__ece=0.001), {"bias": UNDER}),
    ("C1", OPEN, of_all(PTQ, id__ece=-0.005), {"bias": UNDER, "error": 0.01}),
    ("C2", YES, of_all(PTQ, id__ece=0.02), {"bias": OVER}),
    ("C2", NO, of_all(PTQ, id__ece=-0.02), {"bias": OVER}),
    ("C2", OPEN, of_all(PTQ, id__ece=0.02), {"bias": 0.0}),
    ("C3", YES, c3(0.01, 0.02), {}),
    ("C3", NO, c3(-0.01, 0.02), {}),
    ("C3", OPEN, c3(0.01, 0.02), {"error": 0.02}),
    ("C4", YES, c4(0.02, -0.02, 0.02), {}),
    ("C4", NO, c4(0.02, 0.02, 0.02), {}),
    ("C4", OPEN, c4(0.02, -0.02, 0.02), {"error": 0.02}),
    ("C5 blur: PTQ", YES, c5(0.02, 0.0), {}),
    ("C5 blur: PTQ", NO, c5(-0.02, 0.0), {}),
    ("C5 blur: PTQ beyond noise", YES, c5(0.02, 0.0), {}),
    ("C5 blur: PTQ beyond noise", NO, c5(0.02, 0.02), {}),
    ("C5 blur: PTQ beyond noise", OPEN, c5(0.02, 0.0), {"error": 0.01}),
    ("C5 blur: QAT", YES, over_seeds(QAT, (0.02,), "blur.top1"), {}),
    ("C5 blur: QAT", NO, over_seeds(QAT, (0.0,), "blur.top1"), {}),
    ("C5 blur: noise alone", YES, c5(0.0, 0.02), {}),
    ("C6 shift", YES, of_all(PTQ, shifted__top1=-0.01), {}),
    ("C6 shift", NO, of_all(PTQ, shifted__top1=0.02), {}),
    ("C6 shift", OPEN, of_all(PTQ, shifted__top1=0.005), {"error": 0.01}),
    ("C6 relative gap, simple PTQ", YES, of_all(PTQ, backgrounds__relative_gap=0.03), {}),
    ("C6 relative gap, simple PTQ", NO, of_all(PTQ, backgrounds__relative_gap=-0.03), {}),
    ("C6 relative gap, simple PTQ", OPEN, of_all(PTQ, backgrounds__relative_gap=0), {"error": 0.1}),
    *(
        (
            "C6 relative gap, Rot+LSQ w8a8",
            expected,
            over_seeds(ROTATED, (gap,), "backgrounds.relative-gap"),
            {},
        )
        for expected, gap in ((YES, 0.001), (NO, 0.04), (OPEN, 0.0201))
    ),
    ("C7", YES, of_all(["rtn:w4a4@vision"], id__top1=-0.6), {}),
    ("C7", NO, of_all(["rtn:w4a4@vision"], id__top1=-0.1), {}),
    ("C7", OPEN, of_all(["rtn:w4a4@vision"], id__top1=-0.43), {}),
    ("C8 SQNR", YES, sqnr(40.0, 30.0, 10.0), {"error": 0.5}),
    ("C8 SQNR", NO, sqnr(40.0, 30.0, 35.0), {"error": 0.5}),
    ("C8 SQNR", OPEN, sqnr(40.0, 30.0, 28.0), {"error": 5.0}),
    ("C8 high ranks, PTQ", YES, of_all(PTQ, id__tail_energy=-0.006), {}),
    ("C8 high ranks, PTQ", NO, of_all(PTQ, id__tail_energy=0.006), {}),
    ("C8 bands, QAT", YES, over_seeds(QAT, (0.02, -0.02), "id.top1-low", "id.top1-high"), {}),
    ("C8 bands, QAT", NO, over_seeds(QAT, (0.02, 0.02), "id.top1-low", "id.top1-high"), {}),
    ("C9 text", YES, c9(0.0, 0.03, 0.0), {}),
    ("C9 text", NO, c9(0.0, -0.03, 0.0), {}),
    ("C9 text", OPEN, c9(0.0, 0.03, 0.0), {"error": 0.02}),
    ("C9 repair", YES, c9(0.0, 0.03, -0.01), {}),
    ("C9 repair", NO, c9(0.0, 0.03, 0.02), {}),
    ("C9 repair", OPEN, c9(0.0, 0.03, 0.004), {}),
    ("C10", YES, c10(-0.01, 0.02), {}),
    ("C10", NO, c10(0.02, -0.01), {}),
    ("C10", OPEN, c10(-0.01, 0.02), {"error": 0.02}),
]


@pytest.mark.parametrize(
    ("claim", "expected", "changes", "record"),
    CASES,
    ids=[f"{claim}-{expected}" for claim, expected, *_ in CASES],
)
def test_a_claim_is_answered_as_its_effects_are(claim, expected, changes, record):
    row = answer(claim, changes, **record)
    assert row.finding.answer.value == expected
    if expected == OPEN:
        assert row.finding.parts or row.finding.reason
    else:
        assert row.finding.cases
        assert row.finding.p_value <= 0.025


def test_what_cannot_be_asked_says_what_it_needs():
    table = answer_claims(gather([study_record({"fp8:we4m3@vision": {"id.top1": 0.0}})]))
    asked = {row.statement.claim for row in table.rows}
    assert asked == {f"C{number}" for number in range(1, 11)}
    for row in table.rows:
        assert row.finding.answer.value == OPEN
        assert "needs" in row.finding.reason or "about under" in row.finding.reason


def test_a_claim_about_other_models_is_not_counted_against_this_one():
    row = answer("C1", of_all(PTQ, id__ece=0.02), bias=OVER)
    assert not row.about
    assert "over-confident (+0.050" in row.finding.reason


def test_one_seed_of_what_is_drawn_answers_nothing():
    row = answer("C4", {QAT[0]: c4(0.1, -0.1, 0.1)[QAT[0]]})
    assert row.finding.answer.value == OPEN
    assert "two seeds" in row.finding.reason
    assert row.finding.left_out == ("lsq:w4a8,objective=distil@vision",)


def test_a_method_of_a_third_party_counts_by_what_its_records_say():
    """Trained, or drawn by the seeds that its texts name; the first may be named by none."""
    theirs = {text.replace("lsq", "theirs"): ece for text, ece in c10(-0.01, 0.02).items()}
    row = answer("C10", theirs)
    assert (row.finding.answer.value, row.finding.parts[0][1].seeds) == (YES, 3)
    drawn = ["mine:w8a8@vision", "mine:w8a8,seed=1@vision"]
    row = answer("C2", over_seeds(drawn, (0.02,), "id.ece"))
    assert (row.finding.answer.value, row.finding.parts[0][1].seeds) == (YES, 2)


def test_what_seeds_do_counts_and_not_only_the_mean():
    values = {text: {"id.ece": ece} for text, ece in zip(QAT, (-0.05, 0.0, 0.02), strict=True)}
    plain = {"rtn:w4a8@vision": {"id.ece": 0.02}}
    assert answer("C10", values | plain).finding.answer.value == OPEN
    same = {text: {"id.ece": -0.01} for text in QAT}
    assert answer("C10", same | plain).finding.answer.value == YES


def test_the_best_of_many_is_corrected_for_how_many_were_looked_at():
    """A change of three standard errors: sure of one quantizer, of the best of forty it is not."""
    for others, expected in ((0, YES), (39, OPEN)):
        row = answer("C3", c3(0.003, 0.003, others), error=0.001)
        assert (row.finding.answer.value, row.finding.looks) == (expected, others + 1)
    assert row.finding.option == "rtn:w4a8@vision"
    alone = answer("C3", c3(0.003, 0.003), error=0.001)
    (_, _, (low, _)), (_, _, (corrected, _)) = alone.finding.parts[0], row.finding.parts[0]
    assert corrected < low


def test_all_models_together():
    changes = of_all(PTQ, id__ece=-0.02)
    under = [study_record(changes, model=name, bias=UNDER) for name in ("a", "b")]
    other = study_record(of_all(PTQ, id__ece=0.02), model="c", bias=UNDER)
    confident = study_record(of_all(PTQ, id__ece=0.02), model="d", bias=OVER)

    def overall(*records):
        rows = answer_claims(gather(records)).rows
        return next(row.finding for row in rows if not row.model and row.name == "C1")

    assert overall(*under, confident).answer.value == YES
    assert overall(*under, other).answer.value == NO
    assert overall(confident).answer.value == OPEN
    assert "models: 2 reproduced" in overall(*under, confident).reason


def test_paired_errors_take_the_place_of_added_ones():
    changes = c9(0.0, 0.01, 0.0)
    measurements = gather(
        [study_record(changes, error=0.01)], paired=lambda one, other: one.estimate
    )
    assert answer("C9 text", changes, error=0.01).finding.answer.value == OPEN
    seen = []

    class Exact:
        standard_error = 0.001

    def paired(one, other):
        seen.append((one.quantizer, other.quantizer))
        return Exact

    rows = answer_claims(gather([study_record(changes, error=0.01)], paired=paired)).rows
    (row,) = [row for row in rows if row.model and row.name == "C9 text"]
    assert row.finding.answer.value == YES
    assert (BOTH, "rtn:w8a8@vision") in seen
    assert measurements.models == ("vit",)


# -- what is put together ------------------------------------------------------------------------


def test_parts_of_a_study_are_put_together_and_repeated_candidates_count_once():
    first, second = (study_record({text: {"id.ece": -0.02}}, bias=UNDER) for text in PTQ[:2])
    alone = gather([first, second])
    again = gather([first, second, first])
    assert again.results == alone.results
    assert [each.text for each in again.configurations["vit"]] == sorted(PTQ[:2])


def one(**different):
    return study_record({PTQ[0]: {"id.ece": -0.02}}, **different)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "no record"),
        ([one(), one(fingerprint="ef")], "samples of probe"),
        (
            [one(), study_record({PTQ[1]: {"id.ece": 0.0}}, baseline={"id.ece": 0.07})],
            "FP32's values: vit id.ece: 0.06 .* and 0.07",
        ),
        (
            [one(), study_record({PTQ[1]: {"id.ece": 0.0}}, baseline={"id.ece": 0.06000001})],
            r"vit id.ece: 0.06 .* and 0\.06000001 ",
        ),
        ([one(), study_record({PTQ[0]: {"id.ece": 0.01}})], "in two records that differ"),
        (
            [
                study_record({"quarot:w8a8@vision": {"id.ece": 0.0}}),
                study_record({"quarot:w8a8,seed=0@vision": {"id.ece": 0.0}}),
            ],
            "written twice",
        ),
    ],
)
def test_records_that_contradict_each_other_are_refused_with_the_difference(records, words):
    with pytest.raises(StudyError, match=words):
        gather(records)


# -- what is written -----------------------------------------------------------------------------


def test_every_form_says_the_same_and_json_names_the_cases(tmp_path):
    changes = c4(0.02, -0.02, 0.02) | of_all(PTQ, id__ece=0.02)
    table = answer_claims(gather([study_record(changes)]))
    plain = json.loads(claims_text(table, "json"))
    by_name = {(c["claim"], c["part"], c["model"]): c for c in plain["claims"]}
    found = by_name["C4", "", "vit"]
    assert found["answer"] == YES
    assert [effect["name"] for effect in found["effects"]] == ["top-1", "ECE", "OOD AUROC"]
    assert found["effects"][0]["seeds"] == 3
    assert f"vit/{QAT[0]}/id.top1" in found["cases"]
    lines = claims_text(table, "csv").splitlines()
    assert lines[0].startswith("claim,part,model,answer,effect,value,low,high")
    assert sum(line.startswith("C4,,vit,reproduced") for line in lines) == 3
    markdown = claims_text(table, "markdown")
    assert "| C4 " in markdown
    assert "**reproduced**" in markdown
    assert "C2 " in claims_text(table)
    assert f"{table.asked} questions" in claims_text(table)


def test_records_are_read_as_the_gate_writes_them(tmp_path):
    record = study_record(of_all(PTQ, id__ece=0.02))
    path = tmp_path / "report.json"
    path.write_text(json.dumps(record.to_plain(), allow_nan=False))
    assert gather([read_run(path)]).results.keys() == gather([record]).results.keys()
