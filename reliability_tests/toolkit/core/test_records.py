"""Records are strict JSON, sorted, and refuse what they do not understand."""

from __future__ import annotations

import json

import pytest

from clipq.errors import RecordError
from clipq.records import CaseResult, RunRecord, Verdict, number, read_run, sort_cases


def case(name="id", verdict=Verdict.PASS, **values):
    model, quantizer = values.pop("model", "m"), values.pop("quantizer", "rtn:w8")
    return CaseResult(model, quantizer, name, "ece", verdict, **values)


def test_a_case_survives_the_trip_between_processes():
    sent = case(baseline=0.1, observed=0.2, loss=0.1, margin=0.05, evidence={"models": {"m": {}}})
    assert CaseResult.from_json(sent.to_json()) == sent
    assert json.loads(sent.to_json())["verdict"] == "pass"


def test_non_finite_numbers_never_enter_a_record():
    assert number(float("nan")) is None
    assert number(float("inf")) is None
    assert number(0.25) == 0.25
    with pytest.raises(ValueError, match="not JSON compliant"):
        case(baseline=float("nan")).to_json()


def test_a_run_is_written_and_read_back(tmp_path):
    run = RunRecord("ci", 2, (case(evidence={"probes": {"id": {"samples": 3}}}), case("b")))
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run.to_plain()))
    assert read_run(path).to_plain() == run.to_plain()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": "clipq-run/99"}'])
def test_a_damaged_or_foreign_record_is_refused(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(RecordError):
        read_run(path)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_pass_improved_and_waived_never_block(verdict):
    harmless = {Verdict.PASS, Verdict.IMPROVED, Verdict.WAIVED}
    assert verdict.blocks("release") is (verdict not in harmless)
    assert verdict.blocks("ci") is (verdict not in harmless | {Verdict.INCONCLUSIVE})


def test_a_run_that_measured_nothing_or_lost_a_case_does_not_pass():
    assert not RunRecord("ci", 0, ()).passed
    assert not RunRecord("ci", 2, (case(),), unreported=("m/rtn:w8/b.ece",)).passed
    assert RunRecord("ci", 1, (case(),)).passed


def test_the_worst_case_comes_first():
    mild = case("a", Verdict.FAIL, loss=0.06, margin=0.05)
    grave = case("b", Verdict.FAIL, loss=0.5, margin=0.05)
    unknown = case("c", Verdict.ERROR)
    run = RunRecord("ci", 3, (mild, grave, unknown))
    assert [c.probe for c in run.blocking] == ["c", "b", "a"]
    assert [c.probe for c in sort_cases([grave, mild])] == ["a", "b"]
