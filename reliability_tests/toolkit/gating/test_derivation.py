"""A record whose verdicts were edited is refused, whatever id it was given afterwards."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from synthetic_runs import synthetic_run

from clipq.errors import RecordError
from clipq.gating.derivation import check_verdicts, disagreements
from clipq.records import RunRecord, run_id
from clipq.verdicts import EXCUSABLE, Verdict


@pytest.fixture(scope="module")
def plain():
    """A run of which many cases fail; those of one model are excused."""
    run = synthetic_run(500)
    cases = [
        replace(case, verdict=Verdict.FAIL, reason="")
        if case.verdict is Verdict.WAIVED and case.model != "coca"
        else case
        for case in run.cases
    ]
    return replace(run, cases=tuple(cases)).to_plain()


def reread(plain, edit):
    """Return the record that an edit and a new id make."""
    changed = json.loads(json.dumps(plain))
    edit(changed)
    counted = Counter(case["verdict"] for case in changed["cases"])
    changed["counts"] = dict(counted)
    changed["passed"] = not any(counted[name] for name in changed["blocks"])
    return RunRecord.from_plain(changed | {"id": run_id(changed)})


def all_cases(**values):
    """Return the edit that gives every case these values, and every estimate those it has."""

    def edit(plain):
        for case in plain["cases"]:
            own = {name: value for name, value in values.items() if name in case}
            case |= own
            case["estimate"] |= {name: values[name] for name in values.keys() - own.keys()}

    return edit


def waived(plain):
    for case in plain["cases"]:
        if case["verdict"] in EXCUSABLE:
            case |= {"verdict": "waived", "waived_by": "ada"}


def test_a_record_as_it_was_written_agrees_with_itself(plain):
    record = reread(plain, lambda plain: None)
    assert {*record.counts} >= {"pass", "inconclusive", "suspect", "fail", "waived"}
    assert disagreements(record) == ()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (all_cases(verdict="pass"), "is 'pass', its numbers say '(fail|suspect|inconclusive)'"),
        (all_cases(verdict="pass", p_value=None, adjusted_p=None), "is 'pass' without a p-value"),
        (all_cases(verdict="pass", p_value=0.9, adjusted_p=1.0), "lies above its margin, and its"),
        (all_cases(verdict="pass", adjusted_p=1.0), "has the corrected p-value 1.0, its candidate"),
        (all_cases(verdict="pass", loss=0.0), "has the loss 0, its values differ by"),
        (all_cases(verdict="pass", low=1.0), r"has the interval \[1, "),
        (all_cases(verdict="pass", loss=None, p_value=None, margin=None), "without a p-value"),
        (all_cases(verdict="inconclusive"), "is 'inconclusive', its numbers say"),
        (all_cases(verdict="improved"), "is 'improved', its numbers say"),
        (waived, "is 'waived', and no waiver or expected failure of the record says so"),
    ],
)
def test_an_edited_record_is_refused_by_the_case(plain, edit, said):
    record = reread(plain, edit)
    cases = {case.id for case in record.cases}
    found = disagreements(record)
    assert any(re.search(said, sentence) for sentence in found)
    assert all(sentence.split(" ")[0] in cases for sentence in found)
    with pytest.raises(RecordError, match=r"report\.json: .* more cases"):
        check_verdicts(record, source="report.json")


def test_every_single_verdict_that_was_made_milder_is_found(plain):
    blocking = [
        n for n, case in enumerate(plain["cases"]) if case["verdict"] in ("fail", "suspect")
    ]
    assert len(blocking) > 10
    for number in blocking[::4]:

        def edit(changed, number=number):
            changed["cases"][number]["verdict"] = "pass"

        (sentence,) = disagreements(reread(plain, edit))
        assert sentence.startswith(plain["cases"][number]["case"])


def test_a_case_that_was_taken_away_shows_in_the_correction_of_the_others(plain):
    def edit(changed):
        changed["cases"] = [case for case in changed["cases"] if case["verdict"] != "pass"]

    assert any("corrected p-value" in sentence for sentence in disagreements(reread(plain, edit)))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda plain: plain.update(passed=True), "it says True, its cases say False"),
        (lambda plain: plain.update(counts={"pass": 500}), r"it says \{'pass': 500\}"),
        (lambda plain: plain["cases"][0].update(case="a/b/c.d"), "it says 'a/b/c.d'"),
        (lambda plain: plain.update(schema="clipq-run/3"), "schema = 'clipq-run/3'"),
    ],
)
def test_an_outcome_that_does_not_follow_from_the_cases_is_refused(plain, edit, said):
    changed = json.loads(json.dumps(plain))
    edit(changed)
    with pytest.raises(RecordError, match=said):
        RunRecord.from_plain(changed | {"id": run_id(changed)})
    del changed["id"]
    with pytest.raises(RecordError, match=r"was altered: its id is None|schema"):
        RunRecord.from_plain(changed)


def test_waivers_of_the_record_excuse_the_cases_that_they_name(plain):
    entry = {"reason": "pilot", "owner": "ada", "expires": "2099-12-31", "cases": ["*"]}

    def sign(changed, **other):
        waived(changed)
        ids = [case["case"] for case in changed["cases"] if case["waived_by"]]
        changed["waivers"] = [entry | {"waived": ids} | other]

    assert disagreements(reread(plain, sign)) == ()
    for other in ({"owner": "eve"}, {"waived": []}, {"cases": ["x"]}, {"expires": "2024-01-01"}):
        found = disagreements(reread(plain, lambda changed, other=other: sign(changed, **other)))
        assert found
        assert all("no waiver" in sentence for sentence in found)


def test_a_part_of_a_candidate_may_have_been_corrected_for_the_whole(plain):
    """The cases that a selection leaves out count when the rest is decided."""
    record = reread(plain, lambda plain: None)
    (first, *_) = [case for case in record.cases if case.verdict is Verdict.PASS]
    narrowed = RunRecord(
        "ci", 1, (first,), statistics=record.statistics, selection={"of": len(record.cases)}
    )
    assert disagreements(narrowed) == ()
