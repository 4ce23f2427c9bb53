"""How long the HTML report of 5,000 cases takes to build and to open, and how large it is.

    python benchmarks/html_report.py [--cases 5000] [--rounds 5]

Builds the report from a synthetic record and opens it in headless Chromium, offline. "Loaded" is
the browser's own time from the start of navigation until the page has drawn everything, the charts
at its end included. Prints medians of the rounds; exits 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from synthetic_runs import synthetic_run

from clipq.report.html import html

GOAL_SECONDS, GOAL_MEBIBYTES, GOAL_LOAD_MILLISECONDS = 5.0, 8.0, 2000.0
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("this benchmark needs Chromium: apt-get install chromium")

    record = synthetic_run(options.cases)
    seconds = []
    for _ in range(options.rounds):
        start = time.perf_counter()
        text = html(record)
        seconds.append(time.perf_counter() - start)
    mebibytes = len(text.encode()) / 2**20

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "report.html"
        path.write_text(text, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        loads = [_load_milliseconds(browser, path) for _ in range(options.rounds)]
        browser.close()

    parsed, drawn = (statistics.median(times) for times in zip(*loads, strict=True))
    built = statistics.median(seconds)
    print(f"{len(record.cases):,} cases, medians of {options.rounds} rounds")
    print(f"built in {built:.2f} s (goal {GOAL_SECONDS:g}), {mebibytes:.2f} MiB", end=" ")
    print(f"(goal {GOAL_MEBIBYTES:g})")
    print(f"loaded: DOMContentLoaded {parsed:.0f} ms, everything drawn {drawn:.0f} ms", end=" ")
    print(f"(goal {GOAL_LOAD_MILLISECONDS:g})")
    met = built <= GOAL_SECONDS and mebibytes <= GOAL_MEBIBYTES and drawn < GOAL_LOAD_MILLISECONDS
    return 0 if met else 1


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
