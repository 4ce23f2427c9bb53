"""`clipq power`: what the margins ask of the probes, before anything is run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from clipq.cli.context import settings_of
from clipq.errors import SettingsError
from clipq.estimate import number
from clipq.records import read_run
from clipq.settings import Settings
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.gating.planning import CasePower

__all__ = ["declare", "run"]

_HEADERS = (
    "probe.metric",
    "formats",
    "model",
    "samples",
    "standard error",
    "margin",
    "passes from",
    "blocks from",
    "samples needed",
    "",
)


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq power` to the command line."""
    power = commands.add_parser(
        "power",
        help="which margins these probes can decide, and how many samples would",
        description="For each probe, metric and margin: the standard error of the paired loss, the "
        "smallest loss that is decided (minimum detectable effect) and the number of samples that "
        "decides the margin. Planned from the stored baselines and an assumed share of samples "
        "that a quantizer changes; with --record, from what a run measured.",
    )
    power.add_argument(
        "--disagreement",
        type=float,
        metavar="SHARE",
        help="assumed share of samples whose correctness changes; default: [statistics]",
    )
    power.add_argument(
        "--record", type=Path, metavar="REPORT.json", help="use a run's measured standard errors"
    )
    power.add_argument("--model", metavar="GLOB", default="*", help="only these models")
    power.add_argument("--all", action="store_true", help="also the margins that can be decided")
    power.add_argument(
        "--json", action="store_true", help="print every margin as one JSON document"
    )
    power.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the table; return 0, or 1 where a margin cannot be decided."""
    from clipq.evaluation.plan import load_plugins, plan
    from clipq.gating.margins import load_margins
    from clipq.gating.planning import plan_power

    settings = settings_of(options)
    load_plugins(settings)
    if options.disagreement is not None:
        if not 0.0 < options.disagreement < 1.0:
            raise SettingsError(
                f"--disagreement {options.disagreement}",
                hint="a share of samples, above 0 and below 1, for example 0.03",
            )
        statistics = replace(settings.statistics, disagreement=options.disagreement)
        settings = replace(settings, statistics=statistics)
    cases = [case for case in plan(settings) if fnmatchcase(case.model, options.model)]
    if not cases:
        raise SettingsError(
            f"no model matches {options.model!r}", hint="`clipq list models` shows them"
        )
    measured = read_run(options.record) if options.record else None
    powers = plan_power(settings, cases, load_margins(settings.margins, settings), measured)
    if not powers:
        raise SettingsError(
            "nothing to plan from: no baseline, or no resampled metric, for the chosen models",
            hint="clipq baseline create",
        )
    hard = [power for power in powers if power.problem]
    if options.json:
        emit(json.dumps([_plain(power) for power in powers], indent=1, allow_nan=False))
        return 1 if hard else 0
    shown = _worst(powers if options.all else hard)
    if shown:
        say(tabulate([_row(power) for power in shown], _HEADERS, disable_numparse=True))
        say()
    say(_conclusion(powers, hard, settings))
    return 1 if hard else 0


def _plain(power: CasePower) -> dict[str, Any]:
    """Return what is known of one margin; what is not finite is absent in JSON: null."""
    plain = asdict(power)
    return {
        key: number(value) if isinstance(value, float) else value for key, value in plain.items()
    }


def _worst(powers: list[CasePower]) -> list[CasePower]:
    """Return one entry per metric and margin: the model that needs the most samples."""
    worst: dict[tuple[str, float], CasePower] = {}
    for power in powers:
        key = (power.key, power.margin)
        if key not in worst or (power.needed or 0) > (worst[key].needed or 0):
            worst[key] = power
    return sorted(worst.values(), key=lambda power: (power.key, power.margin))


def _row(power: CasePower) -> tuple[str, ...]:
    needed = "-" if power.needed is None else f"{power.needed:,}{_in(power.clusters_needed)}"
    return (
        power.key,
        ", ".join(power.formats),
        power.model,
        f"{power.samples:,}{_in(power.clusters)}",
        f"{power.standard_error:.2g}",
        f"{power.margin:g} {power.unit}",
        f"{power.passes_from:.2g}",
        f"{power.blocks_from:.2g}",
        needed,
        power.problem,
    )


def _in(clusters: int | None) -> str:
    return "" if clusters is None else f" in {clusters:,} clusters"


def _basis(powers: list[CasePower]) -> str:
    """Say where the standard errors come from, and how to know better."""
    shares = [power.changed for power in powers if power.changed is not None]
    clustered = any(power.clusters is not None for power in powers)
    together = ", samples of a\ncluster together" if clustered else ""
    if not shares:
        return powers[0].basis
    return (
        f"a guess, that {min(shares):.1%} to {max(shares):.1%} of the samples change (by\nthe "
        f"format's margin of top-1){together}, four times as many where harm is done. After a run, "
        "`clipq power --record\nreport.json` knows them"
    )


def _conclusion(powers: list[CasePower], hard: list[CasePower], settings: Settings) -> str:
    statistics = settings.statistics
    total, cases = sum(power.cases for power in powers), sum(power.cases for power in hard)
    verdict = (
        f"{cases} of {total} cases have margins that a harmless quantizer may not pass, for want "
        "of samples."
        if hard
        else f"A harmless quantizer passes all {total} cases."
    )
    return (
        f"{verdict}\n\nWith probability {statistics.power:.0%} a quantizer without loss passes "
        "where the margin is at least 'passes from',\nand a loss of at least 'blocks from' is a "
        "failure or suspect; with 'samples needed', twice the margin is.\n"
        f"A pass is wrong with probability {statistics.tail:.3g}; suspect is a p-value below "
        f"{statistics.suspicion:g}. Standard errors: {_basis(powers)}."
    )
