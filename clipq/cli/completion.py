"""`clipq completion`: the script that lets a shell complete clipq's commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clipq.errors import ClipqError
from clipq.terminal import emit

__all__ = ["SHELLS", "declare", "run"]

SHELLS = ("bash", "zsh", "tcsh")
_RUNS = ("before", "after", "named")  # of `clipq compare` and `train`: files as often as names
_EPILOG = """\
to install it:
  bash  clipq completion bash > ~/.local/share/bash-completion/completions/clipq
        (with the package bash-completion; without it, in ~/.bashrc:
        source <(clipq completion bash))
  zsh   clipq completion zsh > ~/.zfunc/_clipq
        (and in ~/.zshrc, before compinit: fpath+=~/.zfunc)
  tcsh  clipq completion tcsh > ~/.clipq.tcsh
        (and in ~/.tcshrc: source ~/.clipq.tcsh)

Then start a new shell, and print the script again after an upgrade of clipq.
"""


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq completion` to the command line."""
    completion = commands.add_parser(
        "completion",
        help="print the script by which a shell completes clipq",
        description="Print a completion script, made from clipq's own options.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the script.

    Raises:
        ClipqError: shtab, which makes it, is not installed.
    """
    from clipq.cli.main import parser

    try:
        import shtab
    except ImportError:
        raise ClipqError("shtab is not installed", hint="pip install shtab") from None
    command_line = parser()
    _complete_files(command_line, shtab.FILE)
    emit(shtab.complete(command_line, shell=options.shell))
    return 0


def _commands(parser: argparse.ArgumentParser) -> Iterator[dict[str, argparse.ArgumentParser]]:
    for action in parser._actions:  # argparse has no other way to look at what was declared
        if isinstance(action, argparse._SubParsersAction):
            yield action.choices


def _complete_files(parser: argparse.ArgumentParser, files: object) -> None:
    """Let every argument that may be a file complete as one, in all commands below `parser`."""
    for commands in _commands(parser):
        for below in commands.values():
            _complete_files(below, files)
    for action in parser._actions:
        if action.type is Path or action.dest in _RUNS:
            action.complete = files  # type: ignore[attr-defined]  # shtab reads it
