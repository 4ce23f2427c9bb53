"""Readers who see little, see no colours, see nothing or use no mouse can use the report."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from browsing import CONTRAST
from synthetic_runs import synthetic_run

from clipq.records import KernelResult
from clipq.report.html import html
from clipq.verdicts import Verdict


@pytest.fixture(scope="module")
def text() -> str:
    """Every verdict, a blocking one of each, kernels, a warning: everything that has a colour."""
    run = synthetic_run(5000)
    cases = list(run.cases)
    for index, verdict in enumerate(Verdict):
        cases[index] = replace(cases[index], verdict=verdict, reason="why")
    within = replace(cases[0].estimate, loss=0.01, margin=0.02)
    cases[len(Verdict)] = replace(cases[0], verdict=Verdict.INCONCLUSIVE, estimate=within)
    beyond = replace(within, loss=0.03)
    cases[len(Verdict) + 1] = replace(cases[0], verdict=Verdict.INCONCLUSIVE, estimate=beyond)
    kernels = tuple(
        KernelResult("k", outcome, outcome, "why") for outcome in ("pass", "fail", "not-run")
    )
    return html(replace(run, cases=tuple(cases), kernels=kernels, warnings=("w",), problems=("p",),
                        unreported=("x",), waivers=({"owner": "o"},)))  # fmt: skip


def everything_open(page) -> None:
    page.locator("[data-pair]").first.click()
    page.locator("#rows .opener").first.click()
    page.evaluate(
        "() => document.querySelectorAll('details').forEach((node) => { node.open = true; })"
    )
    page.wait_for_selector("#charts details table")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_and_mark_stands_out_from_its_background(text, scheme, open_report):
    page = open_report(text, color_scheme=scheme)
    everything_open(page)
    found = page.evaluate(CONTRAST)
    assert len(found["texts"]) > 40
    assert {name: ratio for name, ratio in found["texts"] if ratio < 4.5} == {}
    assert {name: ratio for name, ratio in found["marks"] if ratio < 3} == {}


def test_every_picture_has_a_name_or_is_hidden_from_screen_readers(text, open_report):
    page = open_report(text)
    everything_open(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("svg")]
          .filter((node) => !node.closest("[aria-hidden=true]"))
          .filter((node) => node.getAttribute("role") !== "img" || !node.ariaLabel?.trim())
          .map((node) => node.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    assert page.locator("svg[role=img]").count() > 100


def test_verdicts_differ_by_symbol_and_word_not_by_colour_alone(text, open_report):
    page = open_report(text)
    labels = page.locator("#cases .count .verdict")
    words = labels.locator(".word").all_inner_texts()
    symbols = labels.locator(".symbol").all_inner_texts()
    names = [verdict.value for verdict in Verdict]
    at = names.index("inconclusive")
    assert words == [*names[:at], "under-powered", "beyond-margin", *names[at + 1 :]]
    assert len(set(symbols)) == len(words)


def test_tables_sections_and_controls_are_labelled(text, open_report):
    page = open_report(text)
    everything_open(page)
    without = page.evaluate(
        """() => {
          const bad = (selector, good) => [...document.querySelectorAll(selector)]
            .filter((node) => !good(node)).map((node) => node.outerHTML.slice(0, 120));
          const named = (name) => (node) => document.getElementById(node.getAttribute(name));
          return [
            ...bad("table", (node) => node.caption && node.caption.textContent),
            ...bad("th", (node) => node.scope),
            ...bad("input, select", (node) => node.labels.length || node.ariaLabel),
            ...bad("button", (node) => (node.ariaLabel || node.textContent).trim()),
            ...bad("section", named("aria-labelledby")),
            ...bad("[aria-controls]", named("aria-controls")),
            ...bad("[id]", (node) => document.querySelectorAll(`[id="${node.id}"]`).length === 1),
          ];
        }"""
    )
    assert without == []
    assert page.locator("html").get_attribute("lang") == "en"


def test_headings_do_not_skip_a_level(text, open_report):
    page = open_report(text)
    levels = page.locator("h1, h2, h3, h4").evaluate_all(
        "all => all.map((node) => +node.localName[1])"
    )
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_first_stop_of_the_keyboard_skips_to_the_report(text, open_report):
    page = open_report(text)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0


def test_who_wants_no_motion_gets_none(text, open_report):
    page = open_report(text, reduced_motion="reduce")
    page.locator("nav a").last.click()
    assert page.locator("#provenance").bounding_box()["y"] < page.viewport_size["height"]
