"""The schema of a store: made, brought up to date after a backup, or refused as too new."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock

from clipq.errors import StoreError
from clipq.history.connect import SCHEMA_NAME
from clipq.history.url import StoreURL

__all__ = [
    "HEAD",
    "REVISIONS",
    "SCRIPTS",
    "VERSION_TABLE",
    "bring_up_to_date",
    "no_store",
    "stored_revision",
    "upgrade",
]

REVISIONS = ("0001",)
HEAD = REVISIONS[-1]
VERSION_TABLE = "clipq_version"
SCRIPTS = "clipq.history:migrations"
"""Where Alembic finds the migrations: a folder of a package, or the path of a folder."""


def bring_up_to_date(
    engine: sa.Engine, url: StoreURL, *, now: datetime, create: bool = True
) -> str:
    """Make the store's schema the newest one.

    Args:
        engine: of the store.
        url: of the same store.
        now: in the backup's name.
        create: whether an empty database becomes a store.

    Returns:
        What was done and where the backup is; "" where there was nothing to do.

    Raises:
        StoreError: a schema that this clipq does not know, or tables that are not clipq's.
    """
    with engine.connect() as connection:
        revision = _check(stored_revision(connection), url)
    if revision == HEAD:
        return ""
    if not revision and not create:
        raise no_store(url)
    with _alone(engine, url), engine.execution_options(writes=True).begin() as connection:
        revision = _check(stored_revision(connection), url)
        if revision == HEAD:
            return ""  # another process was first
        backup = ""
        if revision:
            stamp = f"{revision}_{now:%Y%m%dT%H%M%SZ}"
            backup = _back_up_file(url.path, stamp) if url.path else _copy(connection, stamp)
        elif not url.path:
            _create_schema(connection, SCHEMA_NAME)
        upgrade(connection, HEAD)
    if not revision:
        return ""
    return f"the store {url} was of schema {revision} and is now of {HEAD}; backup: {backup}"


def no_store(url: StoreURL) -> StoreError:
    """Return what is said where a store would have to exist."""
    return StoreError(
        f"no store yet at {url}",
        hint="`clipq history record REPORT.json` or `clipq gate --record` makes it",
    )


def upgrade(connection: sa.Connection, revision: str) -> None:
    """Run the migrations up to `revision` within the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", SCRIPTS)
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    command.upgrade(config, revision)


def stored_revision(connection: sa.Connection) -> str:
    """Return the schema's revision, "" of an empty database, "other" where tables are not ours."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    else:
        query = f"SELECT tablename FROM pg_tables WHERE schemaname = '{SCHEMA_NAME}'"
    tables = set(connection.exec_driver_sql(query).scalars())
    if VERSION_TABLE not in tables:
        return "other" if tables else ""
    revisions = (
        connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalars().all()
    )
    return str(revisions[0]) if len(revisions) == 1 else "other"


def _check(revision: str, url: StoreURL) -> str:
    if revision == "other":
        raise StoreError(
            f"{url} holds tables that are not a history store's", hint="name another store"
        )
    if revision and revision not in REVISIONS:
        raise StoreError(
            f"the store {url} is of schema {revision}, which a newer clipq wrote; this one knows "
            f"{' and '.join(REVISIONS)}, and changed nothing",
            hint="upgrade clipq: pip install --upgrade pytest-clipq",
        )
    return revision


@contextlib.contextmanager
def _alone(engine: sa.Engine, url: StoreURL) -> Iterator[None]:
    """Let one process at a time make a file's schema; on a server its transaction does that."""
    if url.path is None:
        yield
        return
    with FileLock(f"{url.path}.lock"):
        with contextlib.closing(engine.raw_connection()) as connection:
            # Readers and a writer side by side. Kept in the file; not to be set in a transaction.
            connection.cursor().execute("PRAGMA journal_mode = WAL")
        yield


def _back_up_file(path: Path, stamp: str) -> str:
    """Copy the committed state beside the file, whole or not at all; return where."""
    target = path.with_name(f"{path.name}.{stamp}.backup")
    partial = target.with_name(f".{target.name}.tmp")
    partial.unlink(missing_ok=True)
    closing = contextlib.closing
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as copy:
        source.backup(copy)
    partial.replace(target)
    return str(target)


def _copy(connection: sa.Connection, stamp: str) -> str:
    """Copy the tables into a schema of their own; return its name."""
    schema = f"clipq_backup_{stamp}".lower()
    connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    tables = connection.exec_driver_sql(
        f"SELECT tablename FROM pg_tables WHERE schemaname = '{SCHEMA_NAME}' ORDER BY tablename"
    ).scalars()
    for table in tables.all():
        connection.exec_driver_sql(f"CREATE TABLE {schema}.{table} AS TABLE {SCHEMA_NAME}.{table}")
    return f"schema {schema} of the same database"


def _create_schema(connection: sa.Connection, name: str) -> None:
    exists = connection.exec_driver_sql(f"SELECT to_regnamespace('{name}') IS NOT NULL").scalar()
    if not exists:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
