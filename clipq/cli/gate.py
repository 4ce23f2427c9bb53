"""`clipq gate`: the matrix under pytest, with the options of a release process spelled out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipq.cli.context import settings_of
from clipq.settings import POLICIES, PROFILES

__all__ = ["declare", "run"]

_DESCRIPTION = """\
Run the matrix under pytest (-n auto unless -n is given), judge every case, write the reports and
exit 1 where something blocks. What is not listed here goes to pytest: -k, --lf, -x,
--clipq-model GLOB, --clipq-quantizer GLOB, --clipq-probe GLOB, --clipq-metric GLOB ...
"""
_EPILOG = """\
examples:
  clipq gate                                    every pull request
  clipq gate --policy release --profile full    before a release: inconclusive cases block too
  clipq gate --record                           keep the run in the history store
  clipq gate --clipq-quantizer 'rtn:w4*' -n0    a part of it, in one process

exit codes:
  0  passed
  1  a case, a kernel or a waiver blocks, something planned was never reported, the report could
     not be written or the run not be recorded
  2  wrong usage or input of clipq, or an error while cases were collected
  3  an internal error
  4  wrong usage of pytest
  5  no case was left after selection
  130  interrupted; what was measured is in the report
"""
_PROGRESS = ("-p", "clipq.pytest_progress", "-o", "console_output_style=classic")
_SUITE = Path(__file__).parent.parent / "suite"


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq gate` to the command line."""
    gate = commands.add_parser(
        "gate",
        help="run the matrix and judge it",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    gate.add_argument(
        "--policy",
        choices=POLICIES,
        help="which verdicts block: release is stricter than ci; default: clipq.toml's",
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
    gate.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run pytest on the shipped suite; return its exit code."""
    import pytest

    settings = settings_of(options)
    modules = ("test_reliability.py", "test_kernels.py")
    parallel = any(argument.startswith(("-n", "--numprocesses")) for argument in rest)
    chosen = {"--clipq-policy": options.policy, "--clipq-profile": options.profile}
    return pytest.main(
        [
            *(str(_SUITE / module) for module in modules),
            f"--rootdir={settings.root}",
            f"--clipq-config={settings.path}",
            "-Wignore::pytest.PytestAssertRewriteWarning",  # clipq is imported: this is it
            *([] if parallel else ["-n", "auto"]),
            *(f"{name}={value}" for name, value in chosen.items() if value),
            *(["--clipq-record"] if options.record else []),
            *(["-q"] if options.quiet else _PROGRESS),
            *rest,
        ]
    )
