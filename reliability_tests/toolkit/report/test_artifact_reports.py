"""What reports say of exported artifacts, and how a loss is taken apart, from records by hand."""

from __future__ import annotations

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import altered, made_result

from clipq.cases import Candidate
from clipq.records import CaseResult, RunRecord
from clipq.report.artifact_facts import artifact_line, operators_text
from clipq.report.candidates import candidate_lines
from clipq.report.card import card_html, card_markdown, release_card
from clipq.report.html.page_payload import payload
from clipq.report.junit import junit
from clipq.report.ladder import Step, ladders
from clipq.report.ladder_text import ladder_rows
from clipq.report.looks import looks
from clipq.report.markdown import markdown
from clipq.report.text import summary
from clipq.verdicts import Verdict

FINDING = {
    "kind": "precision",
    "problem": "image tower: it ran in bf16, f32 was asked for",
    "fix": "session = { precision = 'f32' }",
    "wrong": True,
}
ORT = {
    "runtime": "onnxruntime",
    "versions": {"onnxruntime": "1.32.0"},
    "files": {"image": {"deploy/image.onnx": "658bddab" * 8}},
    "bytes": 1_000_000,
    "float_bytes": 4_000_000,
    "batch": 64,
    "format": "w8a8d",
    "session": {"threads": 0, "precision": "f32", "env": {"ONEDNN_MAX_CPU_ISA": "AVX2"}},
    "cpu": ["avx2", "avx512_vnni"],
    "towers": "both",
    "simulation": "rtn:w8a8d",
    "looks": {
        "image": {"bytes": 700_000, "quantized": {"MatMulInteger": 24}, "in_float": {"Conv": 1}},
        "text": {"bytes": 300_000, "quantized": {"MatMulInteger": 12}, "in_float": {}},
    },
    "executed": {"image": {"precision": "bf16", "provider": "CPUExecutionProvider"}},
    "findings": [FINDING],
    "milliseconds": 2.0,
    "measured_on": "a laptop",
    "ratio_to_fp32": 0.25,
}
FLOAT = {"runtime": "onnxruntime", "part_of": "ort", "simulation": "", "format": ""}
OLD_CPU = ORT | {"part_of": "ort", "findings": []}
ARTIFACTS = {"m/ort": ORT, "m/ort-float": FLOAT}


def lost(
    quantizer: str, loss: float | None, metric: str = "ece", half: float = 0.0005, **values
) -> CaseResult:
    around = {} if loss is None else {"low": loss - half, "high": loss + half}
    known = {"baseline": 0.05, "observed": 0.05, "margin": 0.02, "unit": "fraction"}
    return made_result(
        "m", quantizer, "id", metric, Verdict.PASS, loss=loss, **known | around | values
    )


LADDER = (lost("ort", 0.016), lost("ort-float", 0.001), lost("rtn:w8a8d", 0.005))


def run(*cases: CaseResult, artifacts=None, **values) -> RunRecord:
    kinds = {"artifacts": ARTIFACTS if artifacts is None else artifacts}
    return RunRecord("ci", len(cases), (altered(cases[0], evidence=kinds), *cases[1:]), **values)


def only_ladder(record: RunRecord):
    (found,) = ladders(record)
    return found


def test_the_loss_less_export_and_simulation_is_the_simulation_gap():
    ladder = only_ladder(run(*LADDER))
    (step,) = ladder.steps
    assert step.rest == pytest.approx(0.016 - 0.001 - 0.005)
    assert step.margins == pytest.approx(0.5)
    assert step.beyond_intervals
    assert (ladder.rest_is, ladder.missing) == ("simulation gap", ())
    assert (str(ladder.export), str(ladder.simulated)) == ("m/ort-float", "m/rtn:w8a8d")


@pytest.mark.parametrize(
    ("cases", "changes", "rest", "holds", "said"),
    [
        (LADDER[:2], {}, 0.015, "quantization, runtime and tool", ["no m/rtn:w8a8d in this run"]),
        (LADDER[::2], {}, 0.011, "export, runtime and tool", ["no m/ort-float in this run"]),
        (LADDER, {"simulation": ""}, 0.015, "quantization", ["has its format w8a8d"]),
        (LADDER, {"simulation": "", "format": ""}, 0.015, "quantization", ["it has no format"]),
        (LADDER[:1], {}, None, "everything", ["no m/ort-float", "no m/rtn:w8a8d"]),
    ],
)  # fmt: skip
def test_a_rung_that_is_missing_is_named_and_stays_in_the_rest(cases, changes, rest, holds, said):
    ladder = only_ladder(run(*cases, artifacts={"m/ort": ORT | changes}))
    assert holds in ladder.rest_is
    assert [step.rest for step in ladder.steps] == ([] if rest is None else [pytest.approx(rest)])
    assert len(ladder.missing) == len(said)
    assert all(part in text for part, text in zip(said, ladder.missing, strict=True))


