"""Where clipq writes: cache, report folder, history store. Nothing is created or migrated."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from clipq.cli.onboarding.health import Context, Examination, Finding, State

__all__ = ["EXAMINATIONS"]

_GIB = 2**30
_LITTLE_BYTES = 2 * _GIB
_MOST_ENTRIES = 200_000


def _cache(context: Context) -> Iterator[Finding]:
    if context.settings is None:
        return
    folder = context.settings.cache
    problem = _unwritable(folder)
    if problem:
        fix = "point `cache` in clipq.toml (or `clipq gate --cache`) to a writable folder"
        yield Finding("cache", State.PROBLEM, problem, fix)
        return
    held, whole = _size(folder)
    free = shutil.disk_usage(_existing(folder)).free
    text = (
        f"{folder}, {'' if whole else 'over '}{held / _GIB:.2f} GiB held, "
        f"{free / _GIB:.1f} GiB free"
    )
    if free < _LITTLE_BYTES:
        fix = "free space: decoded images are kept there; the folder itself is safe to delete"
        yield Finding("cache", State.WARNING, text, fix)
    else:
        yield Finding("cache", State.OK, text)


def _report(context: Context) -> Iterator[Finding]:
    if context.settings is None:
        return
    folder = context.settings.report
    problem = _unwritable(folder)
    if problem:
        fix = "point `report` in clipq.toml (or `clipq gate --report`) to a writable folder"
        yield Finding("report folder", State.PROBLEM, problem, fix)
    else:
        yield Finding("report folder", State.OK, str(folder))


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _unwritable(folder: Path) -> str:
    """Return why nothing can be written into a folder; "" where it can."""
    place = _existing(folder)
    if not place.is_dir():
        return f"{place} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return f"{place} cannot be written: {error.strerror or error}"


def _size(folder: Path) -> tuple[int, bool]:
    """Return the bytes below a folder, and whether all of it was counted."""
    total = entries = 0
    for place, _, files in os.walk(folder):
        for name in files:
            entries += 1
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:
                continue  # another process just removed it
        if entries > _MOST_ENTRIES:
            return total, False
    return total, True


def _history(context: Context) -> Iterator[Finding]:
    """Look at the store's schema, by its own connection: opening a store would migrate it."""
    name = "history store"
    for package in ("sqlalchemy", "alembic"):
        if find_spec(package) is None:
            yield Finding(name, State.SKIPPED, f"{package} is not installed")
            return
    from clipq.history.connect import connect, explain
    from clipq.history.migrate import HEAD, REVISIONS, stored_revision
    from clipq.history.place import store_url

    settings = context.settings
    folder = settings.root if settings else Path.cwd()
    url = store_url(None, settings, environ=context.environment, folder=folder)
    if url.path is not None and not url.path.exists():
        yield Finding(name, State.OK, f"none yet at {url}; `clipq gate --record` makes it")
        return
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = connect(url)
        try:
            with engine.connect() as connection:
                revision = stored_revision(connection)
        finally:
            engine.dispose()
    except (SQLAlchemyError, OSError) as error:
        failure = explain(error, url)
        yield Finding(name, State.PROBLEM, failure.problem, failure.hint)
        return
    if revision == HEAD:
        yield Finding(name, State.OK, f"{url}, schema {revision}")
    elif not revision:
        yield Finding(name, State.OK, f"{url} is empty; `clipq gate --record` fills it")
    elif revision in REVISIONS:
        text = f"{url} is of schema {revision}; the next use brings it to {HEAD}, with a backup"
        yield Finding(name, State.WARNING, text, "clipq history list")
    elif revision == "other":
        text = f"{url} holds tables that are not a history store's"
        yield Finding(name, State.PROBLEM, text, "name another store")
    else:
        text = f"{url} is of schema {revision}, which a newer clipq wrote"
        yield Finding(name, State.PROBLEM, text, "pip install --upgrade pytest-clipq")


EXAMINATIONS = (
    Examination("cache", _cache, needs_settings=True),
    Examination("report folder", _report, needs_settings=True),
    Examination("history store", _history, secretive=True),
)
