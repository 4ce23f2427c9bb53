"""Stores to test with: SQLite files, and databases of a private PostgreSQL server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from private_postgresql import Server, private_server, server_programs

from clipq.records import RunRecord

# What the tests here share; importlib mode puts no folder of tests on the path.
sys.path.insert(0, str(Path(__file__).parent))

from history_runs import small_run


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A private PostgreSQL server, one per test process, stopped at the end."""
    programs = server_programs()
    if programs is None:
        reason = "PostgreSQL's server programs (initdb, postgres) are not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with private_server(programs, fsync=False) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store's URL, once per database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/history.db"
    server: Server = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture
def run() -> Callable[..., RunRecord]:
    """Makes records of a few cases."""
    return small_run


@pytest.fixture(scope="session")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[int]]]:
    """Hands a command to `forking_writers` and returns the exit statuses of its processes."""
    errors = tmp_path_factory.mktemp("forking") / "stderr"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "forking_writers.py"],
            cwd=Path(__file__).parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )

    def command(*what: object) -> list[int]:
        print(json.dumps(what), file=process.stdin, flush=True)
        answer = process.stdout.readline()
        statuses: list[int] = json.loads(answer) if answer else [process.wait()]
        if any(status > 0 for status in statuses):
            pytest.fail(f"exit statuses {statuses}:\n{errors.read_text()}")
        return statuses

    yield command
    process.stdin.close()
    process.wait(timeout=60)
    process.stdout.close()
