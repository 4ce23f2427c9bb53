"""What every benchmark here is: a file with `main(arguments) -> int`, run as a script.

A file that runs as a script measures something and understands `--quick`: the same code on the
smallest sensible sizes, in seconds, printing the same lines. Any other file is a library. The exit
code is 0 where every goal was met, 1 where one was missed, 2 for arguments that make no sense and 3
where something that the measurement needs is not installed here; one line then says what.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypeVar

__all__ = ["LACKING", "MET", "MISSED", "Goals", "Script", "lacking", "quiet"]

MET, MISSED, LACKING = 0, 1, 3
_CODES = (
    "Exit code: 0 every goal was met, 1 one was missed, 3 something needed is not installed. With "
    "--quick, goals of time, speed and memory are shown but not judged."
)

_Size = TypeVar("_Size", int, float, str)


class Script(argparse.ArgumentParser):
    """The command line of one benchmark: its docstring is its help.

    Args:
        doc: what is measured, the goal, and how to call it.
        takes: how long the full measurement takes.
    """

    def __init__(self, doc: str | None, *, takes: str) -> None:
        super().__init__(
            description=doc,
            epilog=f"The full measurement takes {takes}; --quick takes seconds. {_CODES}",
            formatter_class=_Verbatim,
        )
        self.add_argument(
            "--quick", action="store_true", help="the same, as small as it makes sense"
        )
        self._sizes: dict[str, tuple[object, object]] = {}

    def size(
        self,
        name: str,
        *,
        full: _Size | Sequence[_Size],
        quick: _Size | Sequence[_Size],
        help: str,
        choices: Sequence[_Size] | None = None,
    ) -> None:
        """Add an option that has one default for the full measurement and one for a quick one."""
        many = not isinstance(full, int | float | str)
        kind = type(full[0]) if many else type(full)  # type: ignore[index]
        action = self.add_argument(
            name,
            type=kind,
            nargs="+" if many else None,
            choices=choices,
            help=f"{help} ({_shown(full)}; with --quick {_shown(quick)})",
        )
        self._sizes[action.dest] = (full, quick)

    def options(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Return the options, sizes filled in; `arguments` None stands for those of the process."""
        found = self.parse_args(arguments)
        for name, (full, quick) in self._sizes.items():
            if getattr(found, name) is None:
                setattr(found, name, quick if found.quick else full)
        return found


class Goals:
    """Whether the goals of a run were met.

    Args:
        quick: whether sizes are too small for times, speeds and memory to mean anything.
    """

    def __init__(self, *, quick: bool) -> None:
        self._quick = quick
        self._met = True

    def exact(self, met: bool) -> bool:
        """Count a goal that holds at any size; return whether it was met."""
        self._met &= met
        return met

    def measured(self, met: bool) -> bool:
        """Count a goal of time, speed or memory; return whether it was met."""
        self._met &= met or self._quick
        return met

    @property
    def code(self) -> int:
        """The exit code."""
        return MET if self._met else MISSED


def lacking(what: str) -> NoReturn:
    """End the script: something that the rest of it needs is not here."""
    print(f"not measured: {what}", file=sys.stderr, flush=True)
    raise SystemExit(LACKING)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep libraries from warning: open_clip does of every model with random weights."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class _Verbatim(argparse.HelpFormatter):
    """Keep the lines of the description; wrap everything else."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "".join(indent + line for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


def _shown(size: object) -> str:
    return " ".join(map(str, size)) if isinstance(size, list | tuple) else str(size)
