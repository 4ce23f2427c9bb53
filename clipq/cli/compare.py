"""`clipq compare`: what changed from one run to another, case by case."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cli.store import add_store_option, open_for, project_settings
from clipq.errors import RecordError, SettingsError
from clipq.terminal import say

if TYPE_CHECKING:
    from clipq.history.pairs import PairedEstimator, ReadTable
    from clipq.history.store import Store
    from clipq.records import RunRecord

__all__ = ["declare", "run"]

_DESCRIPTION = """\
Compare two runs case by case. A and B are report.json files or runs in the history store: latest,
latest~1, #12, the start of a run's id, commit:SHA. Where both runs' predictions are at hand (in the
store, or in the cache for a file), differences are judged on the same samples; elsewhere the two
standard errors bound them, as long as FP32 is the same.

A case regressed where B is surely worse than A by more than the case's margin, corrected for the
number of cases, or where the gate blocks it in B and did not in A. A case that B lacks counts as a
regression too, unless --common is given.
"""
_EPILOG = """\
examples:
  clipq compare latest~1 latest                 did the last recorded run make anything worse?
  clipq compare main.json .clipq/report/report.json --format markdown --output diff.md
  clipq compare commit:3fa9 latest --case '*/id.*' --json diff.json

exit codes: 0 nothing regressed, 1 something did, 2 nothing was comparable, or wrong usage
"""


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq compare` to the command line."""
    parser = commands.add_parser(
        "compare",
        help="what changed from one run to another; exit 1 where something got worse",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", metavar="A", help="the run that is held to be good")
    parser.add_argument("after", metavar="B", help="the run in question")
    add_store_option(parser)
    parser.add_argument(
        "--case", action="append", metavar="GLOB", help="only these cases (repeatable)"
    )
    parser.add_argument(
        "--common", action="store_true", help="a case that B lacks is no regression"
    )
    parser.add_argument("--all", action="store_true", help="also what did not change")
    parser.add_argument("--format", choices=("text", "markdown"), default="text")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there, do not print")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write every difference here"
    )
    parser.add_argument(
        "--replicates",
        type=int,
        default=200,
        metavar="N",
        help="bootstrap replicates per case (default 200)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print or write the comparison; return 1 where something regressed, 2 if nothing compares."""
    import json

    from clipq.files import write_atomically
    from clipq.history.comparison import compare
    from clipq.report.comparison_report import comparison_markdown, comparison_text

    if options.replicates < 100:
        raise SettingsError(
            f"--replicates {options.replicates}", hint="at least 100; 200 give an error within 5 %"
        )
    with _Sources(options) as sources:
        before, after = (sources.load(name) for name in (options.before, options.after))
        if options.case:
            before, after = (_narrowed(record, options.case) for record in (before, after))
        estimator = sources.estimator(before, after, replicates=options.replicates)
        comparison = compare(before, after, paired=estimator)
    skipped = estimator.skipped if estimator else {}
    notes = [f"{cell}: not paired, {problem}" for cell, problem in skipped.items()]
    plain = comparison.to_plain() | {
        "notes": [*comparison.notes, *notes],
        "compared": comparison.compared,
        "regressions": len(comparison.regressions(common=options.common)),
    }
    if options.json is not None:
        text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
        write_atomically(options.json, text.encode())
    render = {"text": comparison_text, "markdown": comparison_markdown}[options.format]
    shown = render(plain, everything=options.all)
    if options.output is None:
        say(shown)
    else:
        write_atomically(options.output, f"{shown}\n".encode())
        say(f"written: {options.output}")
    if not comparison.compared:
        return 2
    return 1 if comparison.regressions(common=options.common) else 0


class _Sources:
    """Where runs and their predictions come from: files with the cache, or the store."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._tables: list[ReadTable] = []
        self._store: Store | None = None
        self.settings = project_settings(options)

    def __enter__(self) -> _Sources:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def load(self, name: str) -> RunRecord:
        """Return a run record, and remember where its predictions are.

        Raises:
            RecordError: it was altered, or its verdicts do not follow from its numbers.
        """
        from clipq.gating.derivation import check_verdicts

        record = self._read(name)
        check_verdicts(record, source=name)
        return record

    def _read(self, name: str) -> RunRecord:
        from clipq.evaluation.cache import Cache
        from clipq.history.estimation import cached_tables
        from clipq.records import read_run

        path = Path(name)
        if path.suffix == ".json" or path.is_file():
            record = read_run(path)
            cache = Cache(self.settings.cache) if self.settings else None
            self._tables.append(cached_tables(record, cache))
            return record
        return self._from_store(name)

    def _from_store(self, name: str) -> RunRecord:
        if self._store is None:
            self._store = open_for(self._options, self.settings)
        store = self._store
        info = store.find(name)
        self._tables.append(lambda cell: store.predictions(info, str(cell)))
        return store.load(info)

    def estimator(
        self, before: RunRecord, after: RunRecord, *, replicates: int
    ) -> PairedEstimator | None:
        """Return what estimates differences on the same samples; None where that cannot be."""
        from clipq.history.estimation import paired_estimator

        first, second = self._tables
        return paired_estimator(before, after, (first, second), replicates=replicates)


def _narrowed(record: RunRecord, globs: Sequence[str]) -> RunRecord:
    """Return a record with the cases that a glob names; all evidence stays."""
    from dataclasses import replace
    from fnmatch import fnmatchcase

    cases = [c for c in record.cases if any(fnmatchcase(c.id, glob) for glob in globs)]
    if not cases:
        raise RecordError(
            f"--case {', '.join(globs)} names no case of run {record.started or '(no date)'}",
            hint="globs over case ids, for example 'vit-clean/*/id.*'",
        )
    cases[0] = replace(cases[0], evidence=record.evidence())
    return replace(record, cases=tuple(cases))
