"""Stores to test with: SQLite files, and databases of a private PostgreSQL server on loopback.

The server is real, and so is its password: it holds the characters that URLs stumble over. Each
test process starts its own, so that processes share nothing.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from clipq.records import CaseResult, RunRecord, Verdict, sort_cases

USER = "clipq"
PASSWORD = "s3cr@t/w:o?r%d#&"


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's newest server programs; None where there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(folders, key=lambda path: float(path.parts[-3]))
    return newest[-1].parent if newest else None


@dataclass
class Server:
    """A running server.

    Args:
        port: on 127.0.0.1.
        counter: numbers the databases.
    """

    port: int
    counter: Iterator[int]

    def url(self, database: str, *, password: str = PASSWORD, user: str = USER) -> str:
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database,
            autocommit=True,
        ) as connection:  # fmt: skip
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """Create an empty database; return its URL."""
        name = f"store_{next(self.counter)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)


def start(folder: Path, programs: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Make a cluster in `folder` and start it; return the process and its port."""
    identity: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        identity = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    data = folder / "data"
    subprocess.run(
        [*identity, programs / "initdb", "-D", data, "-U", USER, f"--pwfile={secret}",
         "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"],
        check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": folder,
        "fsync": "off",
        "max_connections": 60,
        "shared_buffers": "64MB",
    }
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*identity, programs / "postgres", "-D", data, *settings],
            cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
    return process, port


def wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    end = time.monotonic() + 60
    while True:
        try:
            server.execute("SELECT 1")
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"PostgreSQL did not start:\n{log.read_text()}")
            time.sleep(0.05)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A private PostgreSQL server, stopped at the end."""
    programs = binaries()
    if programs is None:
        reason = "PostgreSQL's server programs (initdb, postgres) are not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="clipq-postgresql-"))
    process, port = start(folder, programs)
    server = Server(port, itertools.count(1))
    try:
        wait_until_ready(server, process, folder / "log")
        yield server
    finally:
        process.send_signal(signal.SIGINT)  # "fast shutdown"
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store's URL, once per database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/history.db"
    server: Server = request.getfixturevalue("postgresql")
    return server.new_database()


def small_run(
    index: int = 0,
    *,
    value: float = 0.9,
    verdict: Verdict = Verdict.PASS,
    cases: int = 4,
    branch: str = "main",
    policy: str = "ci",
) -> RunRecord:
    """Return a record of a few cases; day and commit follow from `index`."""
    found = [
        CaseResult(
            f"vit-{number}", "rtn:w4", "id", "top1", verdict,
            unit="fraction", direction="higher", metric_version=1, samples=100, baseline=0.95,
            observed=value - 0.01 * number, loss=0.95 - value + 0.01 * number, margin=0.02,
            low=0.0, high=0.1, standard_error=0.01,
        )
        for number in range(cases)
    ]  # fmt: skip
    return RunRecord(
        policy=policy,
        planned=cases,
        cases=sort_cases(found),
        versions={"torch": "2.15.0", "clipq": "0.1.0"},
        timings={"seconds": float(index)},
        started=f"2025-{index // 28 + 1:02}-{index % 28 + 1:02}T12:00:00Z",
        commit={
            "sha": f"{index + 1:x}".rjust(6, "0").ljust(40, "a"),
            "date": f"2025-01-{index % 28 + 1:02}T11:00:00+00:00",
            "subject": f"change {index}",
            "branch": branch,
            "dirty": False,
        },
    )


@pytest.fixture
def run() -> Callable[..., RunRecord]:
    """Makes records of a few cases."""
    return small_run
