"""`clipq bisect`: since which run a case is as it is, and how to find the commit with git."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cli.store import add_store_option, open_for, project_settings
from clipq.errors import SettingsError
from clipq.records import CaseResult
from clipq.settings import Settings
from clipq.terminal import emit, one_line, say
from clipq.verdicts import POLICIES, Policy, Verdict, policy_named

if TYPE_CHECKING:
    from clipq.history.bisect import VerdictChange
    from clipq.history.model import StoredResult
    from clipq.history.store import Store

__all__ = ["add_change_options", "declare", "guide", "run"]

_DESCRIPTION = """\
Find the first recorded run since which a case blocks (--verdict, the default) or has its present
value (--changed), the commits on both sides, and the `git bisect` commands that find the commit
between them. Runs are compared that follow one another in the store.
"""
_EPILOG = """\
examples:
  clipq bisect 'vit-clean/rtn:w4/id.ece'              since when does it fail?
  clipq bisect 'vit-clean/rtn:w4/id.ece' --changed    since when has it this value?

The commands are typed at the top of the git repository. `git bisect run` calls `clipq gate`,
narrowed to the case, on each commit it tries, and then --judge, which exits 0 where the report is
like --old, 1 where it is like --new, 125 where that cannot be told: the commit is skipped. Both are
verdicts, of which those that block are alike, or values, of which the nearer one counts.

