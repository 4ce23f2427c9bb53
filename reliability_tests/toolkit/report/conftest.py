"""A real browser for reports: Debian's Chromium, driven by Playwright, offline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import chromium

from clipq.records import RunRecord
from clipq.report.html import html


# A module, not a session: Playwright's event loop would otherwise outlive these tests.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def open_report(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Write a record's report and open it; at the end nothing may have gone wrong or online.

    What did is in `open_report.wrong`, for a test that expects it.

    Keyword arguments are those of Playwright's `new_context`; `fragment` is what follows "#".
    """
    contexts: list[Any] = []
    wrong: list[str] = []

    def opened(record: RunRecord | str, fragment: str = "", **options: Any) -> Any:
        path = tmp_path / f"report-{len(contexts)}.html"
        text = record if isinstance(record, str) else html(record)
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (wrong.append("a dialog opened"), dialog.dismiss()))

        def requested(request: Any) -> None:
            if request.url.partition("#")[0] != path.as_uri():
                wrong.append(f"request: {request.url}")

        page.on("request", requested)
        page.goto(path.as_uri() + (f"#{fragment}" if fragment else ""))
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]", state="attached")
        return page

    opened.wrong = wrong  # type: ignore[attr-defined]
    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
