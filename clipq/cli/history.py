"""`clipq history`: runs kept in a store, looked at, followed, removed and taken out again."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cli.bisect import add_change_options, guide
from clipq.cli.store import add_store_option, open_for, project_settings
from clipq.errors import StoreError
from clipq.settings import Settings
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.records import RunRecord

__all__ = ["declare", "run"]

_DESCRIPTION = """\
Runs kept in a store, SQLite or PostgreSQL. The store is what --store says, else the environment
variable CLIPQ_STORE, else [history] store in clipq.toml, by default sqlite:///.clipq/history.db.
A password belongs into CLIPQ_STORE or ~/.pgpass; clipq never prints or stores it.
"""
_EPILOG = """\
examples:
  clipq history record                           keep the report that the last gate wrote
  clipq history list --limit 10                  the newest runs
  clipq history show latest~1                    one run: counts, environment, worst cases
  clipq history trend 'vit-clean/rtn:w4/id.ece'  one case over all runs
  clipq history trend 'vit-clean/*/id.ece'       one line per case, with a sparkline
  clipq history first 'vit-clean/rtn:w4/id.ece'  since which run it fails, and the bisect commands
  clipq history looks                            how often release-only probes were looked at
  clipq history prune --keep 200 --yes           remove all but the newest 200 runs
  clipq history export --format csv --output runs.csv

a RUN is named latest, latest~2, #12, by the first 4 or more digits of its id, or commit:SHA

