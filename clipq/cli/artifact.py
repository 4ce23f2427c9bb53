"""`clipq artifact`: exported files that stand where a quantizer stands."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

__all__ = ["ACTIONS", "declare"]

ACTIONS = ("check", "export", "images", "quantize")
"""Every action; one of `clipq.cli.artifact_check` and its siblings declares and runs it."""

_DESCRIPTION = """\
What ships is a file that a runtime runs, not a simulation of it. [[artifacts]] in clipq.toml
declares exported files of a model; `clipq gate` then judges them as it judges a quantizer.
"""


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq artifact` to the command line."""
    artifact = commands.add_parser(
        "artifact",
        help="exported files and their runtimes: make them, and what is wrong with them",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = artifact.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name in ACTIONS:
        import_module(f"clipq.cli.artifact_{name}").declare(actions)
