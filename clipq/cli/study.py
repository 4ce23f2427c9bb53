"""`clipq study`: what stored runs and sweeps say of the study's claims, its table and its page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clipq.cli.store import add_store_option
from clipq.cli.study_advice import ADVISE, declare_advise, run_advise
from clipq.cli.study_choice import chosen_rows, declare_choice
from clipq.cli.study_sources import StudySources, say_what_is_partly_measured, width_of
from clipq.terminal import emit, say

__all__ = ["declare", "run"]

_DESCRIPTION = """\
What stored runs and sweeps say together of the study behind clipq: its ten claims, and its table of
models and quantizers. RECORD is a report.json, or a run of the history store: latest, #12, the
start of an id, commit:SHA. SWEEP is a plan, whose units are read, or a sweep's folder. All are put
together where they are about the same models, probes and FP32 values; what differs is refused by
name.
"""
_CLAIMS = """\
Answer claims C1 to C10 of each model, and overall: reproduced, not reproduced, or undecided, with
the effect, its interval over samples and seeds, and how many effects were looked at. What cannot be
answered says what it needs. docs/claims.md defines every claim, rule and margin.

Candidates that differ only in seed=N are one configuration, drawn several times; claims use a
configuration that draws anything (QAT, quarot, noise, a part of the calibration data) from two
seeds on. Differences of two candidates are paired where both runs' predictions are at hand, in the
cache or the store; elsewhere their standard errors are added, which holds however they are
correlated.
"""
_TABLE = """\
The study's table: top-1, ECE, temperature-scaled ECE, near and far AUROC (MCM), corruption error,
added vulnerability, relative gap and SQNR by band of ranks; one row per configuration, the mean
over its seeds, with the interval of the change against FP32 over samples and seeds. Bold, or an
asterisk in text, is surely better than FP32.
"""
_VALUES = """\
Everything that was measured, as one long table: a row per model, configuration, probe and metric,
with FP32's value, the mean over seeds, the change and its interval, and the ids of the units.
"""
_PAGE = """\
Tables, figures, claims and the adviser on one page that needs no network, or (--format json) the
document that it is made of. docs/study-data.md describes each key.
"""
_FORMATS = ("text", "markdown", "csv", "json")
_EPILOG = """\
examples:
  clipq gate --quantizer 'rtn:w?a8*' --profile full     a record to start from
  clipq study claims .clipq/report/report.json
  clipq study claims records/*.json --format markdown --output claims.md
  clipq study table latest latest~1 --format csv --output table.csv
  clipq study table --sweep plan.toml --model 'vit-*' --quantizer '*w4a8*'
  clipq study claims --sweep plan.toml
  clipq study values --sweep plan.toml --output study.csv
  clipq study page --sweep plan.toml --output study.html
  clipq study advise vit-clean --sweep plan.toml --margin ece=0.01

exit codes: 0 done, 2 wrong usage, or records that contradict each other
"""
_ACTIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "claims": ("answer claims C1 to C10", _CLAIMS, _FORMATS),
    "table": ("models x quantizers, with intervals over samples and seeds", _TABLE, _FORMATS),
    "values": ("every number, as one long table", _VALUES, ("csv", "json")),
    "page": ("all of it on one page, or as one document", _PAGE, ("html", "json")),
    "advise": ("which quantizer for a model, under margins", ADVISE, ("text", "json")),
}


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq study` to the command line."""
    parser = commands.add_parser(
        "study",
        help="the study's claims, table, page and advice, from stored runs and sweeps",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (text, what, forms) in _ACTIONS.items():
        action = actions.add_parser(
            name,
            help=text,
            description=what,
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == "advise":
            declare_advise(action)
        if name == "table":
            declare_choice(action)
        action.add_argument(
            "records", nargs="*", metavar="RECORD", help="report.json files, or runs of the store"
        )
        action.add_argument(
            "--sweep",
            action="append",
            default=[],
            metavar="SWEEP",
            help="a plan, a sweep's folder, or the URL of its --store; several times for several",
        )
        add_store_option(action)
        action.add_argument(
            "--format", choices=forms, default=forms[0], help=f"default: {forms[0]}"
        )
        action.add_argument("--output", type=Path, metavar="FILE", help="write there, do not print")
        if name in ("claims", "page"):
            action.add_argument(
                "--towers",
                choices=("vision", "both"),
                default="vision",
                help="which quantized towers claims are about (default: vision, as in the study)",
            )
        if name == "claims":
            action.add_argument(
                "--no-pairing", action="store_true", help="add standard errors, pair nothing"
            )


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print or write what an action says; return 0."""
    from clipq.files import write_atomically

    with StudySources(options) as sources:
        shown = _SHOWN[options.action](options, sources)
    if options.output is None:
        emit(shown)
    else:
        write_atomically(options.output, f"{shown}\n".encode())
        say(f"written: {options.output}")
    return 0


def _claims(options: argparse.Namespace, sources: StudySources) -> str:
    from clipq.study import METRICS, answer_claims
    from clipq.study.study_formats import claims_text

    measurements = sources.gathered(paired=not options.no_pairing, metrics=METRICS)
    table = answer_claims(measurements, towers=options.towers)
    return claims_text(table, options.format, units=measurements.units_of, width=width_of(options))


def _table(options: argparse.Namespace, sources: StudySources) -> str:
    from clipq.study import METRICS, study_rows
    from clipq.study.study_formats import table_text

    measurements = sources.gathered(metrics=METRICS)
    say_what_is_partly_measured(measurements)
    rows = chosen_rows(study_rows(measurements), options)
    return table_text(rows, options.format, units=measurements.units_of, width=width_of(options))


def _values(options: argparse.Namespace, sources: StudySources) -> str:
    from clipq.study.study_values import values_text

    return values_text(sources.gathered(), options.format)


def _page(options: argparse.Namespace, sources: StudySources) -> str:
    from clipq.study import METRICS, study_document

    measurements = sources.gathered(metrics=METRICS)
    say_what_is_partly_measured(measurements)
    document = study_document(
        measurements,
        towers=options.towers,
        seconds=sources.seconds(),
        milliseconds=sources.milliseconds(measurements),
        provenance=sources.provenance(),
    )
    if options.format == "json":
        return json.dumps(document, allow_nan=False)
    from clipq.study.page_build import study_page

    return study_page(document)


_SHOWN: dict[str, Callable[[argparse.Namespace, StudySources], str]] = {
    "claims": _claims,
    "table": _table,
    "values": _values,
    "page": _page,
    "advise": run_advise,
}