exit codes: 0 a change was found or there is none, 2 wrong usage, no store, no such case
"""
_SKIP = 125  # what `git bisect run` takes for "this commit cannot be tested"


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq bisect` to the command line."""
    parser = commands.add_parser(
        "bisect",
        help="the first run where a case changed, and how git finds the commit",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_store_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_change_options(parser)
    parser.add_argument(
        "--judge", type=Path, metavar="REPORT", help="compare a report's case; see below"
    )
    for name in ("--old", "--new"):
        parser.add_argument(
            name, type=_side, metavar="SIDE", help="with --judge: a verdict, a value or `none`"
        )
    parser.set_defaults(run=run)


def add_change_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the case and what counts as a change of it."""
    parser.add_argument("case", metavar="CASE", help="a case id: MODEL/QUANTIZER/PROBE.METRIC")
    by = parser.add_mutually_exclusive_group()
    by.add_argument(
        "--verdict", action="store_true", help="since when it blocks, or no longer does (default)"
    )
    by.add_argument("--changed", action="store_true", help="since when it has its present value")
    parser.add_argument(
        "--policy", metavar="NAME", help="under which it blocks; default: the latest run's"
    )
    parser.add_argument("--branch", help="only runs of this branch")


def _side(text: str) -> Verdict | str:
    if text in list(Verdict):
        return Verdict(text)
    try:
        return text if text == "none" else str(float(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a verdict nor a value; write a number, `none`, or one of: "
            + ", ".join(Verdict)
        ) from None


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the guidance, or judge a report for `git bisect run`."""
    if options.judge is not None:
        return _judge(options)
    settings = project_settings(options)
    with open_for(options, settings) as store:
        return guide(store, options, settings)


def guide(store: Store, options: argparse.Namespace, settings: Settings | None) -> int:
    """Print where the case changed and what to type next; return 0."""
    from clipq.history.bisect import find_value_change, find_verdict_change, git_commands

    rows = store.trend(options.case)
    store.verify(rows)
    if options.branch is not None:
        rows = tuple(row for row in rows if row.run.commit.get("branch") == options.branch)
        if not rows:
            raise SettingsError(
                f"no run of branch {options.branch!r} has the case",
                hint="`clipq history list` shows the branches of runs",
            )
    policy = rows[-1].run.rule
    if options.policy is not None:
        policy = policy_named(options.policy, settings.policies if settings else POLICIES)
    find = find_value_change if options.changed else find_verdict_change
    change = find(rows, policy=policy)
    if change is None:
        return _unchanged(rows, options, policy)
    commands = git_commands(change, **_project(store, options, settings))
    moved = _of_artifact(store, change)
    if options.json:
        plain = change.to_plain() | {"commands": commands} | ({"artifact": moved} if moved else {})
        emit(json.dumps(plain, indent=1, allow_nan=False))
    else:
        say("\n\n".join([_text(change, commands), *(f"note: {text}" for text in moved)]))
    return 0


def _of_artifact(store: Store, change: VerdictChange) -> list[str]:
    """Return what differs of the case's artifact between both runs; [] of a quantizer.

    Its files need not be in the repository: then no commit is to blame.
    """
    from clipq.cases import Case
    from clipq.history.around import artifact_changes

    name = str(Case.parse(change.after.case).candidate)
    made = [
        store.load(side.run).evidence().get("artifacts", {}).get(name)
        for side in (change.before, change.after)
    ]
    if None in made:
        return []
    return artifact_changes(*({name: entry} for entry in made))


def _project(
    store: Store, options: argparse.Namespace, settings: Settings | None
) -> dict[str, str]:
    """Return how a gate of this project is called from the top of its repository."""
    if settings is None:
        return {"folder": ".clipq/report/bisect"}
    from clipq.cases import Case
    from clipq.gating.commands import Commands

    commands = Commands(settings)
    return {
        "folder": commands.shown(settings.report / "bisect"),
        "program": commands.program,
        "profile": commands.profile(Case.parse(options.case)),
    }


def _unchanged(rows: Sequence[StoredResult], options: argparse.Namespace, policy: Policy) -> int:
    if options.json:
        emit(json.dumps({"case": options.case, "changed": False, "runs": len(rows)}, indent=1))
        return 0
    first, latest = rows[0], rows[-1]
    blocks = "blocks" if policy.blocks(latest.verdict) else "does not block"
    what = "has the same value" if options.changed else f"{blocks} (policy {policy.name})"
    say(
        f"{options.case} {what} in all {len(rows)} recorded runs that have it, from "
        f"#{first.run.number} to #{latest.run.number}"
        + ("" if options.changed else "; --changed looks at its value instead")
    )
    return 0


def _text(change: VerdictChange, commands: Sequence[str]) -> str:
    from tabulate import tabulate

    from clipq.cli.history_text import commit_text

    def row(title: str, side: StoredResult) -> tuple[str, ...]:
        numbers = (side.observed, side.loss, side.margin)
        return (
            title,
            f"#{side.run.number}",
            one_line(side.run.started),
            commit_text(side.run),
            side.verdict.value,
            *("-" if value is None else f"{value:.6g}" for value in numbers),
            one_line(str(side.run.commit.get("subject", "")))[:40],
        )

    if change.by == "value":
        lead = "has had its present value"
    else:
        lead = "has blocked" if change.worse else "has no longer blocked"
    titles = ("last good", "first bad") if change.worse else ("last before", "first after")
    runs = "run" if change.runs_since == 1 else "runs"
    headers = ("", "run", "started", "commit", "verdict", "observed", "loss", "margin", "")
    rows = [row(titles[0], change.before), row(titles[1], change.after)]
    parts = [
        f"{one_line(change.after.case)} {lead} for {change.runs_since} {runs}, since run "
        f"#{change.after.run.number}",
        tabulate(rows, headers, disable_numparse=True),
    ]
    if commands:
        parts.append(
            "to find the commit, at the top of the repository:\n"
            + "\n".join(f"  {line}" for line in commands)
        )
        parts.append("  git bisect reset")
        dirty = [s.run for s in (change.before, change.after) if s.run.commit["dirty"]]
        if dirty:
            numbers = " and ".join(f"#{run.number}" for run in dirty)
            parts.append(f"note: run {numbers} had changes that are in no commit")
    elif change.before.run.commit and change.after.run.commit:
        parts.append("both runs are of the same commit: data, environment or uncommitted changes")
    else:
        parts.append("a run without a commit: git cannot help; `clipq compare` shows what differs")
    return "\n\n".join(parts)


def _judge(options: argparse.Namespace) -> int:
    from clipq.errors import RecordError
    from clipq.records import read_run

    if options.old is None or options.new is None:
        raise SettingsError("--judge without --old and --new", hint="give both, as printed")
    if isinstance(options.old, Verdict) != isinstance(options.new, Verdict):
        raise SettingsError(
            f"--old={options.old} and --new={options.new}", hint="give two verdicts or two values"
        )
    try:
        record = read_run(options.judge)
    except RecordError as error:
        say(f"cannot be told: {error}")
        return _SKIP
    matching = [case for case in record.cases if case.id == options.case]
    if not matching:
        say(f"cannot be told: the report has no case {options.case!r}")
        return _SKIP
    if isinstance(options.new, Verdict):
        policy = record.rule
        if options.policy not in (None, policy.name):
            policy = policy_named(options.policy, POLICIES)
        return _judge_verdict(matching[0], options, policy)
    return _judge_value(matching[0], options)


def _judge_verdict(case: CaseResult, options: argparse.Namespace, policy: Policy) -> int:
    from clipq.history.bisect import is_new_verdict

    is_new = is_new_verdict(case.verdict, old=options.old, new=options.new, policy=policy)
    if is_new is None:
        say(f"cannot be told: the case is {case.verdict}: {case.reason}")
        return _SKIP
    say(f"{case.verdict}: like {options.new if is_new else options.old}")
    return int(is_new)


def _judge_value(case: CaseResult, options: argparse.Namespace) -> int:
    from clipq.history.bisect import is_new_value

    old, new = (None if text == "none" else float(text) for text in (options.old, options.new))
    is_new = is_new_value(case.observed, old=old, new=new)
    if is_new is None:
        say("cannot be told: there is a value on one side only")
        return _SKIP
    say(f"observed {case.observed}: {'new' if is_new else 'old'}")
    return int(is_new)