def test_a_variant_stands_on_the_rungs_of_its_artifact_and_float_graphs_have_none():
    cases = (*LADDER, lost("ort-old-cpu", 0.02))
    found = ladders(run(*cases, artifacts=ARTIFACTS | {"m/ort-old-cpu": OLD_CPU}))
    assert [str(ladder.candidate) for ladder in found] == ["m/ort", "m/ort-old-cpu"]
    assert [str(ladder.export) for ladder in found] == ["m/ort-float"] * 2
    assert found[1].steps[0].rest == pytest.approx(0.02 - 0.001 - 0.005)


def test_metrics_that_a_rung_lacks_and_those_held_to_a_limit_are_left_out():
    broken = lost("ort-float", None, "nll", observed=None)
    held = [lost(q, -10.0, "sqnr", baseline=None) for q in ("ort", "ort-float", "rtn:w8a8d")]
    cases = (*LADDER, lost("ort", 0.1, "nll"), broken, lost("rtn:w8a8d", 0.1, "nll"), *held)
    ladder = only_ladder(run(*cases))
    assert [step.case.metric for step in ladder.steps] == ["ece"]
    assert ladder.missing == ("1 of its metrics are left out: a rung has no loss there",)


def test_rests_beyond_the_intervals_come_first_then_the_largest_in_margins():
    names = ("ort", "ort-float", "rtn:w8a8d")
    losses = {"sure": (0.01, 0.0, 0.005), "small": (0.001, 0.0, 0.0), "noisy": (0.5, 0.0, 0.0)}
    cases = [
        lost(name, loss, metric, half=0.4 if metric == "noisy" else 0.001)
        for metric, given in losses.items()
        for name, loss in zip(names, given, strict=True)
    ]
    steps = only_ladder(run(*cases)).steps
    assert [step.case.metric for step in steps] == ["sure", "noisy", "small"]
    rests = [row[4] for row in ladder_rows(ladders(run(*cases)), each=3)]
    assert rests == ["+0.005", "~ +0.5", "~ +0.001"]


LOSSES = st.floats(-1, 1)
HALVES = st.floats(0, 1)


@given(parts=st.tuples(*[st.tuples(LOSSES, HALVES)] * 3))
def test_beyond_the_intervals_is_what_no_choice_inside_of_them_undoes(parts):
    """Held against every choice of ends: a rest of 0 lies between the smallest and the largest."""
    step = Step(*(lost("ort", loss, half=half) for loss, half in parts))
    ends = [(loss - half, loss + half) for loss, half in parts]
    rests = [whole - export - simulated for whole, export, simulated in product(*ends)]
    assert step.beyond_intervals == (min(rests) > 0 or max(rests) < 0)


def test_a_loss_without_an_interval_proves_nothing():
    bare = altered(LADDER[0], low=None, high=None)
    assert not only_ladder(run(bare, *LADDER[1:])).steps[0].beyond_intervals


