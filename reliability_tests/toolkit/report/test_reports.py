"""Reports say the same in every form, worst first, and stay inert with hostile names."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from clipq.records import CaseResult, RunRecord, Verdict
from clipq.report import write_reports
from clipq.report.junit import junit
from clipq.report.markdown import markdown
from clipq.report.text import explain, summary

EVIDENCE = {
    "models": {"m": {"source": "local-dir:m", "weights_sha256": "ab" * 32}},
    "baselines": {
        "m": {
            "file": "b/m.json",
            "columns_sha256": "99" * 32,
            "approved": "2026-01-01",
            "reason": "r",
        }
    },
    "probes": {"id": {"samples": 2048, "fingerprint": "cd" * 32, "role": "in-distribution"}},
    "quantizers": {"m/rtn:w8": {"code_sha256": "ef" * 32, "share": 0.998}},
    "environments": {"x": {"torch": "2.15.0", "device": "cpu"}},
}
FAIL = CaseResult(
    "m", "rtn:w4", "id", "ece", Verdict.FAIL, "", "fraction", "lower", 1, 2048,
    0.04, 0.19, 0.15, 0.02, "clipq gate --clipq-model m", EVIDENCE,
)  # fmt: skip
PASS = CaseResult("m", "rtn:w8", "id", "ece", Verdict.PASS, baseline=0.04, observed=0.05)
RUN = RunRecord("ci", 3, (FAIL, PASS), ("m/rtn:w8/id.top1",), versions={"torch": "2.15.0"})


def test_a_failure_says_by_how_much_against_what_and_what_to_run_next():
    text = explain(FAIL)
    assert "FP32 baseline 0.04, observed 0.19: loss 0.15 > margin 0.02 fraction" in text
    assert "next: clipq gate --clipq-model m" in text


def test_intervals_and_what_would_decide_are_shown_in_every_form():
    undecided = CaseResult(
        "m", "rtn:w8", "id", "nll", Verdict.INCONCLUSIVE, unit="nats", samples=2048,
        baseline=0.5, observed=0.52, loss=0.02, margin=0.03, low=-0.01, high=0.05,
        p_value=0.2, adjusted_p=0.4, samples_needed=9000,
    )  # fmt: skip
    statistics = {"alpha": 0.05, "replicates": 500, "seed": 1, "correction": "holm"}
    for policy, blocks in (("ci", False), ("release", True)):
        run = RunRecord(policy, 1, (undecided,), statistics=statistics)
        assert run.passed is not blocks
        for text in (summary(run), markdown(run)):
            assert "-0.01, +0.05]" in text
            assert "1 of 1 verdicts are paired intervals (95%, 500 replicates, seed 1)" in text
        assert "9,000" in summary(run) + explain(undecided)
        suite = ElementTree.fromstring(junit(run)).find("testsuite")
        values = {p.get("name"): p.get("value") for p in suite.find("testcase").iter("property")}
        assert (values["low"], values["high"], values["samples_needed"]) == (
            "-0.01",
            "0.05",
            "9000",
        )
    assert "loss 0.02 [-0.01, +0.05] against margin 0.03 nats" in explain(undecided)
    assert RunRecord.from_plain(run.to_plain()).statistics == statistics


def test_the_terminal_report_counts_names_and_proves():
    text = summary(RUN)
    for expected in (
        "rtn:w4",
        "blocking, worst first",
        "0.19",
        "never reported",
        "abab",
        "99.8%",
        "b/m.json",
    ):
        assert expected in text


def test_a_thousand_cases_with_one_cause_are_one_entry():
    broken = [
        CaseResult("m", "q", "id", f"metric{i}", Verdict.ERROR, "probe 'id': shard 0.tar is gone")
        for i in range(1000)
    ]
    text = summary(RunRecord("ci", 1000, tuple(broken)))
    assert text.count("shard 0.tar is gone") == 1
    assert "1000 cases, first m/q/id.metric0" in text


def test_junit_counts_failures_and_keeps_the_numbers():
    suite = ElementTree.fromstring(junit(RUN)).find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    case = suite.find("testcase")
    properties = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert properties["loss"] == "0.15"
    assert case.find("failure") is not None


def test_markdown_leads_with_the_verdict():
    lines = markdown(RUN).splitlines()
    assert lines[0] == "# clipq reliability gate: failed"
    assert any("m/rtn:w4/id.ece" in line for line in lines)


HOSTILE = ["<script>alert(1)</script>", "a|b", "]]>", "&amp;", "`x`", "\x00\x1b[31m", "**b**"]


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_in_names_and_messages_is_inert(text):
    case = CaseResult(text, text, "id", "ece", Verdict.ERROR, reason=text)
    run = RunRecord("ci", 1, (case,))
    ElementTree.fromstring(junit(run))
    rendered = markdown(run)
    assert "<script>" not in rendered
    assert "| a|b" not in rendered
    json.dumps(run.to_plain(), allow_nan=False)


def test_reports_are_written_whole(tmp_path):
    written = write_reports(RUN, tmp_path / "deep")
    assert [p.rpartition("/")[2] for p in written] == ["junit.xml", "report.json", "report.md"]
    assert json.loads((tmp_path / "deep" / "report.json").read_text())["schema"] == "clipq-run/1"
