"""What tests of pages do in a browser."""

from __future__ import annotations

from typing import Any

_CHANGE = """fragment => new Promise((done) => {
  addEventListener("hashchange", () => done(), { once: true });
  setTimeout(done, 10000);
  location.hash = fragment;
})"""


def change_fragment(page: Any, fragment: str) -> None:
    """Set what follows "#" in the address; return once the page was told."""
    page.evaluate(_CHANGE, fragment)
