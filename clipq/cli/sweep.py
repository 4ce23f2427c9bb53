"""`clipq sweep`: many units from one plan."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipq.cli import sweep_answers, sweep_planning, sweep_running

__all__ = ["ACTIONS", "Action", "declare", "run"]

_DESCRIPTION = """\
Evaluate many candidates from one plan: methods, formats, options, towers, calibration data and
seeds, in all combinations that the plan asks for. docs/sweep.md tells its language.
"""
_EPILOG = """\
examples:
  clipq sweep plan plan.toml
  clipq sweep plan plan.toml --seconds-per-unit 8 --processes 2
  clipq sweep plan plan.toml --folder .clipq/sweeps/plan     as fast as what was measured there
  clipq sweep plan plan.toml --units
  clipq sweep run plan.toml --processes 2
  clipq sweep run plan.toml --engine ray --address auto
  clipq sweep status plan.toml
  clipq sweep query plan.toml "SELECT method, avg(loss) FROM cells WHERE metric = 'ece' GROUP BY 1"
  clipq sweep compact plan.toml
  clipq sweep export plan.toml results.parquet

exit codes: 0 done, 1 some units failed or are left, 2 wrong usage or input,
            130 interrupted, 143 terminated: the units that are done stay so
"""


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq sweep` to the command line."""
    parser = commands.add_parser(
        "sweep",
        help="many candidates from one plan",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, action in ACTIONS.items():
        own = actions.add_parser(
            name,
            help=action.help,
            description=action.description,
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.declare(own)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Do what was asked for; return the exit code."""
    return ACTIONS[options.action].run(options)


@dataclass(frozen=True, slots=True)
class Action:
    """One action of `clipq sweep`.

    Args:
        help: in a few words.
        description: in full.
        declare: adds its options to its parser.
        run: does it; returns the exit code.
    """

    help: str
    description: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


ACTIONS: Mapping[str, Action] = {
    "plan": Action(
        "check a plan and say what it comes to",
        sweep_planning.PLAN,
        sweep_planning.declare,
        sweep_planning.plan,
    ),
    "run": Action(
        "do its units, on this machine or a Ray cluster",
        sweep_running.RUN,
        sweep_running.declare,
        sweep_running.run,
    ),
    "resume": Action(
        "go on with what was interrupted",
        sweep_running.RESUME,
        sweep_running.declare,
        sweep_running.resume,
    ),
    "status": Action(
        "how far it is, and what failed",
        sweep_answers.STATUS,
        sweep_answers.declare_status,
        sweep_answers.status,
    ),
    "query": Action(
        "ask its results in SQL",
        sweep_answers.QUERY,
        sweep_answers.declare_query,
        sweep_answers.query,
    ),
    "compact": Action(
        "put its results into few large files",
        sweep_answers.COMPACT,
        sweep_answers.declare_compact,
        sweep_answers.compact,
    ),
    "export": Action(
        "write its results into one file",
        sweep_answers.EXPORT,
        sweep_answers.declare_export,
        sweep_answers.export,
    ),
}
"""Every action, as `--help` lists them."""
