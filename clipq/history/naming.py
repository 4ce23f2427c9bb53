"""How people name a run: `latest`, `latest~2`, `#12`, the start of its id, a commit."""

from __future__ import annotations

import re
from collections.abc import Sequence

import sqlalchemy as sa

from clipq.errors import StoreError
from clipq.history.model import RunInfo
from clipq.history.schema import runs
from clipq.history.stored_rows import run_infos, select_runs

__all__ = ["find_run"]

_FORMS = "name a run as latest, latest~2, #12, the first 4 or more digits of its id, or commit:SHA"
_NEAR = 5


def find_run(connection: sa.Connection, name: str) -> RunInfo:
    """Return the one run that `name` names. A commit's is the newest of its runs.

    Raises:
        StoreError: no run, or several; near ones are listed.
    """
    text = name.strip()
    newest = run_infos(connection, select_runs().limit(_NEAR))
    if not newest:
        raise StoreError(
            "the store is empty: no run was recorded yet",
            hint="record one with `clipq history record REPORT.json` or `clipq gate --record`",
        )
    if match := re.fullmatch(r"latest(?:~(\d{1,9}))?", text):
        query = select_runs().offset(int(match[1] or 0)).limit(1)
        matching = run_infos(connection, query)
    elif match := re.fullmatch(r"commit:([0-9a-fA-F]{4,64})", text):
        matching = _of_commit(connection, match[1].lower())
    elif match := re.fullmatch(r"#(\d{1,9})", text):
        matching = _numbered(connection, int(match[1]))
    elif re.fullmatch(r"[0-9a-fA-F]{1,64}", text):
        matching = _by_digits(connection, text.lower())
    else:
        raise StoreError(f"{name!r} names no run", hint=f"{_FORMS}; {_listed(newest)}")
    if not matching:
        raise StoreError(f"no run {name!r} in the store", hint=f"{_FORMS}; {_listed(newest)}")
    if len(matching) > 1:
        raise StoreError(
            f"{name!r} names {len(matching)} runs or more", hint=f"say which: {_listed(matching)}"
        )
    return matching[0]


def _numbered(connection: sa.Connection, number: int) -> tuple[RunInfo, ...]:
    return run_infos(connection, select_runs().where(runs.c.number == number))


def _by_digits(connection: sa.Connection, digits: str) -> tuple[RunInfo, ...]:
    """Return the runs meant by digits without a sign: a number in the store, or an id's start."""
    matching = _numbered(connection, int(digits)) if digits.isdigit() and len(digits) < 10 else ()
    if len(digits) >= 4:
        query = select_runs().where(runs.c.id.startswith(digits)).limit(_NEAR)
        matching += tuple(run for run in run_infos(connection, query) if run not in matching)
    return matching


def _of_commit(connection: sa.Connection, sha: str) -> tuple[RunInfo, ...]:
    matching = run_infos(connection, select_runs().where(runs.c.commit_sha.startswith(sha)))
    newest: dict[str, RunInfo] = {}
    for run in matching:
        newest.setdefault(run.commit["sha"], run)
    return tuple(newest.values())[:_NEAR]


def _listed(infos: Sequence[RunInfo]) -> str:
    return ", ".join(
        f"#{run.number} {run.id[:12]}"
        + (f" (commit {run.commit['sha'][:12]})" if run.commit else "")
        for run in infos
    )
