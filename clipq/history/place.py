"""Which store a command means: the option, else the environment, else the settings file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clipq.history.url import StoreURL, parse_url
from clipq.settings import HistorySettings, Settings

__all__ = ["VARIABLE", "store_url"]

VARIABLE = "CLIPQ_STORE"


def store_url(
    given: str | None, settings: Settings | None, *, environ: Mapping[str, str], folder: Path
) -> StoreURL:
    """Return the store that applies.

    Args:
        given: what ``--store`` says; None where it was not used.
        settings: of the project; None outside of one.
        environ: whose CLIPQ_STORE goes before the settings; an empty one counts as unset.
        folder: what relative SQLite paths are relative to outside of a project.

    Raises:
        StoreError: the URL cannot be read; the message says where it came from.
    """
    root = settings.root if settings else folder
    history = settings.history if settings else HistorySettings()
    return parse_url(given or environ.get(VARIABLE) or history.store, root=root)
