"""Reports say the same in every form, worst first, and stay inert with hostile names."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import altered, made_result
from markdown_it import MarkdownIt

from clipq.cli import main
from clipq.records import KernelResult, RunRecord
from clipq.report import write_reports
from clipq.report.annotations import github, gitlab
from clipq.report.card import card_html, card_markdown, release_card
from clipq.report.html import html
from clipq.report.junit import junit
from clipq.report.markdown import MARKER, markdown
from clipq.report.text import explain, summary
from clipq.verdicts import Verdict

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
FAIL = made_result(
    "m", "rtn:w4", "id", "ece", Verdict.FAIL, "", "fraction", "lower", 1, 2048,
    0.04, 0.19, 0.15, 0.02, "clipq gate --model m", EVIDENCE,
)  # fmt: skip
PASS = made_result("m", "rtn:w8", "id", "ece", Verdict.PASS, baseline=0.04, observed=0.05)
RUN = RunRecord("ci", 3, (FAIL, PASS), ("m/rtn:w8/id.top1",), versions={"torch": "2.15.0"})


def test_a_failure_says_by_how_much_against_what_and_what_to_run_next():
    text = explain(FAIL)
    assert "FP32 baseline 0.04, observed 0.19: loss 0.15 > margin 0.02 fraction" in text
    assert "next: clipq gate --model m" in text


def test_what_is_odd_about_prompts_is_said_beside_the_model():
    model = EVIDENCE["models"]["m"] | {"remarks": ["2 of 9 prompts are cut"]}
    run = RunRecord("ci", 1, (altered(FAIL, evidence=EVIDENCE | {"models": {"m": model}}),))
    assert re.search("remark +m +2 of 9 prompts are cut", summary(run))
    assert "- remark on m: 2 of 9 prompts are cut" in markdown(run)
    assert "2 of 9 prompts are cut" in html(run)
    assert "remark" not in summary(RUN)


def test_the_sign_between_loss_and_margin_follows_from_the_numbers():
    unexpected = altered(
        FAIL, loss=0.0012, low=-0.0062, high=0.0086, reason="expected to fail, and passes"
    )
    assert "loss 0.0012 [-0.0062, +0.0086] <= margin 0.02 fraction" in explain(unexpected)
    at_the_margin = altered(FAIL, loss=0.02)
    assert "loss 0.02 <= margin 0.02 fraction" in explain(at_the_margin)


def test_the_worst_case_of_a_pair_may_be_one_with_a_limit():
    limit = altered(
        FAIL, metric="sqnr", unit="dB", direction="higher", baseline=None, observed=1.0, loss=7.0,
        margin=8.0,
    )  # fmt: skip
    mild = altered(FAIL, verdict=Verdict.PASS, loss=0.01)
    broken = altered(FAIL, metric="nll", verdict=Verdict.ERROR, loss=None, margin=None)
    text = summary(RunRecord("ci", 3, (mild, limit, broken)))
    assert "id.sqnr (1.88)" in text  # 1 at the limit, and 7 / 8 beyond it
    assert "id.ece (0.50)" in summary(RunRecord("ci", 2, (mild, broken)))
    kept = altered(limit, verdict=Verdict.PASS, observed=9.0, loss=-1.0)
    assert "id.ece (0.50)" in summary(RunRecord("ci", 2, (mild, kept)))


def test_intervals_and_what_would_decide_are_shown_in_every_form():
    undecided = made_result(
        "m", "rtn:w8", "id", "nll", Verdict.INCONCLUSIVE, unit="nats", samples=2048,
        baseline=0.5, observed=0.52, loss=0.02, margin=0.03, low=-0.01, high=0.05,
        p_value=0.2, adjusted_p=0.4, samples_needed=9000,
    )  # fmt: skip
    statistics = {"alpha": 0.05, "replicates": 500, "seed": 1, "correction": "holm"}
    for policy, blocks in (("ci", False), ("release", True)):
        run = RunRecord(policy, 1, (undecided,), statistics=statistics)
        assert run.passed is not blocks
        for text in (summary(run), markdown(run)):
            assert "-0.01, +0.05" in text
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


UNSURE = altered(
    FAIL, verdict=Verdict.INCONCLUSIVE, low=-0.01, high=0.05, p_value=0.2, adjusted_p=1.0,
    standard_error=0.01, samples_needed=9000,
)  # fmt: skip
UNDER_POWERED = altered(UNSURE, loss=0.01, observed=0.05)
BEYOND = altered(UNSURE, metric="nll", loss=0.03, observed=0.07)
SUSPECT = altered(BEYOND, metric="ace", verdict=Verdict.SUSPECT, p_value=0.04)


def test_what_is_not_decided_says_which_side_of_the_margin_it_lies_on():
    assert "within the margin, but the interval reaches over it" in explain(UNDER_POWERED)
    assert "beyond the margin, but it may be chance" in explain(BEYOND)
    for case in (UNDER_POWERED, BEYOND, SUSPECT):
        assert "2,048 samples cannot tell; about 9,000 could" in explain(case)
    assert "cannot tell" not in explain(replace(BEYOND, verdict=Verdict.FAIL))


def test_a_suspect_case_says_what_that_means_and_what_to_do():
    lines = explain(SUSPECT).splitlines()
    assert lines[0] == "m/rtn:w4/id.ace: suspect"
    assert lines[2:6] == [
        "  probably worse than the margin allows, but not surely (p = 0.04, 1 corrected for the "
        "candidate's cases)",
        "  2,048 samples cannot tell; about 9,000 could",
        "  or keep in float what `clipq blame m/rtn:w4/id.ace` names",
        "  or sign a waiver that says why it may stay",
    ]


def test_a_loss_at_the_margin_is_not_promised_to_be_decided_by_samples():
    said = "the loss lies at the margin: more samples will not tell"
    for case in (UNDER_POWERED, BEYOND, SUSPECT):
        at_margin = altered(case, samples_needed=None)
        assert said in explain(at_margin)
        assert "cannot tell" not in explain(at_margin)
        text = summary(RunRecord("ci", 2, (at_margin, UNSURE)))
        assert "at the margin (1): more samples will not tell" in text
    assert said not in explain(altered(UNSURE, samples_needed=None, standard_error=None))


def test_the_terminal_lists_what_is_not_decided_suspects_first_and_what_blocks_by_the_policy():
    cases = (UNDER_POWERED, BEYOND, SUSPECT)
    text = summary(RunRecord("ci", 3, cases))
    table = text.partition("not decided:")[2]
    assert "(suspect blocks, inconclusive does not block under ci)" in table
    assert table.index("id.ace") < table.index("id.nll") < table.index("id.ece")
    strict = summary(RunRecord("ship", 3, cases, blocks=("fail", "inconclusive")))
    assert "(suspect does not block, inconclusive blocks under ship)" in strict


def test_failures_are_said_to_be_corrected_within_each_candidate():
    statistics = {
        "alpha": 0.05, "replicates": 500, "seed": 1, "correction": "holm", "suspicion": 0.16,
    }  # fmt: skip
    said = "corrected within each candidate (holm); suspect below p = 0.16 at the margin."
    for text in (form(RunRecord("ci", 1, (UNSURE,), statistics=statistics))
                 for form in (summary, markdown)):  # fmt: skip
        assert said in text


def test_every_form_knows_a_suspect_and_its_policy():
    blocked = RunRecord("ci", 1, (SUSPECT,))
    waved = RunRecord("lax", 1, (SUSPECT,), blocks=("fail",))
    assert (blocked.passed, waved.passed) == (False, True)
    assert github(blocked).startswith("::error ")
    assert github(waved).startswith("::warning ")
    for run, failures in ((blocked, "1"), (waved, "0")):
        suite = ElementTree.fromstring(junit(run)).find("testsuite")
        assert suite.get("failures") == failures
        values = {p.get("name"): p.get("value") for p in suite.find("testcase").iter("property")}
        assert (values["verdict"], values["undecided"]) == ("suspect", "beyond the margin")
    assert "**1 block**, 0 pass" in markdown(blocked)
    assert "1 suspect, 0 pass" in markdown(waved)
    assert "Not decided, beyond the margin: 1" in markdown(waved)
    assert "Not decided" not in markdown(blocked)


def test_markdown_divides_what_is_not_decided():
    text = markdown(RunRecord("ci", 2, (UNDER_POWERED, BEYOND)))
    beyond, under_powered = text.split("<details>")[1:3]
    assert "beyond the margin: 1" in beyond
    assert "id.nll" in beyond
    assert "under-powered: 1" in under_powered
    assert "id.ece" in under_powered


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
        made_result("m", "q", "id", f"metric{i}", Verdict.ERROR, "probe 'id': shard 0.tar is gone")
        for i in range(1000)
    ]
    text = summary(RunRecord("ci", 1000, tuple(broken)))
    assert text.count("shard 0.tar is gone") == 1
    assert "1000 cases, first m/q/id.metric0" in text


def test_junit_counts_failures_and_keeps_the_numbers():
    suite = ElementTree.fromstring(junit(RUN)).find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    case = suite.find("testcase")
    properties = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert properties["loss"] == "0.15"
    assert case.find("failure") is not None


def test_markdown_leads_with_the_verdict_and_a_marker_for_bots():
    lines = markdown(RUN).splitlines()
    assert lines[:2] == [MARKER, "# clipq reliability gate: failed"]
    assert any("m/rtn:w4/id.ece" in line for line in lines)
    assert "**1 block**, 0 pass" in markdown(RUN)


@pytest.mark.parametrize("cases", [1, 500, 5000])
def test_markdown_fits_a_comment_whatever_the_number_of_cases(cases):
    broken = [
        made_result("m" * 40, f"rtn:w{i}", "id", f"metric{i}", Verdict.FAIL, "why " * 40, loss=1.0)
        for i in range(cases)
    ]
    text = markdown(RunRecord("ci", cases, tuple(broken)))
    assert len(text) <= 60_000
    assert text.startswith(MARKER)
    assert text.count("<details>") == text.count("</details>")
    if cases > 30:
        assert f"... and {cases - 30:d} more in `report.json`." in text or cases == 5000


WAIVER = {
    "cases": ["m/rtn:w4/id.*"],
    "reason": "accepted for the pilot",
    "owner": "ada@example.org",
    "expires": "2026-12-31",
    "waived": [f"m/rtn:w4/id.metric{i}" for i in range(38)],
}


def test_markdown_names_who_waived_what_and_until_when():
    text = markdown(RunRecord("ci", 1, (PASS,), waivers=(WAIVER,)))
    (row,) = (line for line in text.splitlines() if "accepted for the pilot" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "ada&#64;example.org", "accepted for the pilot", "2026-12-31", "38", "m/rtn:w4/id.\\*",
    ]  # fmt: skip
    assert "<summary>Waivers: 1, of 38 cases</summary>" in text
    assert "Waivers" not in markdown(RUN)
    assert "| kim " in markdown(replace(RUN, waivers=({"owner": "kim", "cases": 4},)))


def test_many_and_wordy_waivers_do_not_drive_all_else_out_of_a_comment():
    wordy = [{**WAIVER, "reason": "why " * 5000, "owner": f"o{i}"} for i in range(500)]
    text = markdown(replace(RUN, waivers=tuple(wordy)))
    assert len(text) <= 60_000
    assert "## Blocking, worst first" in text
    assert "| o29 " in text
    assert "| o30 " not in text
    assert "... and 470 more in `report.json`." in text


def test_equal_runs_give_equal_markdown():
    assert markdown(RUN) == markdown(RunRecord.from_plain(RUN.to_plain()))


PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "</details><h1>passed</h1>",
    "</table><b>",
    "<!-- -->",
    "-->",
    "]]>",
    "<![CDATA[",
    "<?xml?>",
    "&lt;b&gt;",
    "&#60;script&#62;",
    "a|b",
    "`x`",
    "```\n# heading",
    "**b**",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "https://evil.example",
    "@everyone",
    "#1",
    "\x00\x1b[31m",
    "\u202e\u2066",
    "::error::x",
    "%0A::set-output name=x::y",
    "\n::add-mask::x",
    '" onmouseover="alert(1)',
]


ALLOWED = {
    *("h1", "h2", "p", "ul", "li", "strong", "code", "details", "summary", "blockquote"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


class Tags(HTMLParser):
    """The elements and comments of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.comments: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)

    def handle_comment(self, data):
        self.comments.append(data)


