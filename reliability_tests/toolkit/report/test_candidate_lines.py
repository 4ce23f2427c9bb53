"""The line of a candidate says what it costs, whether it passes, and what is not decided."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_results import altered, made_result

from clipq.records import CaseResult, RunRecord
from clipq.report.candidates import candidate_lines
from clipq.report.text import summary
from clipq.report.undecided import Undecided, undecided
from clipq.verdicts import Verdict

PROBES = {
    name: {"role": role, "samples": 100, "fingerprint": "ab"}
    for name, role in (("id", "in-distribution"), ("digits", "ood"))
}


def case(
    metric: str,
    loss: float | None = 0.0,
    *,
    verdict: Verdict = Verdict.PASS,
    half: float | None = 0.005,
    observed: float | None = 0.5,
    quantizer: str = "rtn:w4",
    probe: str = "id",
    margin: float = 0.02,
) -> CaseResult:
    around = {} if half is None or loss is None else {"low": loss - half, "high": loss + half}
    return made_result(
        "vit", quantizer, probe, metric, verdict, baseline=0.5, observed=observed, loss=loss,
        margin=margin, evidence={"probes": PROBES}, **around,
    )  # fmt: skip


def only_line(*cases: CaseResult, **run) -> str:
    (line,) = candidate_lines(RunRecord("ci", len(cases), cases, **run))
    return str(line)


def test_cost_is_accuracy_answers_changed_and_calibration_in_distribution():
    cases = [
        case("top1", 0.011, verdict=Verdict.FAIL),
        case("flip-rate", 0.094, observed=0.094),
        case("ece", -0.0123),
        case("top1", 0.4, probe="digits"),
    ]
    assert only_line(*cases) == (
        "vit/rtn:w4: blocked by 1 fail; top-1 -1.1 points, 9.4 % of answers change, ECE -0.012; "
        "4 of 4 decided"
    )


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (case("top1", 0.001), "top-1 unchanged"),
        (case("top1", 0.001, half=0.03), "top-1 -0.1 points"),  # the interval reaches over
        (case("top1", 0.010), "top-1 -1.0 points"),  # surely worse, though within the margin
        (case("top1", -0.010), "top-1 +1.0 points"),
        (case("top1", 0.0002, half=None), "top-1 -0.02 points"),
        (case("top1", 0.0, half=None), "top-1 unchanged"),
        (case("ece", 0.0004, half=None), "ECE +0.0004"),
        (case("flip-rate", 0.0, observed=0.0), "no answer changes"),
        (case("flip-rate", 0.3, observed=0.304), "30 % of answers change"),
        (case("flip-rate", 1.0, observed=1.0), "100 % of answers change"),
        (case("flip-rate", 0.001, observed=0.0012), "0.12 % of answers change"),
    ],
)
def test_what_lies_within_noise_and_margin_is_unchanged(made, said):
    assert only_line(made) == f"vit/rtn:w4: passes ci; {said}; 1 of 1 decided"


def test_what_was_not_measured_is_left_out_of_the_cost():
    broken = case("top1", None, verdict=Verdict.ERROR, observed=None)
    unknown = case("flip-rate", None, verdict=Verdict.MISSING, observed=None)
    line = only_line(broken, unknown, case("ece", None, observed=None), case("auroc"))
    assert line == (
        "vit/rtn:w4: blocked by 1 error, 1 missing; 2 of 4 decided; not decided: 2 not judged"
    )


def test_without_an_in_distribution_probe_the_first_labelled_one_tells_the_cost():
    elsewhere = [
        replace(case(metric, 0.011, probe="shifted"), evidence={}) for metric in ("top1", "ece")
    ]
    assert "top-1 -1.1 points, ECE +0.011" in only_line(*elsewhere)
    assert only_line(case("top1", 0.4, probe="digits")) == ("vit/rtn:w4: passes ci; 1 of 1 decided")


def test_what_is_not_decided_is_beyond_the_margin_or_under_powered():
    cases = [
        case("a", 0.03, verdict=Verdict.SUSPECT),
        case("b", 0.03, verdict=Verdict.INCONCLUSIVE),
        case("c", 0.01, verdict=Verdict.INCONCLUSIVE),
        case("d", -0.03, verdict=Verdict.INCONCLUSIVE, margin=-0.05),  # a demand, not met
        case("e", 0.02, verdict=Verdict.INCONCLUSIVE),  # at the margin
        case("f", 0.03, verdict=Verdict.FAIL),
        case("g", 0.03, verdict=Verdict.WAIVED),
    ]
    beyond, under = Undecided.BEYOND, Undecided.UNDER_POWERED
    assert [undecided(one) for one in cases] == [beyond, beyond, under, beyond, under, None, None]
    line = only_line(*cases)
    assert "blocked by 1 fail, 1 suspect; 2 of 7 decided, 1 of them waived; " in line
    assert line.endswith("not decided: 3 beyond the margin, 2 under-powered")


def test_the_policy_of_the_run_says_what_blocks():
    doubtful = case("ece", 0.03, verdict=Verdict.INCONCLUSIVE)
    assert "passes ci; " in only_line(doubtful)
    (line,) = candidate_lines(RunRecord("release", 1, (doubtful,)))
    assert "blocked by 1 inconclusive; " in str(line)
    (line,) = candidate_lines(RunRecord("ship", 1, (doubtful,), blocks=("fail",)))
    assert "passes ship; " in str(line)


@pytest.mark.parametrize(
    ("run", "complete"),
    [
        ({}, True),
        ({"selection": {"models": ["v*"], "profile": ["default"], "of": 9}}, True),
        ({"selection": {"probes": ["id"], "of": 9}}, False),
        ({"selection": {"profile": ["quick"], "of": 9}}, False),
        ({"selection": {"probes": ["id"], "of": 9, "complete": ["vit/rtn:w4"]}}, True),
        ({"unreported": ("vit/rtn:w4/id.nll",)}, False),
    ],
)
def test_a_part_of_a_candidate_passes_only_as_far_as_it_was_measured(run, complete):
    state = "passes ci" if complete else "passes ci as far as measured"
    assert f": {state}; " in only_line(case("ece"), **run)


def test_blocked_candidates_come_first_and_the_worst_of_each_kind_before_the_others():
    cases = (
        case("ece", 0.001, quantizer="a"),
        case("ece", 0.01, quantizer="b"),
        case("ece", 0.03, quantizer="c", verdict=Verdict.FAIL),
        case("ece", 0.09, quantizer="d", verdict=Verdict.SUSPECT),
    )
    lines = candidate_lines(RunRecord("ci", 4, cases))
    assert [line.candidate.quantizer for line in lines] == ["d", "c", "b", "a"]


def test_of_hundreds_of_candidates_the_terminal_lists_those_that_block():
    good = [case("ece", quantizer=f"good{index}") for index in range(300)]
    bad = [altered(good[0], quantizer=f"bad{i}", verdict=Verdict.FAIL) for i in range(3)]
    text = summary(RunRecord("ci", 303, (*good, *bad))).partition("candidates, worst first:")[2]
    lines = text.partition("\n\n")[0].strip().splitlines()
    assert len(lines) == 4
    assert lines[-1].strip() == "... and 300 that pass ci: report.html has their lines"
    worse = [altered(bad[0], quantizer=f"bad{index}") for index in range(40)]
    text = summary(RunRecord("ci", 340, (*good, *worse)))
    assert "... and 15 more that are blocked: report.html" in text
    assert "... and 300 that pass ci" in text


@pytest.mark.parametrize(
    ("quantizer", "said"),
    [
        ({"share": None}, "; coverage: not reported"),
        ({"share": 0.62}, "; 38 % of weight multiply-adds left in float"),
        (
            {"share": 0.999, "exceptions": {"float": "texts are cached"}},
            "; declares float: texts are cached",
        ),
        ({"share": 1.0}, "decided"),
        ({}, "decided"),
    ],
)
def test_what_is_not_known_of_a_quantizer_ends_its_line(quantizer, said):
    made = case("top1", 0.001)
    name = str(made.case.candidate)
    made = replace(made, evidence={"probes": PROBES, "quantizers": {name: quantizer}})
    assert only_line(made).endswith(said)
