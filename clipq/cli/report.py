"""`clipq report`: a stored run record again, in any form."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from clipq.terminal import emit, say

__all__ = ["declare", "run"]

_FORMS = {
    "text": "clipq.report.text:summary",
    "markdown": "clipq.report.markdown:markdown",
    "junit": "clipq.report.junit:junit",
    "html": "clipq.report.html:html",
    "github": "clipq.report.annotations:github",
    "gitlab": "clipq.report.annotations:gitlab",
}


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq report` to the command line."""
    report = commands.add_parser(
        "report",
        help="print a stored run record again, in any form",
        description="Render a run record. text: the terminal report; markdown: for a pull "
        "request's comment; junit: XML; html: one offline page; github: annotations as workflow "
        "commands; gitlab: a code quality report. Exits as the gate did: 0 passed, 1 not; 2 where "
        "its verdicts do not follow from its numbers, or a planned case is missing.",
    )
    report.add_argument("record", type=Path, metavar="REPORT.json")
    report.add_argument("--format", choices=tuple(_FORMS), default="text")
    report.add_argument(
        "--output", type=Path, metavar="FILE", help="write there instead of printing"
    )
    report.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print or write the report; return 0 if the run passed, else 1.

    Raises:
        RecordError: the record cannot be read, or was edited.
    """
    from clipq.files import write_atomically
    from clipq.gating.derivation import check_complete, check_verdicts
    from clipq.records import read_run

    record = read_run(options.record)
    check_verdicts(record, source=options.record)
    check_complete(record, source=options.record)
    text = resolve_name(_FORMS[options.format])(record)
    if options.output is None:
        emit(text, end="" if text.endswith("\n") or not text else "\n")
    else:
        write_atomically(options.output, text.encode())
        say(f"written: {options.output}")
    return 0 if record.passed else 1
