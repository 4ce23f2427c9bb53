"""Write reference/cli.md from the parsers of the command line itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from clipq.cli.main import parser

_WIDTH = 96
_INTRODUCTION = """\
# Commands

Written from the command line's own parsers; `clipq COMMAND --help` prints the same.
[Commands by task](../cli.md) shows them at work.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    files.append(File.generated(config, "reference/cli.md", content=reference(parser())))
    return files


def reference(top: argparse.ArgumentParser) -> str:
    """Return the Markdown page of a parser and all of its commands."""
    top.formatter_class = _wide(top.formatter_class)
    parts = [_INTRODUCTION, _listing(top.format_help())]
    for level, command in _commands(top, 2):
        command.formatter_class = _wide(command.formatter_class)
        parts.append(f"{'#' * level} {command.prog}\n\n{_listing(command.format_help())}")
    return "\n".join(parts)


def _commands(
    parser: argparse.ArgumentParser, level: int
) -> Iterator[tuple[int, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield level, command
                yield from _commands(command, level + 1)


def _wide(kind: type[argparse.HelpFormatter]) -> type[argparse.HelpFormatter]:
    """Return a formatter of one width, whatever the terminal of the build."""

    class Wide(kind):  # type: ignore[valid-type, misc]
        def __init__(self, prog: str) -> None:
            super().__init__(prog, width=_WIDTH)

    return Wide


def _listing(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"