def hostile_run(text: str) -> RunRecord:
    case = made_result(
        text, text, text, text, Verdict.ERROR, reason=text, unit=text, next_command=text,
        evidence={
            "models": {text: {"source": text, "weights_sha256": text, "remarks": [text]}},
            "probes": {text: {"samples": 1, "fingerprint": text, "role": "ood"}},
            "baselines": {text: {"file": text, "columns_sha256": text, "approved": text,
                                 "reason": text}},
        },
    )  # fmt: skip
    return RunRecord(
        "ci", 2, (case,), (text,), versions={text: text}, warnings=(text,), problems=(text,),
        commit={"sha": text, "subject": text}, started=text,
        waivers=({"owner": text, "reason": text, "expires": text, "cases": [text],
                  "waived": [text]},),
        kernels=(KernelResult(text, text, "fail", text, text, text),),
    )  # fmt: skip


@pytest.mark.parametrize("text", PAYLOADS)
def test_markup_in_names_paths_and_messages_is_inert(text):
    run = hostile_run(text)
    root = ElementTree.fromstring(junit(run))
    assert {element.tag for element in root.iter()} == {
        "testsuites", "testsuite", "properties", "property", "testcase", "error", "failure",
    }  # fmt: skip
    source = markdown(run)
    tags = Tags()
    tags.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(source))
    assert tags.seen <= ALLOWED
    assert tags.comments == [" clipq report "]
    outside_code = re.sub(r"`[^`\n]*`", "", source)
    for active in ("://", "@everyone"):  # what a code host links or notifies by itself
        assert active not in outside_code
    json.dumps(run.to_plain(), allow_nan=False)


