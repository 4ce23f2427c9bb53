"""Keep the run that a gate just made: the record and, where asked for, its predictions."""

from __future__ import annotations

import os
from collections.abc import Mapping

from clipq.history.place import store_url
from clipq.history.run_predictions import prediction_tables
from clipq.history.store import open_store
from clipq.records import RunRecord
from clipq.settings import Settings

__all__ = ["keep_run"]


def keep_run(
    record: RunRecord, settings: Settings, *, environ: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Record a run in the settings' store; return sentences on what was done.

    Raises:
        StoreError: the store cannot be read, reached or written.
    """
    notes: list[str] = []
    url = store_url(None, settings, environ=environ, folder=settings.root)
    tables: Mapping[str, bytes] = {}
    if settings.history.predictions:
        tables = prediction_tables(record, settings.cache, warn=notes.append)
    with open_store(url, root=settings.root) as store:
        recorded = store.record(record, tables)
        if store.notice:
            notes.insert(0, store.notice)
    state = "recorded" if recorded.new else "recorded before"
    run = recorded.run
    notes.append(f"{state}: run #{run.number} {run.id[:12]} in {url.shown}")
    return tuple(notes)
