"""A private PostgreSQL server on loopback, for tests and benchmarks of the history store.

The server is real, and so is its password: it holds the characters that URLs stumble over. Whoever
asks gets a cluster of their own, so that processes share nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

__all__ = ["PASSWORD", "USER", "Server", "private_server", "server_programs"]

USER = "clipq"
PASSWORD = "s3cr@t/w:o?r%d#&"
_START_SECONDS = 60


def server_programs() -> Path | None:
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

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement outside of a transaction; return what it found."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database,
            autocommit=True,
        ) as connection:  # fmt: skip
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def set_fsync(self, value: str) -> None:
        """Let commits wait for the disk ("on") or not ("off")."""
        self.execute(f"ALTER SYSTEM SET fsync = {value}")
        self.execute("SELECT pg_reload_conf()")

    def new_database(self) -> str:
        """Create an empty database; return its URL."""
        name = f"store_{next(self.counter)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)


@contextlib.contextmanager
def private_server(programs: Path, *, fsync: bool) -> Iterator[Server]:
    """Make a cluster, start it, and stop and remove it at the end.

    Args:
        programs: the folder of ``initdb`` and ``postgres``.
        fsync: whether commits wait for the disk, as they do in earnest.
    """
    folder = Path(tempfile.mkdtemp(prefix="clipq-postgresql-"))
    try:
        with (folder / "log").open("wb") as log:
            process, port = _start(folder, programs, log.fileno(), fsync)
        server = Server(port, itertools.count(1))
        try:
            _wait_until_ready(server, process, folder / "log")
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(
    folder: Path, programs: Path, log: int, fsync: bool
) -> tuple[subprocess.Popen[bytes], int]:
    identity: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        identity = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)  # within a folder that only its owner enters
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
        "fsync": "on" if fsync else "off",
        "max_connections": 60,
    }
    with (data / "postgresql.conf").open("a") as file:  # not on the command line: fsync may change
        file.writelines(f"{name} = '{value}'\n" for name, value in options.items())
    command = [*identity, programs / "postgres", "-D", data]
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log), port


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            server.execute("SELECT 1")
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
