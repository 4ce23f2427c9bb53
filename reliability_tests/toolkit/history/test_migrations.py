"""Schemas: made once, brought up to date after a backup, refused where newer or another's."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from clipq.errors import StoreError
from clipq.history import migrate, schema
from clipq.history.connect import connect
from clipq.history.migrate import HEAD, REVISIONS, stored_revision, upgrade
from clipq.history.store import open_store
from clipq.history.url import parse_url

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(url, tmp_path):
    """Connected to the store directly, as no user is."""
    made = connect(parse_url(url, root=tmp_path))
    yield made
    made.dispose()


NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

def upgrade():
    op.create_table("notes", sa.Column("run", sa.Integer, primary_key=True))
    op.add_column("runs", sa.Column("note", sa.Text))
"""


@pytest.fixture
def old_store(url, engine, run, tmp_path, monkeypatch):
    """A store with a run in it, and a clipq that has gone on by one schema since."""
    with open_store(url, root=tmp_path) as store:
        store.record(run(0))
    scripts = tmp_path / "scripts"
    shutil.copytree(Path(migrate.__file__).parent / "migrations", scripts)
    (scripts / "versions" / "r0002_notes.py").write_text(NEXT)
    monkeypatch.setattr(migrate, "SCRIPTS", str(scripts))
    monkeypatch.setattr(migrate, "REVISIONS", ("0001", "0002"))
    monkeypatch.setattr(migrate, "HEAD", "0002")
    return url


def dump(engine: sa.Engine, prefix: str = "") -> dict[str, list[tuple[object, ...]]]:
    with engine.connect() as connection:
        return {
            name: [
                tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {prefix}{name}")
            ]
            for name in ("runs", "cases", "results", "clipq_version")
        }


def test_revisions_are_those_of_the_shipped_scripts():
    folder = Path(migrate.__file__).parent / "migrations"
    scripts = list(ScriptDirectory(str(folder)).walk_revisions())
    assert tuple(script.revision for script in reversed(scripts)) == REVISIONS


def test_migrations_make_the_tables_that_queries_expect(url, engine, tmp_path):
    open_store(url, root=tmp_path).close()
    with engine.connect() as connection:
        options = {"compare_type": False, "version_table": migrate.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.metadata) == []
        assert stored_revision(connection) == HEAD


def test_an_older_store_is_migrated_after_a_backup_that_is_named(old_store, engine, tmp_path, run):
    before = dump(engine)
    with open_store(old_store, root=tmp_path, clock=lambda: NOON) as store:
        assert "was of schema 0001 and is now of 0002" in store.notice
        assert store.load(store.find("latest")).to_plain() == run(0).to_plain()
        assert store.record(run(1), {"a/b/c": b"table"}).run.predictions == 1
    with engine.connect() as connection:
        assert stored_revision(connection) == "0002"
        assert connection.exec_driver_sql("SELECT note FROM runs").all() == [(None,), (None,)]
    if engine.dialect.name == "sqlite":
        backup = tmp_path / "history.db.0001_20250601T120000Z.backup"
        assert str(backup) in store.notice
        copy = connect(parse_url(f"sqlite:///{backup}", root=tmp_path))
        assert dump(copy) == before
        copy.dispose()
    else:
        assert "clipq_backup_0001_20250601t120000z" in store.notice
        assert dump(engine, "clipq_backup_0001_20250601t120000z.") == before
    with open_store(old_store, root=tmp_path) as again:
        assert again.notice == ""


def test_a_migration_that_fails_leaves_the_old_schema(old_store, engine, tmp_path, monkeypatch):
    before = dump(engine)
    engine.dispose()

    def broken(connection: sa.Connection, revision: str) -> None:
        upgrade(connection, revision)
        raise OSError("the disk is full")

    monkeypatch.setattr(migrate, "upgrade", broken)
    with pytest.raises(StoreError, match="the disk is full"):
        open_store(old_store, root=tmp_path)
    assert dump(engine) == before
    with engine.connect() as connection:
        assert stored_revision(connection) == "0001"


def test_a_store_of_a_newer_schema_is_refused_and_left_untouched(url, engine, tmp_path, run):
    with open_store(url, root=tmp_path) as store:
        store.record(run(0))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE clipq_version SET version_num = '0999'")
    before = dump(engine)
    with pytest.raises(StoreError, match="schema 0999, which a newer clipq wrote") as caught:
        open_store(url, root=tmp_path)
    assert "upgrade clipq" in caught.value.hint
    assert dump(engine) == before
    assert not list(tmp_path.glob("*.backup"))


