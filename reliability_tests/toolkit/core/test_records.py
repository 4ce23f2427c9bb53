"""Records are strict JSON, sorted, and refuse what they do not understand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from made_results import made_result
from synthetic_runs import synthetic_run

from clipq.errors import RecordError
from clipq.estimate import number
from clipq.records import (
    CaseResult,
    RunRecord,
    not_applicable_sentences,
    read_run,
    run_id,
    sort_cases,
)
from clipq.verdicts import POLICIES, Verdict


def case(name="id", verdict=Verdict.PASS, **values):
    model, quantizer = values.pop("model", "m"), values.pop("quantizer", "rtn:w8")
    return made_result(model, quantizer, name, "ece", verdict, **values)


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
    run = RunRecord(
        "ci", 2, (case(evidence={"probes": {"id": {"fingerprint": "ab", "samples": 3}}}), case("b"))
    )
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
    assert POLICIES["release"].blocks(verdict) is (verdict not in harmless)
    assert POLICIES["ci"].blocks(verdict) is (verdict not in harmless | {Verdict.INCONCLUSIVE})


def test_a_run_that_measured_nothing_or_lost_a_case_does_not_pass():
    assert not RunRecord("ci", 0, ()).passed
    assert not RunRecord("ci", 2, (case(),), unreported=("m/rtn:w8/b.ece",)).passed
    assert RunRecord("ci", 1, (case(),)).passed


@pytest.mark.parametrize(
    ("values", "partial", "narrowed"),
    [
        ({}, False, False),
        ({"selection": {"profile": ["default"], "of": 9}}, True, False),
        ({"selection": {"profile": ["quick"], "of": 9}}, True, True),
        ({"selection": {"profile": ["default"], "keyword": ["a"], "of": 9}}, True, True),
        ({"unreported": ("m/rtn:w8/b.ece",)}, True, True),
    ],
)
def test_the_default_profile_is_an_everyday_gate_but_not_the_whole_matrix(
    values, partial, narrowed
):
    run = RunRecord("ci", 1, (case(),), **values)
    assert (bool(run.partial), run.narrowed) == (partial, narrowed)


@pytest.mark.parametrize(
    ("values", "severity"),
    [
        ({"baseline": 0.1, "loss": 0.06, "margin": 0.05}, 1.2),
        ({"baseline": 0.1, "loss": -0.05, "margin": 0.05}, -1.0),
        ({"baseline": 0.1, "loss": 0.0, "margin": -0.5}, 2.0),  # an improvement was demanded
        ({"loss": -10.0, "margin": 20.0}, 0.5),  # 30 dB where 20 are the floor
        ({"loss": -80.0, "margin": -60.0}, -1 / 3),  # 20 dB where -60 are
        ({"loss": 6.0, "margin": -60.0}, 1.1),
    ],
)
def test_severity_is_one_at_the_margin_and_at_a_limit(values, severity):
    assert case(**values).severity == pytest.approx(severity)


def test_the_worst_case_comes_first():
    mild = case("a", Verdict.FAIL, loss=0.06, margin=0.05)
    grave = case("b", Verdict.FAIL, loss=0.5, margin=0.05)
    unknown = case("c", Verdict.ERROR)
    run = RunRecord("ci", 3, (mild, grave, unknown))
    assert [c.probe for c in run.blocking] == ["c", "b", "a"]
    assert [c.probe for c in sort_cases([grave, mild])] == ["a", "b"]


ARTIFACT_ENTRIES = (
    ({"runtime": "onnxruntime"}, True),
    ({"runtime": "mine", "findings": [{"kind": "a", "problem": "b"}], "ratio_to_fp32": 1}, True),
    ({"runtime": "mine", "looks": {"image": {"quantized": {"MatMul": 1}}}, "more": 1}, True),
    ({}, False),
    ({"runtime": 1}, False),
    ({"runtime": "mine", "findings": [{"kind": "a"}]}, False),
    ({"runtime": "mine", "findings": [{"kind": "a", "problem": "b", "c": 1}]}, False),
    ({"runtime": "mine", "files": {"image": "sha"}}, False),
    ({"runtime": "mine", "bytes": -1}, False),
    ({"runtime": "mine", "bytes": None}, False),
    ({"runtime": "mine", "batch": 1.5}, False),
    ({"runtime": "mine", "towers": "image"}, False),
    ({"runtime": "mine", "looks": {"image": {"in_float": {"MatMul": "1"}}}}, False),
    ({"runtime": "mine", "milliseconds": 0}, False),
    ({"runtime": "mine", "cpu": "avx2"}, False),
)


@pytest.mark.parametrize(("said", "fits"), ARTIFACT_ENTRIES)
def test_what_is_read_of_an_artifact_is_what_reports_rely_on(said, fits):
    plain = RunRecord("ci", 1, (case(evidence={"artifacts": {"m/ort": said}}),)).to_plain()
    if fits:
        assert RunRecord.from_plain(plain).evidence()["artifacts"]["m/ort"] == said
    else:
        with pytest.raises(RecordError, match=r"evidence\.artifacts\.m/ort"):
            RunRecord.from_plain(plain)


def test_cases_that_an_artifact_cannot_have_are_counted_and_fail_nothing():
    run = RunRecord(
        "ci", 1, (case(),), not_applicable={"m/ort": {"gradients": 3, "a text tower": 1}}
    )
    assert RunRecord.from_plain(run.to_plain()).to_plain() == run.to_plain()
    assert run.passed
    assert not run.partial
    assert not_applicable_sentences(run.not_applicable) == (
        "3 cases of m/ort are not applicable: they need gradients",
        "1 case of m/ort is not applicable: it needs a text tower",
    )


class TestIdentity:
    def written(self, folder, **values):
        run = RunRecord("ci", 1, (case(baseline=0.1, observed=0.2),), **values)
        path = folder / "run.json"
        path.write_text(json.dumps(run.to_plain()))
        return path

    def test_equal_content_has_one_id_and_other_content_another(self, tmp_path):
        ids = [
            json.loads(self.written(tmp_path, started=started).read_text())["id"]
            for started in ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
        ]
        assert ids[0] == ids[1] != ids[2]

    def test_the_id_is_computed_once_and_anew_for_a_changed_copy(self, monkeypatch):
        record = RunRecord("ci", 1, (case(baseline=0.1, observed=0.2),))
        first = record.id
        assert first == record.to_plain()["id"]
        assert replace(record, policy="release").id != first
        monkeypatch.setattr("clipq.records.digest", None)
        assert record.id == record.to_plain()["id"] == first

    @pytest.mark.parametrize(
        ("old", "new"), [("0.2", "0.1"), ('"ci"', '"release"'), ('"pass"', '"improved"')]
    )
    def test_an_edited_record_is_named(self, tmp_path, old, new):
        path = self.written(tmp_path)
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(RecordError, match=r"run.json was altered"):
            read_run(path)

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (
                lambda plain: plain["cases"][0]["estimate"].update(loss="abc"),
                r"cases\[0\]\.estimate: loss = 'abc'\n.*must be a finite number or null",
            ),
            (lambda plain: plain["cases"][0].update(samples=None), r"samples = None\n.* whole n"),
            (
                lambda plain: plain["cases"][0].update(verdict="fali"),
                "verdict = 'fali'\n.*mean 'fail'",
            ),
            (lambda plain: plain["cases"][0].update(unknown=1), r"cases\[0\]: unknown key 'unk"),
            (lambda plain: plain["cases"].append("x"), r"cases\[1\] = 'x'\n.*must be an object"),
            (lambda plain: plain.update(evidence=[]), r"evidence = \[\]\n.*must be an object"),
            (lambda plain: plain["evidence"].update(models=3), r"evidence\.models = 3\n.*object"),
            (
                lambda plain: plain["evidence"].update(models={"m": "x"}),
                r"evidence\.models\.m = 'x'\n.*must be an object",
            ),
            (
                lambda plain: plain["evidence"].update(models={"m": {"source": "s"}}),
                r"evidence\.models\.m: weights_sha256 = None\n.*must be a text",
            ),
            (lambda plain: plain.update(planned="1"), r"planned = '1'\n.*must be a whole number"),
            (
                lambda plain: plain.update(blocks=["suspect"]),
                r"'ci' does not block 'fail'\n.*name it",
            ),
            (lambda plain: plain.update(blocks=["fail", "pass"]), r"blocks 'pass'\n.*allowed"),
            (lambda plain: plain.update(problems=[{}]), r"problems\[0\] = {}\n.*must be a text"),
            (lambda plain: plain["commit"].update(sha=1.5), "commit: no date|commit: sha = 1.5"),
            (lambda plain: plain["commit"].update(dirty=True), r"commit: no sha\n.*must be a text"),
            (
                lambda plain: plain["statistics"].update(replicates=500, seed=1, correction="holm"),
                r"statistics: no alpha\n.*must be a number",
            ),
            (lambda plain: plain["selection"].update(of="many"), r"selection\.of = 'many'"),
            (lambda plain: plain["selection"].update(of=["a"]), r"selection\.of: it is \['a'\]"),
            (
                lambda plain: plain.update(waivers=[{"cases": "*"}]),
                r"waivers\[0\]: cases = '\*'\n.*must be a list",
            ),
            (lambda plain: plain.update(kernels=[{"kernel": 0}]), r"kernels\[0\]: kernel = 0"),
            (
                lambda plain: plain["timings"].update(seconds=True),
                r"seconds = True\n.*a finite",
            ),
        ],
    )
    def test_a_field_of_another_type_is_named(self, tmp_path, damage, said):
        path = self.written(tmp_path)
        plain = json.loads(path.read_text())
        damage(plain)
        plain["id"] = run_id(plain)
        path.write_text(json.dumps(plain))
        with pytest.raises(RecordError, match=r"^.*run.json, .*" + said):
            read_run(path)

    def test_a_truncated_record_is_named(self, tmp_path):
        path = self.written(tmp_path)
        path.write_text(path.read_text()[:-40])
        with pytest.raises(RecordError, match=r"run.json cannot be read as JSON"):
            read_run(path)

    def test_layout_is_no_content(self, tmp_path):
        path = self.written(tmp_path)
        path.write_text(json.dumps(json.loads(path.read_text()), indent=4, sort_keys=True))
        assert read_run(path).cases[0].observed == 0.2


class TestPublishedSchema:
    @pytest.fixture(scope="class")
    def schema(self):
        path = Path(__file__).parents[3] / "docs" / "report.schema.json"
        found = json.loads(path.read_text())
        Draft202012Validator.check_schema(found)
        return Draft202012Validator(found)

    def test_records_follow_it(self, schema):
        schema.validate(synthetic_run(500).to_plain())
        schema.validate(RunRecord("release", 0, ()).to_plain())
        narrowed = {"keyword": ["a"], "of": 9, "kernel-checks-of": 3}
        schema.validate(RunRecord("ci", 0, (), selection=narrowed).to_plain())

    def test_it_knows_every_key_and_every_verdict(self, schema):
        plain = synthetic_run(100).to_plain()
        assert set(plain) == set(schema.schema["properties"])
        of_case = schema.schema["properties"]["cases"]["items"]["properties"]
        assert set(plain["cases"][0]) == set(of_case)
        assert of_case["verdict"]["enum"] == [verdict.value for verdict in Verdict]

    def test_it_says_of_artifacts_what_a_reader_demands(self, schema):
        """What one refuses the other refuses, so that neither is looser."""
        plain = RunRecord("ci", 1, (case(),), not_applicable={"m/ort": {"gradients": 2}}).to_plain()
        for said, fits in ARTIFACT_ENTRIES:
            written = plain | {"evidence": {"artifacts": {"m/ort": said}}}
            assert schema.is_valid(written) is fits, said

    @pytest.mark.parametrize(
        "damage",
        [
            lambda plain: plain.pop("id"),
            lambda plain: plain.update(blocks=["suspect"]),
            lambda plain: plain["cases"][0].update(verdict="fine"),
            lambda plain: plain["cases"][0]["estimate"].update(loss="0.1"),
            lambda plain: plain["cases"][0].update(unknown=1),
        ],
    )
    def test_it_refuses_what_is_no_record(self, schema, damage):
        plain = synthetic_run(100).to_plain()
        damage(plain)
        assert not schema.is_valid(plain)
