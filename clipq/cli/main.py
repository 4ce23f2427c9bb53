"""`clipq`: the command line. Parses, calls, prints; every user's mistake is one message."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from clipq import __version__
from clipq.cli.unknown import chosen, unknown
from clipq.errors import ClipqError
from clipq.terminal import say

__all__ = ["COMMANDS", "main", "parser"]

COMMANDS = {
    "demo": "demo",
    "init": "init",
    "doctor": "doctor",
    "list": "listing",
    "probe": "probe",
    "baseline": "baseline",
    "power": "power",
    "gate": "gate",
    "report": "report",
    "blame": "blame",
    "inspect": "inspect",
    "train": "train",
    "artifact": "artifact",
    "kernels": "kernels",
    "compare": "compare",
    "sweep": "sweep",
    "study": "study",
    "history": "history",
    "bisect": "bisect",
    "site": "site",
    "card": "card",
    "completion": "completion",
}
"""Every command and the module of `clipq.cli` that declares and runs it, as `--help` lists them."""

_PACKAGE = Path(__file__).parents[1]
_AS_PYTHON_DOES = warnings.formatwarning

_DESCRIPTION = """\
Is a quantized CLIP still as reliable as the FP32 model?

clipq judges every model x quantizer x probe x metric of clipq.toml against a stored FP32
baseline: accuracy, calibration, out-of-distribution detection, robustness, fairness.
"""
_EPILOG = """\
a first session:
  clipq demo                            a first gate: models and images come with clipq
  clipq init                            look at this repository, write clipq.toml
  clipq list cases                      what the matrix holds
  clipq probe check                     are the probes what they should be? with pictures
  clipq baseline create                 measure FP32 and store it for review
  clipq power                           what the margins ask of the probes' sizes
  clipq gate                            run every case, print the report, exit 1 if one blocks
  clipq gate --quantizer 'rtn:w4*' -n0           a part of it, in one process
  clipq blame 'vit-clean/rtn:w4a4/id.ece'        which layers make a case fail
  clipq inspect groups vit-clean/rtn:w4/corruptions     by kind of corruption, beside FP32

  clipq train vit-clean lsq:w4a8 --output trained/vit-clean     a quantizer that learns

run after run:
  clipq gate --record                   keep the run in the history
  clipq compare latest~1 latest         did anything get worse?
  clipq bisect 'vit-clean/rtn:w4/id.ece'         since which commit
  clipq gate --policy release --profile full      may it ship? everything, strictly
  clipq card vit-clean/rtn:w8a8         sign off a release

exit codes: 0 passed, 1 a case blocks or was never reported, 2 wrong usage or input,
            4 wrong pytest usage, 130 interrupted, 143 terminated, 129 hung up (what was
            measured is kept)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    if sys.stdout is None or sys.stderr is None:  # `>&-`: files would be opened in its place
        said = "clipq: standard output or error is closed\n  fix: send it to /dev/null instead"
        say(said, error=True)
        return 2
    if arguments is None:
        warnings.formatwarning = _in_a_line
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = _command(given)
    made = parser([command] if command else COMMANDS)
    options, rest = made.parse_known_args(given)
    try:
        if rest and options.command != "gate":  # which hands them to pytest
            raise unknown(rest, chosen(made, options))
        options.from_shell = arguments is None
        return int(options.run(options, rest))
    except ClipqError as error:
        say(f"clipq: {error}", error=True)
        return 2
    except KeyboardInterrupt:
        say("clipq: interrupted; what was cached is kept", error=True)
        return 130
    except BrokenPipeError:  # `clipq ... | head`: whoever read has seen enough
        sys.stderr.close()  # or Python complains of the pipe when it exits
        return 141


def _in_a_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Return what a warning says: of clipq's own alone, for its place in the code is ours."""
    if category is UserWarning and Path(filename).is_relative_to(_PACKAGE):
        return f"clipq: {message}\n"
    return _AS_PYTHON_DOES(message, category, filename, lineno, line)


def _command(given: Sequence[str]) -> str | None:
    """Return the command that was asked for; None where help or a complaint must know them all."""
    values = {index + 1 for index, word in enumerate(given) if word == "--config"}
    words = (word for index, word in enumerate(given) if index not in values)
    return next((word for word in words if word in COMMANDS), None)


def parser(commands: Sequence[str] | dict[str, str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Return the parser of some commands; each is imported here, and no other is."""
    made = argparse.ArgumentParser(
        prog="clipq",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"clipq {__version__}")
    made.add_argument("--config", type=Path, metavar="FILE", help="default: nearest clipq.toml")
    actions = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in commands:
        import_module(f"clipq.cli.{COMMANDS[name]}").declare(actions)
    return made