exit codes: 0 done, 2 wrong usage, no store, no such run or case
"""


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq history` to the command line."""
    parser = commands.add_parser(
        "history",
        help="keep runs in a store; list, show, follow, prune and export them",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", metavar="URL", help="sqlite:///PATH or postgresql://...")
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}."
        )
        add_store_option(added, default=argparse.SUPPRESS)  # `history --store` stays as it is
        if name != "export":
            added.add_argument("--json", action="store_true", help="print one JSON document")
        return added

    record = action("record", "keep a run; one that is kept already is left as it is")
    record.add_argument(
        "reports", nargs="*", type=Path, metavar="REPORT",
        help="report.json of a gate, or .jsonl of an export; default: the last gate's",
    )  # fmt: skip
    record.add_argument(
        "--no-predictions", action="store_true", help="do not keep per-sample predictions"
    )
    listing = action("list", "list runs, newest first")
    listing.add_argument("--limit", type=_positive, default=20, metavar="N", help="default: 20")
    listing.add_argument("--branch", help="only runs of this branch")
    listing.add_argument("--policy", help="only runs under this policy")
    listing.add_argument("--failed", action="store_true", help="only runs whose gate failed")
    show = action("show", "show a run: its counts, environment and worst cases")
    show.add_argument("name", nargs="?", default="latest", metavar="RUN", help="see below")
    show.add_argument("--worst", type=_positive, default=10, metavar="N", help="default: 10")
    trend = action("trend", "follow cases over runs")
    trend.add_argument("cases", nargs="+", metavar="CASE", help="a case id, or globs of ids")
    trend.add_argument("--runs", type=_positive, default=40, metavar="N", help="default: 40")
    first = action("first", "find the first run where a case changed, as `clipq bisect` does")
    add_change_options(first)
    action("looks", "count the candidates that were judged on each release-only probe")
    prune = action("prune", "remove old runs; without --yes, only say which")
    prune.add_argument("--keep", type=_positive, metavar="N", help="so many newest runs stay")
    prune.add_argument("--before", type=_day, metavar="DAY", help="only runs started before it go")
    prune.add_argument("--yes", action="store_true", help="really remove what is named")
    export = action("export", "write whole records or results, oldest run first")
    export.add_argument("names", nargs="*", metavar="RUN", help="default: every run")
    export.add_argument(
        "--format", choices=("jsonl", "csv"), default="jsonl",
        help="jsonl: whole records, which `record` reads back; csv: results",
    )  # fmt: skip
    export.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1")
    return number


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day; write YYYY-MM-DD") from None


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Do what the action says; return 0."""
    actions: Mapping[str, Callable[[argparse.Namespace, Settings | None], int]] = {
        "record": _record,
        "list": _list,
        "show": _show,
        "trend": _trend,
        "first": _first,
        "looks": _looks,
        "prune": _prune,
        "export": _export,
    }
    return actions[options.action](options, project_settings(options))


def _record(options: argparse.Namespace, settings: Settings | None) -> int:
    from clipq.cli.history_text import run_plain
    from clipq.history.run_predictions import prediction_tables

    if not options.reports and settings is None:
        raise StoreError("no report to record", hint="clipq history record REPORT.json")
    reports = options.reports or [settings.report / "report.json"] if settings else options.reports
    keep = settings is not None and settings.history.predictions and not options.no_predictions
    done = []
    with open_for(options, settings, create=True) as store:
        for path in reports:
            for record in _records(path):
                tables = (
                    prediction_tables(record, settings.cache, warn=_warn)
                    if keep and settings
                    else {}
                )
                recorded = store.record(record, tables)
                done.append(run_plain(recorded.run) | {"new": recorded.new})
                if not options.json:
                    what = (
                        f"recorded as run #{recorded.run.number} in {store.url}: "
                        f"{recorded.run.cases:,} cases, "
                        f"predictions of {recorded.run.predictions:,} cells"
                        if recorded.new
                        else f"recorded before, as run #{recorded.run.number}: nothing changed"
                    )
                    say(f"{path}: {what}")
    if options.json:
        _print_json(done)
    return 0


def _records(path: Path) -> Iterator[RunRecord]:
    from clipq.errors import RecordError
    from clipq.records import read_run

    if path.suffix != ".jsonl":
        yield read_run(path)
        return
    number = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield read_run(f"{path}, line {number}", line)
    except OSError as error:
        raise RecordError(
            f"{path} cannot be read: {error}", hint="clipq history export --output FILE.jsonl"
        ) from error
    if not number:
        raise RecordError(f"{path} holds no run", hint="clipq history export --output FILE.jsonl")


def _warn(message: str) -> None:
    say(f"clipq: {message}", error=True)


def _list(options: argparse.Namespace, settings: Settings | None) -> int:
    from clipq.cli.history_text import run_plain, runs_text

    with open_for(options, settings) as store:
        infos = store.runs(
            limit=options.limit,
            branch=options.branch,
            policy=options.policy,
            passed=False if options.failed else None,
        )
        store.verify(infos)
        where = store.url.shown
    if options.json:
        _print_json([run_plain(info) for info in infos])
    elif infos:
        say(runs_text(infos))
    else:
        narrowed = options.branch or options.policy or options.failed
        empty = f"no run yet in {where}; `clipq history record REPORT.json` adds one"
        say(f"no such run in {where}" if narrowed else empty)
    return 0


def _show(options: argparse.Namespace, settings: Settings | None) -> int:
    from clipq.cli.history_text import result_plain, run_plain, run_text

    with open_for(options, settings) as store:
        info = store.find(options.name)
        results = sorted(store.results(info), key=lambda result: (-result.severity, result.case))
        store.verify(results or [info])
    worst = results[: options.worst]
    if options.json:
        _print_json(run_plain(info) | {"worst": [result_plain(result) for result in worst]})
    else:
        say(run_text(info, worst))
    return 0


def _looks(options: argparse.Namespace, settings: Settings | None) -> int:
    from dataclasses import asdict

    from tabulate import tabulate

    from clipq.report.looks import chance_of_luck, looks
    from clipq.settings import StatisticsSettings

    with open_for(options, settings) as store:
        found = looks(map(store.load, store.runs(policy="release")))
    tail = (settings.statistics if settings else StatisticsSettings()).tail
    chances = [chance_of_luck(one.candidates, tail=tail) for one in found]
    if options.json:
        rows = zip(found, chances, strict=True)
        _print_json([asdict(one) | {"chance_of_luck": chance} for one, chance in rows])
    elif found:
        headers = ("probe", "model", "samples", "candidates", "runs", "one passes by luck")
        say(
            tabulate(
                [
                    (one.probe, one.model, one.fingerprint[:12], one.candidates, one.runs,
                     f"up to {chance:.0%}")
                    for one, chance in zip(found, chances, strict=True)
                ],
                headers,
            )
        )  # fmt: skip
    else:
        say("no run under policy release judged a candidate on a release-only probe")
    return 0


def _trend(options: argparse.Namespace, settings: Settings | None) -> int:
    from clipq.cli.history_text import (
        result_plain,
        table_plain,
        table_text,
        trend_text,
    )

    with open_for(options, settings) as store:
        if len(options.cases) == 1 and options.cases[0] in store.case_ids():
            rows = store.trend(options.cases[0])[-options.runs :]
            store.verify(rows)
            plain: Any = [{"run": row.run.number, **result_plain(row)} for row in rows]
            text = trend_text(rows)
        else:
            table = store.trend_table(cases=options.cases, runs=options.runs)
            store.verify(table)
            plain, text = table_plain(table), table_text(table)
    if options.json:
        _print_json(plain)
    else:
        say(text)
    return 0


def _first(options: argparse.Namespace, settings: Settings | None) -> int:
    with open_for(options, settings) as store:
        return guide(store, options, settings)


def _prune(options: argparse.Namespace, settings: Settings | None) -> int:
    from clipq.cli.history_text import run_plain, runs_text

    with open_for(options, settings) as store:
        gone = store.prune(keep=options.keep, before=options.before, dry_run=not options.yes)
    if options.json:
        _print_json(
            {
                "removed": options.yes,
                "runs": [run_plain(info) for info in gone.runs],
                "prediction_tables": gone.tables,
                "prediction_bytes": gone.table_bytes,
            }
        )
        return 0
    if not gone.runs:
        say("nothing to remove")
        return 0
    say(runs_text(gone.runs))
    what = f"{len(gone.runs)} runs and {gone.tables} prediction tables ({gone.table_bytes:,} bytes)"
    say(f"\nremoved: {what}" if options.yes else f"\n--yes removes these {what}; nothing was yet")
    return 0


def _export(options: argparse.Namespace, settings: Settings | None) -> int:
    from clipq.history.export import export

    with open_for(options, settings) as store:
        runs = [store.find(name) for name in options.names] or store.runs()[::-1]
        if options.output is None:
            try:
                export(store, runs, sys.stdout, form=options.format)
                sys.stdout.flush()
            except BrokenPipeError:  # `| head` has read enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        export(store, runs, options.output, form=options.format)
    say(f"written: {options.output}")
    return 0


def _print_json(document: object) -> None:
    emit(json.dumps(document, indent=1, allow_nan=False))
