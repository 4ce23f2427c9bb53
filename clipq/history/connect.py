"""Connections to a store, and what to say where one fails."""

from __future__ import annotations

import importlib.util
import sqlite3
from typing import Any

import sqlalchemy as sa

from clipq.errors import StoreError
from clipq.history.url import StoreURL

__all__ = ["SCHEMA_NAME", "connect", "explain", "is_database_error"]

SCHEMA_NAME = "clipq"  # of the tables in PostgreSQL: beside whatever else a database holds
_BUSY_SECONDS = 120
_CONNECT_SECONDS = 10


def connect(url: StoreURL) -> sa.Engine:
    """Return an engine for the store; nothing is opened yet.

    A transaction with the execution option ``writes`` has the only right to write from its start,
    so that it never fails half-way because another process was first.

    Raises:
        StoreError: the driver is not installed.
    """
    if url.dialect == "sqlite":
        return _sqlite(url)
    if importlib.util.find_spec("psycopg") is None:
        raise StoreError(
            f"{url} needs the driver psycopg, which is not installed",
            hint="pip install 'pytest-clipq[postgresql]'",
        )
    return _postgresql(url)


def _sqlite(url: StoreURL) -> sa.Engine:
    engine = sa.create_engine(
        url.engine_url(), hide_parameters=True, connect_args={"timeout": _BUSY_SECONDS}
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, DDL included
        connection.execute("PRAGMA foreign_keys = ON")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: StoreURL) -> sa.Engine:
    limits: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "application_name": "clipq"}
    limits = {name: value for name, value in limits.items() if name not in url.parameters}
    engine = sa.create_engine(
        url.engine_url(), hide_parameters=True, connect_args=limits | dict(url.secrets)
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.autocommit = True
        connection.execute(f"SET search_path TO {SCHEMA_NAME}")
        connection.autocommit = False

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("writes"):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_BUSY_SECONDS}s'")
            # Of this store alone: other databases of the server have locks of their own.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('clipq history'))")

    return engine


_CAUSES = (  # (part of the driver's message, what was wrong, how to fix it)
    ("unable to open database file", "cannot be opened", "choose a path in a writable folder"),
    ("readonly database", "cannot be written", "make the file and its folder writable"),
    ("read-only", "cannot be written", "connect to a server and as a role that may write"),
    ("is not a database", "is not a history store: no SQLite file", "name another file"),
    (
        "malformed",
        "is damaged",
        "restore it from a backup (*.backup beside it, or your own); `sqlite3 FILE .recover` "
        "reads what is left",
    ),
    (
        "codec can't decode",
        "is damaged",
        "restore it from a backup (*.backup beside it, or your own)",
    ),
    ("disk i/o error", "cannot be read or written", "check the disk that holds it"),
    ("disk is full", "cannot be written: the disk is full", "free space"),
    ("is locked", "was locked by another process for too long", "wait for it to end, try again"),
    ("lock timeout", "was locked by another process for too long", "wait for it to end, try again"),
    (
        "password authentication failed",
        "refused the user or password",
        "correct the user and password in CLIPQ_STORE, or put them into ~/.pgpass",
    ),
    (
        "no password supplied",
        "asks for a password",
        "put it into CLIPQ_STORE (postgresql://USER:PASSWORD@...) or into ~/.pgpass",
    ),
    ("role", "does not take this user", "name a role that exists and may log in"),
    ("database", "has no such database, or does not let this user in", "create it: createdb NAME"),
    (
        "permission denied",
        "does not let this user read and write",
        f"let the owner of the database run: CREATE SCHEMA {SCHEMA_NAME} AUTHORIZATION user",
    ),
    ("could not translate host name", "has a host that is not found", "correct the host's name"),
    ("resolve host", "has a host that is not found", "correct the host's name"),
    (
        "connection refused",
        "cannot be reached: nothing listens there",
        "start the server, or correct host and port",
    ),
    ("timeout", "does not answer", "start the server, or correct host and port"),
)
_UNSURE = ("role", "database")  # words that mean so only where a server says "does not exist"


def is_database_error(error: Exception) -> bool:
    """Return whether an exception tells of a store's state and not of a mistake in clipq."""
    # The driver of a damaged file may fail at decoding a text, be it its own message.
    return isinstance(error, sa.exc.DBAPIError | sqlite3.Error | OSError | UnicodeDecodeError) or (
        type(error).__module__.partition(".")[0] == "psycopg"  # imported only where it is used
    )


def explain(error: Exception, url: StoreURL) -> StoreError:
    """Return what a database error means, without its traceback, statement or password."""
    cause = getattr(error, "orig", None) or error
    message = " ".join(str(cause).split())
    lowered = message.lower()
    known = (
        (problem, hint)
        for part, problem, hint in _CAUSES
        if part in lowered and (part not in _UNSURE or "does not exist" in lowered)
    )
    problem, hint = next(known, ("cannot be used", "see the database's message above"))
    return StoreError(f"the store {url} {problem}: {url.hide(message)[:500]}", hint=hint)
