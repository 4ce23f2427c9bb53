"""Stores to test with: SQLite files, and databases of a private PostgreSQL server on loopback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from private_postgresql import Server, private_server, server_programs

from clipq.records import CaseResult, RunRecord, Verdict, sort_cases


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
