"""A release card states what was measured, claims no more, and hubs can read its metadata."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from made_results import altered, made_result
from synthetic_runs import synthetic_run

from clipq.cases import Candidate
from clipq.cli import main
from clipq.errors import RecordError
from clipq.records import CaseResult, KernelResult, RunRecord
from clipq.report.candidates import candidate_lines
from clipq.report.card import (
    card_html,
    card_markdown,
    model_index,
    plain_statement,
    release_card,
)
from clipq.report.markdown import inert
from clipq.verdicts import Verdict

EVIDENCE = {
    "models": {"m": {"source": "local-dir:m", "weights_sha256": "ab" * 32}},
    "probes": {
        "id": {"role": "in-distribution", "fingerprint": "cd" * 32},
        "far": {"role": "ood", "fingerprint": "ef" * 32},
    },
    "quantizers": {
        "m/rtn:w4": {
            "code_sha256": "12" * 32,
            "share": 1.0,
            "weight_bits": 4.125,
            "bytes": 90_000_000,
            "float_bytes": 600_000_000,
        }
    },
}
ECE = made_result(
    "m", "rtn:w4", "id", "ece", Verdict.PASS, unit="fraction", direction="lower",
    baseline=0.04, observed=0.05, loss=0.01, margin=0.02, low=0.005, high=0.015,
    p_value=0.999, adjusted_p=1.0, evidence=EVIDENCE,
)  # fmt: skip
AUROC = altered(ECE, probe="far", metric="auroc-mcm", observed=0.93, evidence={})


def run(*cases: CaseResult, **values: object) -> RunRecord:
    return RunRecord("release", len(cases), cases, started="2026-01-01T00:00:00Z", **values)


def test_a_card_states_values_sizes_and_what_identifies_them():
    text = card_markdown(release_card(run(ECE, AUROC), Candidate("m", "rtn:w4"), name="m-int4"))
    for expected in (
        "# Reliability of m-int4",
        "As reliable as FP32 within the reviewed margins: 2 pass",
        "sha256 " + "ab" * 32,
        "4.12, scales included",
        "90.0 MB, 15% of FP32",
        "2026-01-01T00:00:00Z",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("verdict", "releasable"),
    [
        (Verdict.PASS, True),
        (Verdict.WAIVED, True),
        (Verdict.INCONCLUSIVE, False),
        (Verdict.SUSPECT, False),
        (Verdict.FAIL, False),
        (Verdict.MISSING, False),
    ],
)
def test_a_card_claims_reliability_only_where_nothing_blocks_a_release(verdict, releasable):
    card = release_card(run(ECE, replace(AUROC, verdict=verdict)), Candidate("m", "rtn:w4"))
    assert card.releasable is releasable
    assert ("Not shown to be as reliable" in card_markdown(card)) is not releasable
    assert ("Not shown to be as reliable" in card_html(card)) is not releasable


def test_a_projects_own_release_policy_decides_where_the_run_was_under_it():
    doubtful = replace(AUROC, verdict=Verdict.INCONCLUSIVE)
    for policy, blocks, releasable in (
        ("release", ("fail",), True),
        ("release", ("fail", "inconclusive"), False),
        ("ci", ("fail",), False),
    ):
        record = replace(run(ECE, doubtful), policy=policy, blocks=blocks)
        card = release_card(record, Candidate("m", "rtn:w4"))
        assert card.releasable is releasable
        assert f"{policy}: {', '.join(blocks)} block" in card_html(card)


def test_a_card_says_in_one_line_what_the_candidate_costs_and_what_is_not_decided():
    doubtful = replace(AUROC, verdict=Verdict.SUSPECT)
    card = release_card(run(ECE, doubtful), Candidate("m", "rtn:w4"))
    (line,) = candidate_lines(card.record)
    assert "1 beyond the margin" in line.text
    assert inert(line.text) in card_markdown(card)
    assert line.text in card_html(card)


def test_an_incomplete_run_is_no_ground_for_a_release():
    assert not release_card(
        run(ECE, unreported=("m/rtn:w4/id.nll",)), Candidate("m", "rtn:w4")
    ).releasable


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"selection": {"metrics": ["ece"], "keyword": ["id"], "of": 55}},
            "part of the matrix: 1 of 55 cases (metrics ece; keyword id).",
        ),
        (
            {"selection": {"keyword": ["not kernel"], "of": 1, "kernel-checks-of": 9}},
            "part of the matrix: 1 of 1 cases, 0 of 9 kernel checks (keyword not kernel).",
        ),
        ({"selection": {"metrics": ["ece"]}}, "part of the matrix: 1 cases (metrics ece)."),
        (
            {"unreported": ("m/rtn:w4/id.nll",), "planned": 2},
            "part of the matrix: 1 of 2 cases (1 planned but never reported).",
        ),
        ({"problems": ("waiver 'm/*' expired",)}, "waiver 'm/*' expired."),
        (
            {"kernels": (KernelResult("fast", "matches", "fail", reason="off by 3"),)},
            "a kernel check fails: fast/matches off by 3.",
        ),
    ],
)
def test_what_is_wrong_with_the_run_forbids_the_release_and_is_told(values, said):
    card = release_card(replace(run(ECE), **values), Candidate("m", "rtn:w4"))
    assert not card.releasable
    assert plain_statement(card) == f"Not shown to be as reliable as FP32: 1 pass; {said}"
    assert "Not shown to be as reliable" in card_html(card)


def test_a_run_narrowed_to_whole_pairs_may_release_them_and_no_other():
    selection = {"quantizers": ["rtn:w4"], "of": 55, "complete": ["m/rtn:w4"]}
    assert release_card(run(ECE, selection=selection), Candidate("m", "rtn:w4")).releasable
    other = release_card(
        run(ECE, selection=selection | {"complete": ["m/rtn:w8"]}), Candidate("m", "rtn:w4")
    )
    assert "part of the matrix: 1 of 55 cases (quantizers rtn:w4)." in plain_statement(other)
    aborted = run(ECE, selection=selection, unreported=("m/rtn:w4/id.nll",))
    assert not release_card(aborted, Candidate("m", "rtn:w4")).releasable


def test_kernel_checks_that_pass_or_could_not_run_forbid_nothing():
    kernels = (KernelResult("a", "c", "pass"), KernelResult("b", "c", "not-run", reason="no GPU"))
    assert release_card(run(ECE, kernels=kernels), Candidate("m", "rtn:w4")).releasable


def test_the_command_says_on_stderr_why_a_written_card_is_no_release(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = run(ECE, selection={"metrics": ["ece"], "of": 55})
    (tmp_path / "r.json").write_text(json.dumps(record.to_plain()))
    arguments = ["card", "m/rtn:w4", "--record", str(tmp_path / "r.json")]
    assert main([*arguments, "--output", str(tmp_path / "card.md")]) == 1
    assert "part of the matrix: 1 of 55 cases (metrics ece)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("numbers", "fails"),
    [
        ({"loss": 0.09, "p_value": 1e-6, "adjusted_p": 1e-5}, True),
        ({"loss": 0.03, "p_value": 0.06, "adjusted_p": 0.4}, False),  # suspect
        ({"loss": 0.01, "p_value": 0.4, "adjusted_p": 1.0}, False),  # inconclusive
        ({"loss": 0.09, "p_value": None, "adjusted_p": None}, True),  # compared as it stands
        ({"loss": 0.01, "p_value": None, "adjusted_p": None}, False),
    ],
)
def test_waivers_are_told_with_owner_and_expiry_and_only_failures_are_called_so(numbers, fails):
    waived = altered(
        AUROC,
        verdict=Verdict.WAIVED,
        reason="waived by ada@x.org until 2027-01-01: pilot",
        waived_by="ada@x.org",
        margin=0.02,
        **numbers,
    )
    card = release_card(run(ECE, waived), Candidate("m", "rtn:w4"))
    title = "Known failures" if fails else "Waived, and not decided"
    other = "Waived, and not decided" if fails else "Known failures"
    said = "1 known failure:" if fails else "1 waived case that is not decided:"
    for text in (card_markdown(card), card_html(card)):
        assert "until 2027-01-01: pilot" in text
        assert title in text
        assert other not in text
        assert said in text


def test_failures_and_what_is_not_decided_stand_apart():
    numbers = {"loss": 0.09, "p_value": 1e-6, "adjusted_p": 1e-5}
    failed = altered(AUROC, verdict=Verdict.WAIVED, reason="first", **numbers)
    unsure = altered(failed, metric="fpr95-mcm", reason="second", p_value=0.3, adjusted_p=1.0)
    card = release_card(run(ECE, failed, unsure), Candidate("m", "rtn:w4"))
    first, second = card_markdown(card).split("## Waived, and not decided")
    assert "first" in first.split("## Known failures")[1]
    assert "second" in second.split("## Everything")[0]
    assert "1 known failure and 1 waived case that is not decided" in plain_statement(card)


def test_hubs_read_the_metadata():
    card = release_card(run(ECE, AUROC), Candidate("m", "rtn:w4"), name="m-int4")
    name, results = model_index_to_eval_results(model_index(card)["model-index"])
    assert name == "m-int4"
    assert {(r.dataset_name, r.metric_type, r.metric_value) for r in results} == {
        ("id", "ece", 0.05),
        ("far", "auroc-mcm", 0.93),
    }
    parsed = ModelCard(card_markdown(card))
    assert parsed.data.eval_results is not None
    assert parsed.data.to_dict()["library_name"] == "open_clip"


@pytest.mark.parametrize("text", ["<script>x</script>", "</style>", "---\nevil: 1", '"><b>', "`|`"])
def test_names_stay_text_in_every_form(text):
    case = altered(ECE, model=text, quantizer="rtn:w4", unit=text, evidence={})
    card = release_card(run(case), Candidate(text, "rtn:w4"), name=text)
    markdown = card_markdown(card)
    front = markdown.split("\n---\n")[0].removeprefix("---\n")
    assert list(yaml.safe_load(front)) == ["tags", "library_name", "model-index"]
    assert "<script>" not in markdown.split("\n---\n", 1)[1]

    class Tags(HTMLParser):
        seen: set[str] = set()  # noqa: RUF012 - one page

        def handle_starttag(self, tag, attrs):
            self.seen.add(tag)

    Tags.seen = set()
    Tags().feed(card_html(card))
    assert not Tags.seen & {"script", "b", "img"}


def test_the_command_writes_all_forms_and_says_whether_to_release(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = synthetic_run(500)
    (tmp_path / "r.json").write_text(json.dumps(record.to_plain()))
    codes = []
    for form in ("markdown", "html", "model-index"):
        arguments = ["card", "coca/rtn:w8", "--record", "r.json", "--format", form]
        codes.append(main([*arguments, "--output", f"card.{form}"]))
        assert (tmp_path / f"card.{form}").stat().st_size > 500
    for form in ("markdown", "html"):
        text = (tmp_path / f"card.{form}").read_text()
        assert "none: the record is unsigned" in text
        assert "nothing: no clipq.toml here says what is released" in text
    expected = release_card(record, Candidate("coca", "rtn:w8")).releasable
    assert codes == [0 if expected else 1] * 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("coca",), "'coca' names no model and quantizer"),
        (("coca/rtn:w9",), "did you mean 'coca/rtn:w8'"),
        (("coca/rtn:w8", "--record", "gone.json"), "no run record at gone.json"),
    ],
)
def test_mistakes_are_one_message(tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.json").write_text(json.dumps(synthetic_run(500).to_plain()))
    given = arguments if "--record" in arguments else (*arguments, "--record", "r.json")
    assert main(["card", *given]) == 2
    assert said in capsys.readouterr().err


def test_an_edited_record_has_no_card(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = replace(run(altered(ECE, low=0.03, high=0.05)), policy="release")
    (tmp_path / "r.json").write_text(json.dumps(record.to_plain()))
    assert main(["card", "m/rtn:w4", "--record", "r.json"]) == 2
    said = capsys.readouterr()
    assert "r.json: m/rtn:w4/id.ece lies above its margin, and its p-value is 0.999" in said.err
    assert said.out == ""


def test_a_pair_that_was_not_run_has_no_card():
    with pytest.raises(RecordError, match="no case of m/rtn:w8"):
        release_card(run(ECE), Candidate("m", "rtn:w8"))
