"""The history store that a command means: its option, and opening it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from clipq.settings import Settings, find_settings, load_settings
from clipq.terminal import say

if TYPE_CHECKING:
    from clipq.history.store import Store

__all__ = ["add_store_option", "open_for", "project_settings"]


def add_store_option(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Give a command the option that names a store."""
    text = "default: CLIPQ_STORE, else [history] store in clipq.toml"
    parser.add_argument("--store", metavar="URL", default=default, help=text)


def project_settings(options: argparse.Namespace) -> Settings | None:
    """Return the project's settings; None outside of a project, where --store is enough."""
    path = options.config or find_settings(Path.cwd())
    return load_settings(path) if path else None


def open_for(
    options: argparse.Namespace, settings: Settings | None, *, create: bool = False
) -> Store:
    """Open the store that a command means; say on stderr what opening it changed."""
    from clipq.history.place import store_url
    from clipq.history.store import open_store

    folder = Path.cwd()
    url = store_url(options.store, settings, environ=os.environ, folder=folder)
    store = open_store(url, root=folder, create=create)
    if store.notice:
        say(f"clipq: {store.notice}", error=True)
    return store
