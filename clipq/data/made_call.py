"""The process in which a function writes a probe's files: `python -m clipq.data.made_call`.

Its argument says what to call, as JSON. Its standard output carries one JSON object a line, what is
done and the last word; what the function prints goes to the standard error.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clipq.dependencies.code_file import CodeFile
from clipq.dependencies.file_reads import watching
from clipq.errors import ClipqError, ProbeError

__all__: list[str] = []

_ENDED = 3
_PROGRESS = "progress"


def _call(asked: Mapping[str, Any], tell: Callable[[int, int], None]) -> None:
    """Call the function.

    Raises:
        ProbeError: there is none, it takes other arguments, it fails, or it reads files of its
            project that do not identify what it makes.
    """
    path, function = Path(asked["path"]), asked["function"]
    where, file = f"{path.name}:{function}", CodeFile(path, ProbeError)
    with watching() as read:
        make = file.function(file.module(), function)
    told = {_PROGRESS: tell} if _PROGRESS in _parameters(make) else {}
    arguments = {**asked["arguments"], **told}
    try:
        inspect.signature(make).bind(Path(asked["folder"]), **arguments)
    except TypeError as error:
        raise ProbeError(
            f"{where} does not take what it is given: {error}",
            hint=f"write def {function}(folder), and after it what `source` names: ,count=500",
        ) from error
    except ValueError:
        pass  # written in C: it says itself what it does not take
    with watching() as read_by_call:
        file.called(lambda: make(Path(asked["folder"]), **arguments), f"{where} failed")
    known = {Path(one) for one in asked["known"]}
    file.refuse_undeclared(read | read_by_call, known, where=where)


def _parameters(make: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(make).parameters)
    except (TypeError, ValueError):  # written in C
        return ()


def _end_with_parent() -> None:
    """End this process when the one that started it does, however that ends."""
    while os.read(0, 1):  # without a lock, which would be held where the interpreter shuts down
        pass
    os._exit(_ENDED)


def _print_traceback() -> None:
    sys.stdout.flush()  # what was printed before; a file is written to in blocks
    traceback.print_exc()


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the function prints
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(**said: Any) -> None:
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    asked = json.loads(sys.argv[1])
    try:
        os.chdir(asked["root"])
        _call(asked, lambda done, total: say(done=int(done), total=int(total)))
        last: dict[str, Any] = {}
    except ClipqError as error:
        _print_traceback()
        failed = error.__cause__ is not None  # in code of the project's: the log shows it
        last = {"problem": error.problem, "hint": None if failed else error.hint}
    except BaseException as error:
        _print_traceback()
        last = {"problem": f"{type(error).__name__}: {error}"}
    sys.stdout.flush()
    say(**last)
    os._exit(0)  # whatever threads the function left


if __name__ == "__main__":
    _main()
