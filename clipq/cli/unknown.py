"""What is said of a word that a command does not take: which option was meant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from clipq.errors import UnknownNameError, did_you_mean

__all__ = ["chosen", "unknown"]

_BEFORE = "--config"


def chosen(parser: argparse.ArgumentParser, options: argparse.Namespace) -> argparse.ArgumentParser:
    """Return the parser of the command, and of its action, that a line names."""
    for action in parser._actions:  # argparse has no other way to look at what was declared
        if isinstance(action, argparse._SubParsersAction):
            return chosen(action.choices[getattr(options, action.dest)], options)
    return parser


def unknown(
    words: Sequence[str], command: argparse.ArgumentParser, *, besides: str = ""
) -> UnknownNameError:
    """Return the error for words that a command line has too many.

    Args:
        words: at least one; the first option among them is named, else the first word.
        command: what declares the options that there are.
        besides: what to say of options that it takes without declaring them.
    """
    word = next((word for word in words if word.startswith("-")), words[0]).partition("=")[0]
    if not word.startswith("-"):
        return UnknownNameError(f"{command.prog} takes no {word!r}", hint=f"{command.prog} --help")
    if word == _BEFORE:
        program, _, rest = command.prog.partition(" ")
        hint = f"it stands before the command: {program} {_BEFORE} FILE {rest}"
    else:
        names = {name for action in command._actions for name in action.option_strings}
        hint = did_you_mean(word, (name for name in names if name.startswith("--")))
        hint += besides
    return UnknownNameError(f"{command.prog} has no option {word}", hint=hint)
