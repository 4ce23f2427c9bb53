"""`clipq site`: the history of all cases as pages that need no server."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipq.cli.store import add_store_option, open_for, project_settings
from clipq.errors import SettingsError
from clipq.terminal import emit, say

__all__ = ["declare", "run"]

_DESCRIPTION = """\
Write the trend site: every recorded run and case as static pages. Open index.html from the disk
or put the folder on any web server; nothing is fetched from elsewhere. It shows the latest outcome,
the newest regressions, models x quantizers at a glance, each case's loss over all runs against its
margin, and every step: where a level changed by more than noise, and between which commits.

Writing it again into the same folder replaces it.
"""
_EPILOG = """\
examples:
  clipq site --output public
  clipq site --output public --runs 200 --case 'vit-clean/*'
  clipq site --output public --commit-url 'https://example.org/team/models/commit/{sha}'
"""


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq site` to the command line."""
    parser = commands.add_parser(
        "site",
        help="write the history of all cases as static pages, with steps and commits",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="new, empty, or an earlier site"
    )
    add_store_option(parser)
    parser.add_argument("--runs", type=int, metavar="N", help="only the newest N runs")
    parser.add_argument(
        "--case", action="append", metavar="GLOB", help="only these cases (repeatable)"
    )
    parser.add_argument(
        "--commit-url",
        metavar="URL",
        help="where commits can be looked at, with {sha}; default: [history] commit_url",
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Write the site; return 0."""
    from clipq.history.site import commit_link, write_site

    if options.runs is not None and options.runs < 1:
        raise SettingsError(f"--runs {options.runs}", hint="a whole number from 1; all by default")
    settings = project_settings(options)
    template = options.commit_url
    if template is None:
        template = settings.history.commit_url if settings else ""
    link = commit_link(template)
    with open_for(options, settings) as store:
        table = store.trend_table(cases=tuple(options.case or ("*",)), runs=options.runs)
        store.verify(table)
    facts = write_site(table, options.output, link=link)
    if options.json:
        plain = {
            "index": str(facts.index),
            "files": facts.files,
            "bytes": facts.bytes,
            "runs": facts.runs,
            "cases": facts.cases,
            "steps": facts.steps,
        }
        emit(json.dumps(plain, indent=1))
        return 0
    say(
        f"written: {facts.index} ({facts.runs:,} runs, {facts.cases:,} cases, {facts.steps:,} "
        f"steps; {facts.files} files, {facts.bytes / 2**20:.2f} MiB)"
    )
    return 0
