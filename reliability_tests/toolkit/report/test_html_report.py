"""The HTML report in a real browser: what is on it, filters, links, keys, themes and paper."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import combinations, product
from urllib.parse import quote

import pytest
from made_results import altered, made_result
from synthetic_runs import synthetic_run

from clipq.records import KernelResult, RunRecord
from clipq.report import report_formats
from clipq.report.candidates import candidate_lines
from clipq.report.html import html
from clipq.report.html.page import outcome
from clipq.report.undecided import Undecided, undecided
from clipq.verdicts import Verdict

FAIL = made_result(
    "m", "rtn:w4", "id", "ece", Verdict.FAIL, "worse than the margin", "fraction", "lower", 1, 2048,
    0.04, 0.19, 0.15, 0.02, "clipq gate --model m", low=0.13, high=0.17, p_value=1e-4,
    adjusted_p=2e-4, standard_error=0.01,
)  # fmt: skip
FLOOR = made_result(
    "m", "rtn:w4", "id", "sqnr", Verdict.PASS, unit="dB", direction="higher", samples=2048,
    observed=-5.0, loss=-55.0, margin=-60.0,
)  # fmt: skip
KERNELS = (
    KernelResult("fake-quantize", "saturation", "pass", where="cpu", source="C++"),
    KernelResult("fake-quantize", "strides", "fail", "differs at [3, 1]", "cpu", "C++"),
    KernelResult("hadamard", "strides", "not-run", "no GPU", "", "CUDA C++"),
)


@pytest.fixture(scope="module")
def run() -> RunRecord:
    return synthetic_run(5000)


def test_an_artifact_has_its_facts_its_findings_and_its_ladder(open_report):
    entry = {
        "runtime": "onnxruntime", "versions": {"onnxruntime": "1.32.0"}, "bytes": 10**6,
        "float_bytes": 4 * 10**6, "files": {"image": {"i.onnx": "ab" * 32}}, "simulation": "rtn:w8",
        "findings": [{"kind": "a", "problem": "a scale is infinite", "fix": "leave the mask out"}],
    }  # fmt: skip
    kinds = {
        "artifacts": {"m/ort": entry},
        "quantizers": {"m/rtn:w8": {"code_sha256": "0", "bytes": 9}},
    }
    top1 = altered(FAIL, metric="top1", quantizer="ort", evidence=kinds)
    cases = (top1, altered(top1, quantizer="rtn:w8", loss=0.05, low=0.04, high=0.06, evidence={}))
    record = RunRecord("ci", 2, cases, not_applicable={"m/ort": {"gradients": 3}})
    page = open_report(record)
    shown = page.locator("#artifacts").inner_text()
    assert "onnxruntime 1.32.0" in shown
    assert "i.onnx abababab" in shown
    assert "1 MB (25.0 % of FP32)" in shown
    assert "no m/ort-float in this run: what export loses is in the rest" in shown
    row = plain(" ".join(page.locator("#artifacts tbody tr").inner_text().split()))
    assert row == "id.top1 +0.1500 [0.1300, 0.1700] +0.0500 [0.0400, 0.0600] +0.1000 5.00x"
    notices = " ".join(page.locator(".notice").all_inner_texts())
    assert "Finding, m/ort: a scale is infinite fix: leave the mask out" in notices
    assert "3 cases of m/ort are not applicable: they need gradients" in notices
    assert "ort" in page.locator("#pareto").inner_text()


@pytest.fixture(scope="module")
def text(run: RunRecord) -> str:
    return html(run)


def listing(page) -> str:
    return page.locator("#listing").inner_text()


def plain(text: str) -> str:
    """Return typography as one types it."""
    return text.replace("\N{MULTIPLICATION SIGN}", "x").replace("\N{MINUS SIGN}", "-")


def names(page) -> list[str]:
    return [" ".join(name.split()) for name in page.locator("#rows .opener").all_inner_texts()]


def test_it_is_one_of_the_formats_that_every_gate_writes():
    assert report_formats.get("report.html") is html


def test_5000_cases_load_without_5000_rows(text, open_report):
    assert len(text.encode()) < 8 * 2**20
    page = open_report(text)
    assert page.locator("h1").inner_text() == "Gate failed"
    assert "5,000 of 5,000 planned cases were reported. 34 cases block." in page.inner_text("main")
    assert listing(page).startswith("5,000 cases")
    assert page.locator("#rows tr").count() == 50
    page.click("#later")
    assert page.locator("#rows tr").count() == 100


def test_what_blocks_comes_first_with_its_command(run, text, open_report):
    page = open_report(text)
    worst, *_ = run.blocking
    assert f"{worst.probe}.{worst.metric}" in page.inner_text("#blocking")
    assert worst.next_command in page.inner_text("#blocking .commands")
    assert names(page)[0].startswith(f"{worst.probe}.{worst.metric}")


def test_filters_and_search_narrow_the_list(run, text, open_report):
    page = open_report(text)
    page.locator("#cases").get_by_label("model").select_option("coca")
    expected = [case for case in run.cases if case.model == "coca"]
    assert listing(page).startswith(f"{len(expected):,} of 5,000 cases")
    chip = "#cases [data-verdict=under-powered]"
    page.click(chip)
    expected = [case for case in expected if undecided(case) is Undecided.UNDER_POWERED]
    assert listing(page).startswith(f"{len(expected):,} of 5,000 cases")
    assert page.locator(chip).get_attribute("aria-pressed") == "true"
    page.fill("#find", "W4A4 id.")
    expected = [case for case in expected if "w4a4" in case.id and "id." in case.id]
    assert 0 < len(expected) == page.locator("#rows tr").count()
    page.fill("#find", "no such thing")
    assert listing(page) == "No case matches."
    page.click("#reset")
    assert listing(page).startswith("5,000 cases")
    assert page.input_value("#find") == ""


def test_filters_survive_a_reload(text, open_report):
    page = open_report(text)
    page.fill("#find", "id.top1")
    page.click("[data-column=loss] button")
    before = (listing(page), names(page))
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert (listing(page), names(page)) == before
    assert page.input_value("#find") == "id.top1"


def test_columns_sort_both_ways_and_say_so(run, text, open_report):
    page = open_report(text)
    ordered = sorted(run.cases, key=lambda case: case.estimate.loss)
    for expected, direction in ((ordered[-1], "descending"), (ordered[0], "ascending")):
        page.click("[data-column=loss] button")
        assert page.locator("[data-column=loss]").get_attribute("aria-sort") == direction
        assert names(page)[0] == (
            f"{expected.probe}.{expected.metric} {expected.model} / {expected.quantizer}"
        )
    page.click("[data-column=loss] button")
    assert page.locator("[data-column=loss]").get_attribute("aria-sort") is None


def test_a_link_opens_its_case_and_survives_a_reload(run, text, open_report):
    passed = [case for case in run.cases if case.verdict is Verdict.PASS]
    case = min(passed, key=lambda case: case.severity)  # the very end of the list
    page = open_report(text, f"case={quote(case.id, safe='')}")
    for _ in range(2):
        row = page.locator("#rows tr.open")
        assert row.get_by_role("button").get_attribute("aria-expanded") == "true"
        assert " ".join(row.locator(".opener").inner_text().split()) == (
            f"{case.probe}.{case.metric} {case.model} / {case.quantizer}"
        )
        top = row.bounding_box()["y"]
        assert 0 <= top <= page.viewport_size["height"]
        page.reload()
        page.wait_for_selector("html[data-ready]", state="attached")
    assert page.locator("#earlier").is_visible()


def test_a_link_goes_before_filters_that_hide_its_case(run, text, open_report):
    case = next(case for case in run.cases if case.model == "coca")
    page = open_report(text, f"case={quote(case.id, safe='')}&model=siglip")
    assert page.locator("#detail").is_visible()
    assert listing(page).startswith("5,000 cases")


def test_a_link_to_a_case_that_is_not_there_shows_the_list(text, open_report):
    page = open_report(text, "case=no/such.case&sort=constructor&verdict=nonsense&pair=__proto__")
    assert page.locator("#detail").count() == 0
    assert listing(page) == "No case matches."


def test_the_link_to_an_open_case_can_be_copied(text, open_report):
    page = open_report(text, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#rows .opener").first.click()
    page.locator("#detail").get_by_text("Copy link").click()
    page.wait_for_selector("#detail :text-is('Copied')")
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_y_copies_the_link_and_not_the_command_of_the_open_case(open_report):
    page = open_report(
        RunRecord("ci", 1, (FAIL,)), permissions=["clipboard-read", "clipboard-write"]
    )
    page.locator("#rows .opener").first.click()
    page.keyboard.press("y")
    page.wait_for_selector("#detail :text-is('Copied')")
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_back_closes_what_was_opened(text, open_report):
    page = open_report(text)
    page.locator("#rows .opener").first.click()
    assert page.locator("#detail").is_visible()
    page.go_back()
    page.wait_for_selector("#detail", state="detached")


def test_a_cell_of_the_heat_map_opens_the_metrics_of_its_pair(run, text, open_report):
    page = open_report(text)
    assert page.locator("[data-pair]").count() == 50
    cell = page.locator("[data-pair='coca/rtn:w4a4']")
    assert re.search("inconclusive|waived|fail", cell.get_attribute("aria-label"))
    cell.click()
    assert cell.get_attribute("aria-expanded") == "true"
    mine = [case for case in run.cases if (case.model, case.quantizer) == ("coca", "rtn:w4a4")]
    assert page.locator("#pair tbody tr:not(.group)").count() == len(mine)
    assert page.locator("#pair .group").count() == len({case.probe for case in mine})
    page.locator("#pair tbody a").first.click()
    assert page.locator("#detail").is_visible()
    assert page.locator("#pair .panel").is_visible()


def test_keys_search_walk_open_and_leave(text, open_report):
    page = open_report(text)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.keyboard.type("id.top1")
    page.keyboard.press("Escape")
    assert page.input_value("#find") == ""
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    focused = "document.activeElement.dataset.case"
    second = page.locator("#rows .opener").nth(1).get_attribute("data-case")
    assert page.evaluate(focused) == second
    assert page.evaluate("document.activeElement.matches(':focus-visible')")
    page.keyboard.press("Enter")
    assert page.locator("#detail").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#detail").count() == 0
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_walking_past_the_last_row_makes_more(text, open_report):
    page = open_report(text)
    page.locator("#rows .opener").last.focus()
    page.keyboard.press("j")
    assert page.locator("#rows .opener").count() == 100
    assert page.evaluate("document.activeElement.matches('[data-case]')")


def test_a_row_shows_its_interval_and_an_arrow_where_it_is_clipped(open_report):
    inside = altered(FAIL, metric="nll", loss=0.03, low=0.025, high=0.035, observed=0.07)
    page = open_report(RunRecord("ci", 2, (FAIL, inside)))
    clipped, shown = page.locator("#rows svg").all()
    assert (
        plain(clipped.get_attribute("aria-label"))
        == "loss 7.50x the margin, interval 6.50x to 8.50x"
    )
    assert (clipped.locator(".arrow").count(), clipped.locator(".point").count()) == (1, 0)
    assert (shown.locator(".arrow").count(), shown.locator(".point").count()) == (0, 1)


def test_details_say_it_in_words_with_the_next_command(open_report):
    page = open_report(RunRecord("ci", 1, (FAIL,), statistics={
        "alpha": 0.05, "replicates": 500, "seed": 20250921, "correction": "holm",
    }))  # fmt: skip
    page.locator("#rows .opener").click()
    detail = plain(page.inner_text("#detail"))
    assert "Worse than FP32 by 0.15 fraction, 7.50x the margin (lower is better)." in detail
    assert "95 % interval of the loss\n[+0.13, +0.17]" in detail
    for part in ("worse than the margin", "clipq gate --model m", "2,048"):
        assert part in detail
    assert "20250921" in page.inner_text("#provenance")


UNSURE = altered(
    FAIL, verdict=Verdict.INCONCLUSIVE, reason="", loss=0.03, low=-0.01, high=0.05, p_value=0.2,
    adjusted_p=1.0, samples_needed=9000,
)  # fmt: skip
UNDECIDED = (
    altered(UNSURE, quantizer="rtn:w3", verdict=Verdict.SUSPECT, p_value=0.04),
    UNSURE,
    altered(UNSURE, quantizer="rtn:w8", loss=0.01),
)


def test_an_undecided_case_says_on_which_side_of_its_margin_it_lies(open_report):
    page = open_report(RunRecord("ci", 3, UNDECIDED))
    for row, said in enumerate((
        "Probably worse than the margin allows, but not surely. 2,048 samples cannot tell; about "
        "9,000 could. Or keep layers in float (clipq blame), or sign a waiver.",
        "beyond the margin, but it may be chance. 2,048 samples cannot tell; about 9,000 could.",
        "within the margin, but the interval reaches over it. 2,048 samples cannot tell",
    )):  # fmt: skip
        page.locator("#rows .opener").nth(row).click()
        assert said in plain(page.inner_text("#detail"))


def test_a_loss_at_the_margin_is_not_promised_to_be_decided_by_samples(open_report):
    cases = [altered(case, samples_needed=None) for case in UNDECIDED]
    page = open_report(RunRecord("ci", 3, tuple(cases)))
    for row in range(3):
        page.locator("#rows .opener").nth(row).click()
        detail = plain(page.inner_text("#detail"))
        assert "The loss lies at the margin: more samples will not tell." in detail
        assert "cannot tell;" not in detail


def test_the_heat_map_tells_beyond_the_margin_from_under_powered_and_from_suspect(open_report):
    page = open_report(RunRecord("ci", 3, UNDECIDED))
    cells = page.locator("#heatmap .cell")
    said = [" ".join(text.split("\n")[:2]) for text in cells.all_inner_texts()]
    assert said == ["\N{BLACK DIAMOND} 1 suspect", "\N{WHITE DIAMOND} 1 beyond-margin",
                    "? 1 under-powered"]  # fmt: skip
    colours = cells.evaluate_all("all => all.map((node) => getComputedStyle(node).backgroundColor)")
    assert len(set(colours)) == 3
    for cell, name in zip(cells.all(), ("suspect", "beyond-margin", "under-powered"), strict=True):
        assert f": {name}; 1 {name}; worst: " in cell.get_attribute("aria-label")
    key = page.locator("#heatmap [aria-label='What is not decided'] li")
    assert key.locator(".word").all_inner_texts() == ["suspect", "beyond-margin", "under-powered"]


def test_the_page_divides_what_is_not_decided_as_the_other_reports_do(run, text, open_report):
    page = open_report(text)
    unsure = [case for case in run.cases if case.verdict is Verdict.INCONCLUSIVE]
    counted = Counter(map(undecided, unsure))
    chips = {
        chip.get_attribute("data-verdict"): int(chip.locator("b").inner_text().replace(",", ""))
        for chip in page.locator("#cases .count").all()
    }
    assert chips["beyond-margin"] == counted[Undecided.BEYOND] > 0
    assert chips["under-powered"] == counted[Undecided.UNDER_POWERED] > 0


def test_a_link_to_inconclusive_cases_shows_both_kinds(open_report):
    page = open_report(RunRecord("ci", 3, UNDECIDED), fragment="verdict=inconclusive")
    assert listing(page).startswith("2 of 3 cases")
    pressed = page.locator("#cases .count[aria-pressed=true]")
    assert pressed.locator(".word").all_inner_texts() == ["under-powered", "beyond-margin"]
    page.click("#cases [data-verdict=beyond-margin]")
    assert listing(page).startswith("1 of 3 cases")


def test_each_candidate_has_its_line_the_worst_first_and_leads_to_its_metrics(run, open_report):
    page = open_report(RunRecord("ci", 3, UNDECIDED))
    lines = [str(line) for line in candidate_lines(RunRecord("ci", 3, UNDECIDED))]
    shown = page.locator("#candidates li .wrap")
    assert [" ".join(text.split()) for text in shown.all_inner_texts()] == lines
    page.get_by_role("link", name="m/rtn:w8").first.click()
    assert lines[-1].partition(": ")[2] in page.inner_text("#pair")
    many = open_report(run)
    assert many.locator("#candidates li:visible").count() == 6
    assert many.inner_text("#candidates summary") == "44 more candidates, 0 of them blocked"


def test_a_limit_below_zero_that_is_kept_is_drawn_as_kept(open_report):
    sampled = altered(FLOOR, metric="sqnr-low", low=-57.0, high=-54.0)
    page = open_report(RunRecord("ci", 2, (FLOOR, sampled)))
    labels = [plain(svg.get_attribute("aria-label")) for svg in page.locator("#rows svg").all()]
    assert labels == [
        "loss 0.08x the limit, no interval",
        "loss 0.08x the limit, interval 0.05x to 0.10x",
    ]
    picture = page.locator("#rows svg").first
    assert picture.locator(".zero").count() == 0
    page.locator("#rows .opener").first.click()
    assert "Observed -5 against a limit of -60 dB." in plain(page.inner_text("#detail"))


def test_every_kind_of_chart_is_drawn_for_the_chosen_pair(text, open_report):
    page = open_report(text)
    kinds = [heading.lower() for heading in page.locator("#charts h3").all_inner_texts()]
    assert kinds == ["calibration", "out of distribution", "corruptions", "subgroups", "spectra"]
    labels = page.locator("#charts svg[role=img]").evaluate_all(
        "all => all.map((node) => node.getAttribute('aria-label'))"
    )
    for start in ("Reliability diagram of id", "Samples per confidence bin of id",
                  "Distribution of mcm on near", "ROC curve of mcm on near",
                  "top-1 accuracy of corruptions", "ECE of id by group", "Energy per rank",
                  "SQNR per rank"):  # fmt: skip
        assert any(label.startswith(start) for label in labels), start
    page.locator("#figures").get_by_label("quantizer").select_option(label="awq:w4g32")
    assert "against awq:w4g32" in page.locator("#charts svg").first.get_attribute("aria-label")
    page.locator("#figures").get_by_label("score").select_option("energy")
    assert page.locator("#charts svg[aria-label^='ROC curve of energy']").count() > 0
    page.locator("#charts summary").first.click()
    page.locator("#charts details table").first.wait_for()
    assert page.locator("#charts details table").first.locator("tbody tr").count() == 15


def test_the_pareto_chart_follows_its_controls(run, text, open_report):
    page = open_report(text)
    chart = page.locator("#pareto svg[role=img]")
    assert chart.get_attribute("aria-label").startswith("id.top1 (loss) against bits")
    assert chart.locator(".front").count() <= 1
    page.locator("#pareto").get_by_label("cost").select_option("bytes")
    page.locator("#pareto").get_by_label("metric").select_option("near.auroc-mcm")
    page.locator("#pareto").get_by_label("shown as").select_option("observed")
    page.locator("#pareto").get_by_label("model", exact=True).select_option("siglip")
    assert chart.get_attribute("aria-label").startswith("near.auroc-mcm (observed) against size")
    mine = [c for c in run.cases if (c.model, c.probe, c.metric) == ("siglip", "near", "auroc-mcm")]
    cost = {name: entry["bytes"] for name, entry in run.evidence()["quantizers"].items()}
    points = [(cost[f"siglip/{c.quantizer}"], -c.observed, c.quantizer) for c in mine]
    front = [p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)]
    assert chart.get_attribute("aria-label").endswith(": " + ", ".join(p[2] for p in sorted(front)))
    assert chart.locator(".mark").count() == len(points)
    assert "latency" not in page.inner_text("#pareto")
    # Every name stands by itself, and each loss that has an interval shows it.
    page.locator("#pareto").get_by_label("shown as").select_option("loss")
    boxes = chart.locator(".name").evaluate_all(
        "all => all.map((node) => node.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) == len(points)
    marks = chart.locator(".mark").evaluate_all(
        "all => all.map((node) => node.getBoundingClientRect().toJSON())"
    )
    for one, other in [*combinations(boxes, 2), *product(boxes, marks)]:
        apart = (
            one["right"] <= other["left"] + 1 or other["right"] <= one["left"] + 1
            or one["bottom"] <= other["top"] + 1 or other["bottom"] <= one["top"] + 1
        )  # fmt: skip
        assert apart, (one, other)
    assert chart.locator(".bar").count() == 3 * sum(c.estimate.low is not None for c in mine) > 0
    assert "bars are the 95 % interval of the loss" in page.inner_text("#pareto")


def test_one_model_uses_the_width_of_the_page(run, open_report):
    mine = [case for case in run.cases if case.model == "siglip"]
    mine[0] = replace(mine[0], evidence=run.evidence())
    page = open_report(replace(run, cases=tuple(mine)))
    assert "Quantizers of siglip" in page.inner_text("#heatmap")
    width = page.locator("#heatmap").bounding_box()["width"]
    cells = page.locator("#heatmap .cell").all()
    assert len(cells) == len({case.quantizer for case in mine})
    ends = [box["x"] + box["width"] for box in (cell.bounding_box() for cell in cells)]
    assert max(ends) - page.locator("#heatmap").bounding_box()["x"] > 0.9 * width
    assert page.locator("#pareto svg[role=img]").bounding_box()["width"] > 0.9 * width
    assert page.locator("#pareto").get_by_label("model", exact=True).count() == 0
    assert page.locator("#pareto .name").count() == len(cells)
    cells[0].click()
    assert page.locator("#pair h3").inner_text().startswith("siglip / ")


def test_measured_latency_is_a_cost_where_there_is_one(open_report):
    evidence = {"quantizers": {"m/rtn:w4": {"milliseconds": 12.5, "weight_bits": 4.1}}}
    page = open_report(RunRecord("ci", 1, (replace(FAIL, evidence=evidence),)))
    page.locator("#pareto").get_by_label("cost").select_option("milliseconds")
    label = page.locator("#pareto svg[role=img]").get_attribute("aria-label")
    assert "against measured latency (ms)" in label


def test_a_record_of_kernels_alone(open_report):
    page = open_report(RunRecord("ci", 0, (), kernels=KERNELS))
    assert "1 of 3 kernel checks passed. 1 kernel check failed." in page.inner_text(".banner")
    assert "differs at [3, 1]" in page.inner_text("#blocking")
    assert page.locator("#kernels tbody tr").count() == 2
    assert "1 check not run: no GPU" in page.inner_text("#kernels")
    for absent in ("#cases", "#heatmap", "#figures", "#pareto"):
        assert page.locator(absent).count() == 0
    page.keyboard.press("/")
    page.keyboard.press("j")


def test_a_record_without_figures_says_so(open_report):
    page = open_report(RunRecord("ci", 1, (FAIL,)))
    assert "This record holds no figures" in page.inner_text("#figures")
    assert page.locator("#rows tr").count() == 1


def test_problems_warnings_waivers_and_unreported_cases_are_shown(open_report):
    page = open_report(RunRecord(
        "release", 3, (FAIL,), ("m/q/p.a", "m/q/p.b"), warnings=("torch differs",),
        problems=("a waiver expired",), waivers=({"owner": "kim", "cases": 4, "reason": "known"},),
    ))  # fmt: skip
    shown = page.inner_text("main")
    assert "1 case blocks; 2 cases were never reported; 1 problem" in shown
    for part in ("Problem: a waiver expired", "Warning: torch differs", "2 cases planned, never"):
        assert part in shown
    assert page.locator("#waivers tbody td").all_inner_texts() == ["4", "known"]


def test_a_waiver_of_many_cases_counts_them_and_lists_them_when_asked(open_report):
    ids = [f"vit-clean/smoothquant:w4a4,alpha=0.5/corruptions.metric-{i}" for i in range(38)]
    waiver = {
        "cases": ["vit-clean/smoothquant:w4a4*/*"], "reason": "accepted for the pilot",
        "owner": "ada.of-the-release-team@example.org", "expires": "2026-12-31", "waived": ids,
    }  # fmt: skip
    narrow = {"width": 390, "height": 800}
    page = open_report(RunRecord("ci", 1, (FAIL,), waivers=(waiver,)), viewport=narrow)
    shown = page.locator("#waivers")
    assert "38 cases waived" in shown.inner_text()
    assert waiver["cases"][0] in shown.inner_text()
    assert ids[0] not in shown.inner_text()
    for _ in range(2):  # closed, then open
        for box in ("document.documentElement", "document.querySelector('#waivers .scroll')"):
            assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth"), box
        shown.locator("summary").click()
    shown.locator("summary").click()
    assert shown.locator("details li").count() == 38
    lines = "[...document.querySelectorAll('#waivers li code')].map(e => e.getClientRects().length)"
    assert set(page.evaluate(lines)) == {1}


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (RunRecord("ci", 0, ()), "Nothing was measured, which is no pass."),
        (RunRecord("ci", 0, (), kernels=KERNELS[2:]),
         "0 of 1 kernel checks passed. No kernel check passed, so nothing was measured."),
        (RunRecord("ci", 1, (FLOOR,)), "1 of 1 planned cases were reported. Nothing blocks."),
    ],
)  # fmt: skip
def test_the_banner_says_why(record, sentence):
    assert outcome(record) == sentence


def test_provenance_stands_at_the_end(run, text, open_report):
    page = open_report(text)
    shown = page.inner_text("#provenance")
    assert page.locator("main section").last.get_attribute("id") == "provenance"
    for part in (run.to_plain()["id"], run.commit["sha"], "abab", "cdcd", "efef", "2.15.0",
                 "first baseline", "holm", "5000 of 5000 verdicts are paired"):  # fmt: skip
        assert part in shown


def test_dark_follows_the_system_and_the_button_overrules_it(text, open_report):
    page = open_report(text, color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.click("#theme")
    light = page.evaluate(background)
    assert (dark, light) == ("rgb(18, 22, 27)", "rgb(255, 255, 255)")
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.evaluate(background) == light
    page.keyboard.press("t")
    assert page.evaluate(background) == dark


def test_paper_has_the_outcome_and_the_charts_but_no_controls(text, open_report, tmp_path):
    page = open_report(text, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for gone in (".bar", "#cases", "#figures .filters", "#blocking button"):
        assert not page.locator(gone).first.is_visible(), gone
    for kept in (".banner", "#blocking .print-only table", "#heatmap table", "#charts svg",
                 "#provenance"):  # fmt: skip
        assert page.locator(kept).first.is_visible(), kept
    page.pdf(path=tmp_path / "report.pdf")
    pages = (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n")
    assert 3 <= pages <= 15


def test_a_narrow_window_scrolls_tables_not_the_page(text, open_report):
    page = open_report(text, viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    page.locator("#rows .opener").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    many = tuple(KernelResult("k", f"check-number-{i}", "pass") for i in range(40))
    page = open_report(RunRecord("ci", 0, (), kernels=many), viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_without_scripts_the_outcome_and_what_blocks_remain(run, text, open_report):
    page = open_report(text, java_script_enabled=False)
    shown = page.inner_text("main")
    assert "Gate failed" in shown
    assert "Scripts do not run here" in shown
    assert run.blocking[0].id in shown