@given(text=st.text(max_size=30) | st.sampled_from(PAYLOADS))
@settings(max_examples=25, deadline=None)
def test_whatever_names_say_every_form_is_text_that_neither_terminals_nor_services_obey(text):
    run = hostile_run(text or "x")
    card = release_card(run, run.cases[0].case.candidate)
    forms = [summary(run), markdown(run), junit(run), explain(run.cases[0]), card_markdown(card)]
    for shown in forms:
        assert all(letter == "\n" or letter.isprintable() for letter in shown)
        assert not any(line.lstrip().startswith("::") for line in shown.split("\n"))
        assert not re.search(r"##(\w*)\[", shown)
    ElementTree.fromstring(junit(run))
    for shown in (github(run), html(run), gitlab(run), card_html(card)):
        shown.encode()
        assert "\x1b" not in shown
    assert all(line.startswith(("::error ", "::warning ")) for line in github(run).splitlines())


@pytest.mark.parametrize("text", PAYLOADS)
def test_annotations_hold_no_command_but_their_own(text):
    lines = github(hostile_run(text)).splitlines()
    assert len(lines) == 5  # a case, a kernel, a waiver, an unreported case; a warning
    pattern = r"::(error|warning) (file=[^:,]*,)?title=[^:,]*::.*"
    assert all(re.fullmatch(pattern, line) for line in lines), lines
    assert all("location" in issue for issue in json.loads(gitlab(hostile_run(text))))


