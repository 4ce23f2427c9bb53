"""`clipq card`: a release card of one model x quantizer, from a run record."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
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

A record is refused whose verdicts do not follow from its numbers, or that lacks a planned case.
Within a project, so is one of another commit or model, of a quantizer or an artifact that was
changed since, or of other margins, waivers or settings.
"""
_EPILOG = """\
examples:
  clipq gate --policy release --profile full && clipq card vit-b-32/rtn:w8a8 --output CARD.md
  clipq card vit-b-32/rtn:w8a8 --format html --output card.html
  clipq card vit-b-32/rtn:w8a8 --format model-index > model-index.json
  clipq card vit-b-32/rtn:w8a8 --allowed-signers allowed_signers    only of a signed record

exit codes:
  0  the pair may be released
  1  a case of it blocks under policy release, a waiver or a kernel is wrong, or the run measured
     only a part of the pair's cases
  2  wrong usage; or the record was edited, is not of what lies here, or is not signed as asked
"""


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq card` to the command line."""
    card = commands.add_parser(
        "card",
        help="a release card of one model x quantizer or artifact, to attach to a model card",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    card.add_argument(
        "pair",
        metavar="MODEL/QUANTIZER",
        help="as in case ids: vit-b-32/rtn:w8a8, or MODEL/ARTIFACT",
    )
    card.add_argument(
        "--record", type=Path, metavar="REPORT.json", help="default: the last gate's report.json"
    )
    card.add_argument("--name", default="", help="of the released model")
    card.add_argument(
        "--allowed-signers",
        type=Path,
        metavar="FILE",
        help="who may sign a record, as git and ssh-keygen know it; REPORT.json.sig is checked",
    )
    add_store_option(card)
    card.add_argument("--format", choices=("markdown", "html", "model-index"), default="markdown")
    card.add_argument("--output", type=Path, metavar="FILE", help="write there, do not print")
    card.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print or write the card; return 0 where nothing speaks against a release, else 1."""
    from clipq.cli.context import settings_of
    from clipq.cli.signature import signature_line
    from clipq.files import write_atomically
    from clipq.gating.derivation import check_complete, check_verdicts
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
    facts = [("signature", signature_line(path, options.allowed_signers))]
    record = read_run(path)
    check_verdicts(record, source=path)
    check_complete(record, source=path)
    card = release_card(record, candidate, name=options.name)
    facts += _compared(record, candidate, options, path)
    card = replace(card, looks=_looks(record, candidate, options), facts=tuple(facts))
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


def _compared(
    record: RunRecord, candidate: Candidate, options: argparse.Namespace, path: Path
) -> list[tuple[str, str]]:
    """Refuse a record that is not of the project here; return what it was compared with."""
    from clipq.cli.store import project_settings
    from clipq.gating.standing import check_standing, not_compared

    settings = project_settings(options)
    if settings is None:
        return [("compared with", "nothing: no clipq.toml here says what is released")]
    check_standing(record, candidate, settings, source=path)
    made = "code" if settings.artifact(candidate) is None else "files"
    what = f"model, {made}, commit, baseline, margins, waivers, settings"
    rows = [("compared with", f"the project that the card was written in: {what}")]
    for sentence in not_compared(record, candidate, settings):
        say(f"clipq: note: {sentence}", error=True)
        rows.append(("not compared", sentence))
    return rows


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
