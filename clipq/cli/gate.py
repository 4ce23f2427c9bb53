"""`clipq gate`: the matrix under pytest, with the options of a release process spelled out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from clipq.cli.context import settings_of
from clipq.errors import ClipqError
from clipq.settings import PATHS, PROFILES, SELECTORS

__all__ = ["declare", "run"]

_DESCRIPTION = """\
Run the matrix under pytest (-n auto unless -n is given), judge every case, write the reports and
exit 1 where something blocks. What is not listed here goes to pytest: -k, --lf, -x, -n0 ...
"""
_EPILOG = """\
examples:
  clipq gate                                    every pull request
  clipq gate --policy release --profile full    before a release: inconclusive cases block too
  clipq gate --record                           keep the run in the history store
  clipq gate --quantizer 'rtn:w4*' -n0          a part of it, in one process

exit codes:
  0  passed: everything that was planned was measured, and the last line says PASSED
  1  a case, a kernel or a waiver blocks, something planned was never reported, policy release met
     a part of the matrix, the report could not be written or the run not be recorded
  2  wrong usage or input of clipq, an error while cases were collected, or no run at all
  3  an internal error
  4  wrong usage of pytest
  5  no case was left after selection
  130  interrupted; what was measured is in the report
  143  terminated (SIGTERM), likewise; a second SIGTERM ends it at once
  129  hung up (SIGHUP: its terminal or connection was closed), likewise
"""
_PROGRESS = ("-p", "clipq.pytest_progress", "-o", "console_output_style=classic")
_WANTED = ("-p", "clipq.pytest_plugin", "-p", "xdist.plugin")
_NO_LOGS = ("-p", "no:logging")
"""In each phase of each test pytest's plugin visits all loggers: 4 ms a case. What is logged goes
to stderr, which pytest captures; a `--log...` option of pytest brings it back."""
_USAGE = 2
_SUITE = Path(__file__).parent.parent / "suite"


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq gate` to the command line."""
    gate = commands.add_parser(
        "gate",
        help="run the matrix and judge it",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # pytest may have an option that begins like one of these
    )
    gate.add_argument(
        "--policy",
        metavar="NAME",
        help="which verdicts block: ci, release, or one that [policies] in clipq.toml declares; "
        "default: clipq.toml's",
    )
    gate.add_argument(
        "--profile",
        choices=PROFILES,
        help="which part of the matrix, as [profiles] in clipq.toml says; default: default",
    )
    gate.add_argument(
        "--record", action="store_true", help="record the run in the history store when it ends"
    )
    gate.add_argument(
        "--quiet", action="store_true", help="neither progress nor a header, but the report"
    )
    part = gate.add_argument_group("a part of the matrix")
    for name in SELECTORS:
        part.add_argument(
            f"--{name}", action="append", metavar="GLOB", help=f"only these {name}s (repeatable)"
        )
    part.add_argument(
        "--kernel",
        action="append",
        metavar="GLOB",
        help="check only these kernels, and no case unless one is selected too (repeatable)",
    )
    places = gate.add_argument_group("instead of what clipq.toml says")
    for name in PATHS:
        places.add_argument(f"--{name}", type=Path, metavar="PATH", help=f"`{name}`")
    gate.set_defaults(run=run, declared=gate)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run pytest on the shipped suite; return its exit code.

    Raises:
        UnknownNameError: an option that neither this command nor pytest has.
    """
    import pytest

    from clipq.cli.gate_proof import Gatekeeper, GateProof
    from clipq.cli.pytest_usage import PytestUsage

    settings = settings_of(options)
    settings.under(options.policy or settings.policy)
    keeper, proof = Gatekeeper(), GateProof()
    if options.from_shell:
        keeper.watch()
    modules = ("test_reliability.py", "test_kernels.py")
    logs = any(argument.startswith("--log") for argument in rest)
    parallel = any(argument.startswith(("-n", "--numprocesses")) for argument in rest)
    given = [
        *(str(_SUITE / module) for module in modules),
        f"--rootdir={settings.root}",
        f"--clipq-config={settings.path}",
        "-Wignore::pytest.PytestAssertRewriteWarning",  # clipq is imported: this is it
        *(_WANTED if os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD") else []),
        *([] if parallel else ["-n", "auto"]),
        *([] if logs else _NO_LOGS),
        *_of_the_plugin(options),
        *(["-q"] if options.quiet else _PROGRESS),
        *rest,
    ]
    try:
        code = pytest.main(given, plugins=[PytestUsage(options.declared), proof])
        sys.stdout.flush()
    except BaseException as error:
        keeper.done(_USAGE)  # the caller says what it was
        # pytest reports every other error: this one it could not.
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise _unwritable(error) from error
        raise
    return keeper.done(proof.checked(int(code)))


def _unwritable(error: OSError) -> ClipqError:
    """Return what to say of an output that takes nothing; what it holds back goes nowhere."""
    with suppress(OSError, ValueError):  # or Python complains of it when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ClipqError(
        f"the run ended, for its output cannot be written: {error.strerror or error}",
        hint="send standard output where there is room; a report of an earlier run is left as it "
        "is where nothing ran",
    )


def _of_the_plugin(options: argparse.Namespace) -> list[str]:
    """Return what was chosen as the plugin's own options, which are called ``--clipq-...``."""
    chosen = ["--clipq-record"] if options.record else []
    for name in ("policy", "profile", *SELECTORS, "kernel", *PATHS):
        value = getattr(options, name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        chosen += [f"--clipq-{name}={one}" for one in values]
    return chosen