class TestWords:
    record = run(*LADDER, not_applicable={"m/ort": {"gradients": 3}})

    def test_the_line_of_a_candidate_says_what_was_found_and_what_is_left_in_float(self):
        (line,) = (str(one) for one in candidate_lines(self.record) if "m/ort:" in str(one))
        assert line.endswith(
            "; 1 finding: image tower: it ran in bf16, f32 was asked for; products left in float: "
            "1 of image"
        )
        two = ORT | {"findings": [FINDING, FINDING | {"kind": "infinite-scale"}]}
        (line,) = map(str, candidate_lines(run(LADDER[0], artifacts={"m/ort": two})))
        assert "; 2 findings: precision, infinite-scale;" in line

    def test_a_note_is_told_from_what_cannot_be_meant_and_comes_after_it(self):
        note = FINDING | {"kind": "batch-dependence", "problem": "it depends", "wrong": False}
        noted = {
            "m/ort": ORT | {"findings": [note]},
            "m/ort-float": FLOAT | {"findings": [FINDING]},
        }
        record = run(*LADDER, artifacts=noted)
        lines = {str(one.candidate): one.text for one in candidate_lines(record)}
        assert "; 1 note: batch-dependence;" in lines["m/ort"]
        assert lines["m/ort-float"].endswith("; 1 finding: " + FINDING["problem"])
        text = summary(record)
        assert text.index("m/ort-float: image tower") < text.index("m/ort: note: it depends")
        assert "note: it depends" in markdown(record)
        assert "| note " in card_markdown(release_card(record, MINE))

    def test_an_artifact_without_any_rung_is_named_in_one_line(self):
        said = "m/ort: neither its float graphs nor a simulation is in this run"
        record = run(LADDER[0])
        for text in (summary(record), markdown(record)):
            assert said in text
            assert "of it export" not in text

    def test_what_identifies_an_artifact_stands_where_code_and_coverage_do(self):
        line = (
            "onnxruntime 1.32.0, image.onnx 658bddab, batch 64, precision f32, "
            "ONEDNN_MAX_CPU_ISA=AVX2, avx2 avx512_vnni"
        )
        assert artifact_line(ORT) == line
        operators = (
            "image: 24 operators quantized, 1 Conv in float; text: 12 operators quantized, no "
            "product in float"
        )
        assert operators_text(ORT) == operators
        for text in (summary(self.record), card_html(release_card(self.record, MINE))):
            assert line in text
            assert operators in text

    def test_every_report_counts_what_is_not_applicable_and_fails_nothing_for_it(self):
        sentence = "3 cases of m/ort are not applicable: they need gradients"
        card = release_card(self.record, MINE)
        for text in (
            summary(self.record),
            markdown(self.record),
            card_markdown(card),
            card_html(card),
            json.dumps(payload(self.record)),
        ):
            assert sentence in text
        assert 'name="not-applicable-m/ort" value="3 gradients"' in junit(self.record)
        assert self.record.passed
        assert self.record.planned == len(self.record.cases)
        assert not self.record.partial
        assert not card.hindrances
        other = release_card(self.record, Candidate("m", "rtn:w8a8d"))
        assert "not applicable" not in card_markdown(other)

    def test_every_report_shows_findings_with_their_fix_and_the_gap(self):
        card = release_card(self.record, MINE)
        for text in (summary(self.record), markdown(self.record), card_markdown(card)):
            assert "it ran in bf16" in text
            assert "session = { precision = 'f32' }" in text
            assert "+0.01 " in text
            assert "0.50" in text
            assert "simulation gap" in text
        shown = payload(self.record)
        assert shown["ladders"][0]["steps"][0]["rest"] == pytest.approx(0.01)
        assert shown["evidence"]["artifacts"]["m/ort"]["findings"] == [FINDING]

    def test_a_card_is_of_the_files_with_their_size_and_latency(self):
        facts = card_markdown(release_card(self.record, MINE))
        assert f"deploy/image.onnx sha256 {'658bddab' * 8}".replace("  ", " ") in facts
        assert "1.0 MB, 25% of FP32" in facts
        assert "2 ms on a laptop, 25% of FP32" in facts
        assert "| artifact " in facts

    def test_what_files_and_runtimes_say_cannot_mark_anything_up(self):
        hostile = FINDING | {"problem": "<img src=x>\n# heading\x1b[2J", "fix": "[a](b)"}
        entry = ORT | {"findings": [hostile], "files": {"image": {"a|b\n`c`": "0f" * 32}}}
        record = run(*LADDER, artifacts={"m/ort": entry}, not_applicable={"m/<b>": {"<i>": 1}})
        text = markdown(record)
        assert "<img" not in text
        assert "\n# heading" not in text
        assert "[a](b)" not in text
        assert "<b>" not in text
        assert "<img" not in card_html(release_card(record, MINE))
        assert "\x1b" not in summary(record)
        junit(record)

    def test_a_record_that_says_little_of_an_artifact_is_shown_all_the_same(self):
        record = run(LADDER[0], artifacts={"m/ort": {"runtime": "mine"}, "no slash": ORT})
        assert "mine" in summary(record)
        assert "mine" in markdown(record)
        assert "mine" in card_markdown(release_card(record, MINE))


MINE = Candidate("m", "ort")


def test_a_swapped_file_is_another_look_at_release_only_samples():
    def judged(entry):
        kinds = {
            "probes": {"id": {"fingerprint": "ab", "use": "release"}},
            "artifacts": {"m/ort": entry},
        }
        return RunRecord("release", 1, (altered(LADDER[0], evidence=kinds),))

    swapped = ORT | {"files": {"image": {"deploy/image.onnx": "00" * 32}}}
    renamed = ORT | {"files": {"image": {"elsewhere/i.onnx": "658bddab" * 8}}}
    assert [one.candidates for one in looks([judged(ORT), judged(renamed)])] == [1]
    assert [one.candidates for one in looks([judged(ORT), judged(swapped)])] == [2]
