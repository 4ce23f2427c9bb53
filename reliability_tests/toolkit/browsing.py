"""What tests of pages do in a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

CONTRAST = """
() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (rgb) => rgb.slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const ratio = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const backdrop = (node) => {
    for (; node; node = node.parentElement) {
      const color = numbers(getComputedStyle(node).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const texts = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim()) continue;
    if (node.closest("script, noscript, dialog, title, option")) continue;
    if (!node.checkVisibility({ checkOpacity: true })) continue;
    const style = getComputedStyle(node);
    const ink = numbers(node.closest("svg") ? style.fill : style.color);
    const behind = backdrop(node.closest("svg") ? node.closest("svg").parentElement : node);
    const name = `${node.localName}.${node.getAttribute("class") || ""}: ${ink} on ${behind}`;
    texts.set(name, ratio(ink, behind));
  }
  const page = backdrop(document.body);
  const probe = document.body.appendChild(document.createElement("i"));
  const marks = ["quantized", "outside", "fp32", "series-3", "series-4", "series-5", "strong-line",
    "focus", "pass", "fail", "waived", "improved", "inconclusive", "under-powered", "suspect",
    "broken"].map((token) => {
    probe.style.color = `var(--${token})`;
    return [token, ratio(numbers(getComputedStyle(probe).color), page)];
  });
  return { texts: [...texts], marks };
}
"""
"""From each text and mark of a page to how it stands out from what is behind it."""

_CHANGE = """fragment => new Promise((done) => {
  addEventListener("hashchange", () => done(), { once: true });
  setTimeout(done, 10000);
  location.hash = fragment;
})"""


def change_fragment(page: Any, fragment: str) -> None:
    """Set what follows "#" in the address; return once the page was told."""
    page.evaluate(_CHANGE, fragment)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright."""
    path = shutil.which("chromium")
    if path is None:
        _absent("Chromium (apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        _absent("Playwright (pip install playwright)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield opened
        opened.close()


def watched(page: Any, allowed: str) -> list[str]:
    """Return a list that fills with what goes wrong on a page, or online: beyond `allowed`."""
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (wrong.append("a dialog opened"), dialog.dismiss()))

    def requested(request: Any) -> None:
        if not request.url.startswith((allowed, "data:", "blob:")):
            wrong.append(f"request: {request.url}")

    page.on("request", requested)
    return wrong


def _absent(what: str) -> None:
    """Skip by name on a user's machine; in CI a missing browser is a failure."""
    reason = f"browser tests need {what}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must have it")
    pytest.skip(reason)
