"""`clipq study`: what stored runs say of the study's claims, and its table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cli.store import add_store_option, open_for, project_settings
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.cases import Cell
    from clipq.estimate import Estimate
    from clipq.history.pairs import ReadTable
    from clipq.history.store import Store
    from clipq.records import CaseResult, RunRecord
    from clipq.study import Measurements

__all__ = ["declare", "run"]

_DESCRIPTION = """\
What stored runs say together of the study behind clipq: its ten claims, and its table of models and
quantizers. RECORD is a report.json, or a run of the history store: latest, #12, the start of an id,
commit:SHA. Records are put together where they are about the same models, probes and FP32 values;
what differs is refused by name.
"""
_CLAIMS = """\
Answer claims C1 to C10 of each model, and overall: reproduced, not reproduced, or undecided, with
the effect, its interval over samples and seeds, and how many effects were looked at. What cannot be
answered says what it needs. docs/claims.md defines every claim, rule and margin.

Candidates that differ only in seed=N are one configuration, drawn several times; claims use a
configuration that draws anything (QAT, quarot, noise) from two seeds on. Differences of two
candidates are paired where both runs' predictions are at hand, in the cache or the store; elsewhere
their standard errors are added, which holds however they are correlated.
"""
_TABLE = """\
The study's table: top-1, ECE, temperature-scaled ECE, near and far AUROC (MCM), corruption error,
added vulnerability, relative gap and SQNR by band of ranks; one row per configuration, the mean
over its seeds, with the interval of the change against FP32 over samples and seeds. Bold, or an
asterisk in text, is surely better than FP32.
"""
_FORMATS = ("text", "markdown", "csv", "json")
_EPILOG = """\
examples:
  clipq gate --quantizer 'rtn:w?a8*' --profile full     a record to start from
  clipq study claims .clipq/report/report.json
  clipq study claims records/*.json --format markdown --output claims.md
  clipq study table latest latest~1 --format csv --output table.csv

exit codes: 0 done, 2 wrong usage, or records that contradict each other
"""


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq study` to the command line."""
    parser = commands.add_parser(
        "study",
        help="the study's claims and its table, from stored runs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text, what in (
        ("claims", "answer claims C1 to C10", _CLAIMS),
        ("table", "models x quantizers, with intervals over samples and seeds", _TABLE),
    ):
        action = actions.add_parser(
            name,
            help=text,
            description=what,
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.add_argument(
            "records", nargs="+", metavar="RECORD", help="report.json files, or runs of the store"
        )
        add_store_option(action)
        action.add_argument("--format", choices=_FORMATS, default="text", help="default: text")
        action.add_argument("--output", type=Path, metavar="FILE", help="write there, do not print")
        if name == "claims":
            action.add_argument(
                "--towers",
                choices=("vision", "both"),
                default="vision",
                help="which quantized towers claims are about (default: vision, as in the study)",
            )
            action.add_argument(
                "--no-pairing", action="store_true", help="add standard errors, pair nothing"
            )


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print or write the claims, or the table; return 0."""
    from clipq.files import write_atomically
    from clipq.study import answer_claims, study_rows
    from clipq.study.study_formats import claims_text, table_text

    with _Runs(options) as runs:
        if options.action == "claims":
            measurements = runs.gathered(paired=not options.no_pairing)
            shown = claims_text(answer_claims(measurements, towers=options.towers), options.format)
        else:
            shown = table_text(study_rows(runs.gathered(paired=False)), options.format)
    if options.output is None:
        emit(shown)
    else:
        write_atomically(options.output, f"{shown}\n".encode())
        say(f"written: {options.output}")
    return 0


class _Runs:
    """Records and their predictions: from files with the cache, or from the store."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._settings = project_settings(options)
        self._store: Store | None = None
        self._tables: dict[str, ReadTable] = {}

    def __enter__(self) -> _Runs:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def gathered(self, *, paired: bool) -> Measurements:
        """Return all records' measurements, with what pairs candidates if that is asked for."""
        from clipq.study import gather

        records = [self._load(name) for name in dict.fromkeys(self._options.records)]
        measurements = gather(records)
        if not paired:
            return measurements
        from dataclasses import replace

        statistics = records[0].statistics
        return replace(measurements, paired=_Pairs(self._tables, measurements, statistics))

    def _load(self, name: str) -> RunRecord:
        from clipq.evaluation.cache import Cache
        from clipq.history.estimation import as_recorded, cached_tables
        from clipq.records import read_run

        path = Path(name)
        if path.suffix == ".json" or path.is_file():
            record = read_run(path)
            read = cached_tables(record, Cache(self._settings.cache) if self._settings else None)
        else:
            if self._store is None:
                self._store = open_for(self._options, self._settings)
            store, info = self._store, self._store.find(name)
            record = store.load(info)

            def read(cell: Cell) -> bytes | None:
                return store.predictions(info, str(cell))

        own = as_recorded(read, record)
        for cell in record.evidence().get("predictions", {}):
            self._tables.setdefault(cell, own)
        return record


class _Pairs:
    """Paired estimates of the same case of two candidates, where both have predictions."""

    def __init__(
        self, tables: dict[str, ReadTable], measurements: Measurements, statistics: Any
    ) -> None:
        self._tables, self._measurements, self._statistics = tables, measurements, statistics

    def __call__(self, one: CaseResult, other: CaseResult) -> Estimate | None:
        from dataclasses import replace

        from clipq.history.pairs import PairedEstimator, with_replicates

        known = self._measurements.in_distribution(one.model)
        if known is None or not self._statistics:
            return None

        def read(of: CaseResult) -> ReadTable:
            def reader(cell: Cell) -> bytes | None:
                own = replace(cell, quantizer=of.quantizer)
                table = self._tables.get(str(own))
                return table(own) if table is not None else None

            return reader

        estimate = PairedEstimator(
            read(one),
            read(other),
            in_distribution=known,
            statistics=with_replicates(self._statistics, replicates=200),
            processes=1,
        )
        return estimate([(one, other)])[0]
