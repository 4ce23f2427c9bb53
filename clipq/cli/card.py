"""`clipq card`: a release card of one model x quantizer, from a run record."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipq.cases import Candidate
from clipq.errors import RecordError

__all__ = ["declare", "run"]

_DESCRIPTION = """\
Write what the users of a quantized model should know: what was measured beside FP32 and how sure
that is, what was waived, by whom and until when, and what identifies it all. As Markdown with the
model-index metadata that model hubs read, as an HTML page, or as that metadata alone.
"""
_EPILOG = """\
examples:
  clipq gate --policy release --profile full && clipq card vit-b-32/rtn:w8a8 --output CARD.md
  clipq card vit-b-32/rtn:w8a8 --format html --output card.html
  clipq card vit-b-32/rtn:w8a8 --format model-index > model-index.json

exit codes:
  0  the pair may be released
  1  a case of it blocks under policy release, a waiver or a kernel is wrong, or the run measured
     only a part of the pair's cases
  2  wrong usage
"""


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq card` to the command line."""
    card = commands.add_parser(
        "card",
        help="a release card of one model x quantizer, to attach to a model card",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    card.add_argument("pair", metavar="MODEL/QUANTIZER", help="as in case ids: vit-b-32/rtn:w8a8")
    card.add_argument(
        "--record", type=Path, metavar="REPORT.json", help="default: the last gate's report.json"
    )
    card.add_argument("--name", default="", help="of the released model")
    card.add_argument("--format", choices=("markdown", "html", "model-index"), default="markdown")
    card.add_argument("--output", type=Path, metavar="FILE", help="write there, do not print")
    card.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print or write the card; return 0 where nothing speaks against a release, else 1."""
    from clipq.cli.context import settings_of
    from clipq.files import write_atomically
    from clipq.records import read_run
    from clipq.report.card import (
        card_html,
        card_markdown,
        model_index,
        plain_statement,
        release_card,
    )

    candidate = Candidate.parse(options.pair)
    path = options.record or settings_of(options).report / "report.json"
    if not path.is_file():
        raise RecordError(
            f"no run record at {path}", hint="run `clipq gate --policy release --profile full`"
        )
    card = release_card(read_run(path), candidate, name=options.name)
    if options.format == "model-index":
        text = json.dumps(model_index(card), indent=2) + "\n"
    else:
        text = {"markdown": card_markdown, "html": card_html}[options.format](card)
    if options.output is None:
        print(text, end="")
    else:
        write_atomically(options.output, text.encode())
        print(f"written: {options.output}")
    if card.releasable:
        return 0
    if options.output or options.format == "model-index":
        print(f"clipq: {plain_statement(card)}", file=sys.stderr)
    return 1
