"""How long the HTML report of 5,000 cases takes to build and to open, and how large it is.

    python benchmarks/html_report.py [--quick] [--cases 5000] [--rounds 5]

Builds the report from a synthetic record and opens it in headless Chromium, offline. "Loaded" is
the browser's own time from the start of navigation until the page has drawn everything, the charts
at its end included. Prints medians of the rounds. Goals: at most 5 s, 8 MiB, and 2 s to open it.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark import Goals, Script, lacking
from synthetic_runs import synthetic_run

from clipq.report.html import html

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GOAL_SECONDS, GOAL_MEBIBYTES, GOAL_LOAD_MILLISECONDS = 5.0, 8.0, 2000.0
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="a quarter of a minute")
    script.size("--cases", full=5000, quick=100, help="of the record")
    script.size("--rounds", full=5, quick=1, help="of building and of opening")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    record = synthetic_run(options.cases)
    seconds = []
    for _ in range(options.rounds):
        start = time.perf_counter()
        text = html(record)
        seconds.append(time.perf_counter() - start)
    built, mebibytes = statistics.median(seconds), len(text.encode()) / 2**20
    print(f"{len(record.cases):,} cases, medians of {options.rounds} rounds")
    print(f"built in {built:.2f} s (goal {GOAL_SECONDS:g}), {mebibytes:.2f} MiB", end=" ")
    print(f"(goal {GOAL_MEBIBYTES:g})", flush=True)
    goals.measured(built <= GOAL_SECONDS)
    goals.measured(mebibytes <= GOAL_MEBIBYTES)
    parsed, drawn = opened_milliseconds(text, options.rounds)
    print(f"loaded: DOMContentLoaded {parsed:.0f} ms, everything drawn {drawn:.0f} ms", end=" ")
    print(f"(goal {GOAL_LOAD_MILLISECONDS:g})")
    goals.measured(drawn < GOAL_LOAD_MILLISECONDS)
    return goals.code


def opened_milliseconds(text: str, rounds: int) -> tuple[float, float]:
    """Return when Chromium has parsed a page and when it has drawn everything."""
    chromium = shutil.which("chromium")
    if chromium is None:
        lacking("opening the report needs Chromium: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("opening the report needs Playwright: pip install playwright")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "report.html"
        path.write_text(text, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        loads = [_load_milliseconds(browser, path) for _ in range(rounds)]
        browser.close()
    parsed, drawn = (statistics.median(times) for times in zip(*loads, strict=True))
    return parsed, drawn


def _load_milliseconds(browser: Browser, path: Path) -> tuple[float, float]:
    """Return when the page was parsed and its script had run, and when everything was drawn."""
    context = browser.new_context()  # nothing cached
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    drawn = page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => done(performance.now())))"
    )
    parsed = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    context.close()
    return float(parsed), float(drawn)


if __name__ == "__main__":
    sys.exit(main())
