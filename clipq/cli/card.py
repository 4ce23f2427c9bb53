"""`clipq card`: a release card of one model x quantizer, from a run record."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cases import Candidate
from clipq.cli.store import add_store_option
from clipq.errors import RecordError, StoreError
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.records import RunRecord

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
    add_store_option(card)
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
    record = read_run(path)
    seen = _looks(record, candidate, options)
    card = release_card(record, candidate, name=options.name, looks=seen)
    if options.format == "model-index":
        text = json.dumps(model_index(card), indent=2) + "\n"
    else:
        text = {"markdown": card_markdown, "html": card_html}[options.format](card)
    if options.output is None:
        emit(text, end="")
    else:
        write_atomically(options.output, text.encode())
        say(f"written: {options.output}")
    if card.releasable:
        return 0
    if options.output or options.format == "model-index":
        say(f"clipq: {plain_statement(card)}", error=True)
    return 1


def _looks(record: RunRecord, candidate: Candidate, options: argparse.Namespace) -> dict[str, int]:
    """Return how many candidates of a model were judged on the run's release-only probes, by probe.

    Nothing where there is no store: a card may be written far from the project.
    """
    from clipq.cli.store import open_for, project_settings
    from clipq.report.looks import looks

    probes = record.evidence().get("probes", {})
    kept = {name: seen["fingerprint"] for name, seen in probes.items() if seen.get("use")}
    if not kept:
        return {}
    try:
        with open_for(options, project_settings(options)) as store:
            found = looks([record, *map(store.load, store.runs(policy="release"))])
    except StoreError as error:
        say(f"clipq: {error}", error=True)
        return {}
    return {
        one.probe: one.candidates
        for one in found
        if one.model == candidate.model and kept.get(one.probe) == one.fingerprint
    }