def test_annotations_put_what_blocks_first_and_count_what_is_left_out():
    cases = [
        made_result("m", "q", "id", f"metric{i:02d}", Verdict.FAIL, loss=float(i), margin=1.0)
        for i in range(25)
    ]
    lines = github(RunRecord("ci", 25, tuple(cases))).splitlines()
    assert len(lines) == 10
    assert "id.metric24%3A fail" in lines[0]
    assert lines[-1].endswith("::16 more: see the report")
    passed = RunRecord("ci", 1, (PASS,))
    assert github(passed) == "::notice title=clipq::reliability gate passed: 1 cases"


def test_a_waived_case_is_told_from_an_expected_failure():
    signed = replace(FAIL, verdict=Verdict.WAIVED, reason="waived by ada", waived_by="ada")
    expected = altered(FAIL, quantizer="rtn:w2", verdict=Verdict.WAIVED, reason="expected: noise")
    text = summary(RunRecord("ci", 2, (signed, expected)))
    assert text.index("expected failures:") < text.index("waived:\n  waived: m/rtn:w4/id.ece")


def test_a_waiver_that_is_wrong_fails_a_run_in_every_form():
    run = RunRecord("ci", 1, (PASS,), problems=("waiver 'x' of ada expired on 2026-01-01",))
    assert not run.passed
    for text in (summary(run), markdown(run), github(run)):
        assert "of ada expired on 2026" in text


def test_reports_are_written_whole(tmp_path):
    written = write_reports(RUN, tmp_path / "deep")
    names = ["junit.xml", "report.html", "report.json", "report.md"]
    assert [p.rpartition("/")[2] for p in written] == names
    assert json.loads((tmp_path / "deep" / "report.json").read_text())["schema"] == "clipq-run/6"


LOW = altered(
    FAIL, metric="sqnr", unit="dB", direction="higher", baseline=None, observed=1.0, loss=7.0,
    margin=8.0,
)  # fmt: skip
HIGH = altered(LOW, quantizer="rtn:w8", verdict=Verdict.PASS, observed=9.0, loss=-1.0)
CONSISTENT = replace(RUN, cases=(LOW, HIGH))


@pytest.mark.parametrize("form", ["text", "markdown", "junit", "html", "github", "gitlab"])
def test_a_stored_record_is_shown_again_in_every_form(tmp_path, capsys, form):
    write_reports(CONSISTENT, tmp_path)
    assert main(["report", str(tmp_path / "report.json"), "--format", form]) == 1
    assert "m/rtn" in capsys.readouterr().out
    output = tmp_path / "again"
    arguments = ["report", str(tmp_path / "report.json"), "--format", form]
    assert main([*arguments, "--output", str(output)]) == 1
    assert output.stat().st_size > 100


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"cases": (HIGH,)}, "3 cases were planned, and it accounts for 2"),
        ({"unreported": ("kernel/check",)}, "3 cases were planned, and it accounts for 2"),
        (
            {"cases": (altered(LOW, verdict=Verdict.PASS), HIGH), "unreported": (), "planned": 2},
            "m/rtn:w4/id.sqnr is 'pass', its numbers say 'fail'",
        ),
    ],
)
def test_an_edited_record_is_not_shown_again(tmp_path, capsys, edit, said):
    write_reports(replace(CONSISTENT, **edit), tmp_path)
    assert main(["report", str(tmp_path / "report.json")]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""
