"""A script that forks one process per command: real processes without importing for each anew.

Commands come on standard input, one JSON list per line; each is answered by one line on standard
output, a JSON list of exit statuses (negative: the signal that killed it):

    ["write", URL, [[FIRST, COUNT], ...]]  a process per pair, all at once, records so many runs
    ["kill", URL, INDEX, POINT]            a process is killed after its POINT-th INSERT
    ["open", URL, COUNT]                   so many processes open the store at once
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from history_runs import small_run
from sqlalchemy import Engine, event

from clipq.history.store import open_store

CASES = 30
KILLED_CASES = 4500  # rows in several statements
_AHEAD_SECONDS = 0.2


def write(url: str, first: int, count: int) -> None:
    with open_store(url, root=Path.cwd()) as store:
        for index in range(first, first + count):
            tables = {"shared": b"s" * 999, "own": b"%d" % index}
            store.record(small_run(index, cases=CASES), tables)
            store.record(small_run(0, cases=CASES))  # every process records this one


def kill(url: str, index: int, point: int) -> None:
    seen = 0

    @event.listens_for(Engine, "after_cursor_execute")
    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal seen
        seen += statement.startswith("INSERT")
        if seen == point:
            os.kill(os.getpid(), signal.SIGKILL)

    with open_store(url, root=Path.cwd()) as store:
        store.record(small_run(index, cases=KILLED_CASES), {"own": b"o" * 999, "other": b"x"})


def forked(start: float, task: Callable[..., None], *arguments: Any) -> int:
    """Start a process that does the task at a given time; return its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        time.sleep(max(0.0, start - time.monotonic()))
        task(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    for line in sys.stdin:
        what, url, *rest = json.loads(line)
        start = time.monotonic() + _AHEAD_SECONDS
        if what == "write":
            children = [forked(start, write, url, first, count) for first, count in rest[0]]
        elif what == "kill":
            children = [forked(0.0, kill, url, *rest)]
        else:
            children = [forked(start, write, url, 0, 0) for _ in range(rest[0])]
        found = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