def test_a_database_of_another_program_is_refused(tmp_path):
    path = tmp_path / "history.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE customers (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="tables that are not a history store's"):
        open_store(f"sqlite:///{path}", root=tmp_path)
    assert path.read_bytes() == before


def test_the_tables_of_other_programs_in_a_server_s_database_are_let_be(postgresql, tmp_path, run):
    url = postgresql.new_database()
    name = url.rpartition("/")[2]
    postgresql.execute("CREATE TABLE runs (pace text)", database=name)
    with open_store(url, root=tmp_path) as store:
        store.record(run(0))
    assert postgresql.execute("SELECT count(*) FROM public.runs", database=name) == [(0,)]
    assert postgresql.execute("SELECT count(*) FROM clipq.runs", database=name) == [(1,)]


def test_a_file_that_is_no_database_is_named_and_left_as_it_is(tmp_path):
    path = tmp_path / "history.db"
    path.write_text("runs:\n" * 1000)
    with pytest.raises(StoreError, match=r"history\.db is not a history store: no SQLite file"):
        open_store(f"sqlite:///{path}", root=tmp_path)
    assert path.read_text() == "runs:\n" * 1000


def test_a_damaged_file_is_named(tmp_path, run):
    path = tmp_path / "history.db"
    with open_store(f"sqlite:///{path}", root=tmp_path) as store:
        for index in range(5):
            store.record(run(index, cases=200))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    path.write_bytes(content)
    with (
        pytest.raises(StoreError, match=r"(?s)history\.db is damaged.*backup"),
        open_store(f"sqlite:///{path}", root=tmp_path) as store,
    ):
        store.trend_table()


def test_a_truncated_file_is_named(tmp_path, run):
    path = tmp_path / "history.db"
    with open_store(f"sqlite:///{path}", root=tmp_path) as store:
        store.record(run(0, cases=200))
    path.write_bytes(path.read_bytes()[:6000])
    with (
        pytest.raises(StoreError, match=r"history\.db is damaged"),
        open_store(f"sqlite:///{path}", root=tmp_path) as store,
    ):
        store.runs()


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/history\.db cannot be"):
        open_store("sqlite:///file/history.db", root=tmp_path)
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StoreError, match=r"folder\.db cannot be opened"):
        open_store("sqlite:///folder.db", root=tmp_path)


def test_where_there_is_no_store_reading_makes_none(url, tmp_path):
    with pytest.raises(StoreError, match="no store yet at"):
        open_store(url, root=tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_without_the_driver_the_extra_to_install_is_named(tmp_path, monkeypatch):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "psycopg" else find(name)
    )
    with pytest.raises(StoreError, match=r"pip install 'pytest-clipq\[postgresql\]'"):
        open_store("postgresql://anna@127.0.0.1/runs", root=tmp_path)


def test_a_database_or_role_that_does_not_exist_is_named(postgresql, tmp_path):
    with pytest.raises(StoreError, match="has no such database"):
        open_store(postgresql.url("nowhere"), root=tmp_path)
    with pytest.raises(StoreError, match="refused the user or password"):
        open_store(postgresql.url("postgres", user="nobody"), root=tmp_path)


def test_a_user_who_may_not_create_is_told_what_the_owner_has_to_run(postgresql, tmp_path, run):
    url = postgresql.new_database()
    name = url.rpartition("/")[2]
    postgresql.execute("DROP ROLE IF EXISTS guest")
    postgresql.execute("CREATE ROLE guest LOGIN PASSWORD 'guest-password'")
    guest = postgresql.url(name, user="guest", password="guest-password")
    with pytest.raises(StoreError, match=r"(?s)does not let this user.*CREATE SCHEMA clipq"):
        open_store(guest, root=tmp_path)
    postgresql.execute("CREATE SCHEMA clipq AUTHORIZATION guest", database=name)
    with open_store(guest, root=tmp_path) as store:
        assert store.record(run(0)).new


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_backup_of_a_file_in_use_holds_what_was_committed(old_store, tmp_path):
    path = tmp_path / "history.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute(
            "INSERT INTO results (case_id, run, verdict) VALUES (99, 1, 0)"
        )  # in the WAL
        open_store(old_store, root=tmp_path, clock=lambda: NOON).close()
    backup = tmp_path / "history.db.0001_20250601T120000Z.backup"
    with closing(sqlite3.connect(backup)) as raw:
        assert raw.execute("SELECT count(*) FROM results").fetchone() == (5,)
