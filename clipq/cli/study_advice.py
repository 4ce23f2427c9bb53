"""`clipq study advise`: which quantizer for a model, under margins."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipq.errors import StudyError, did_you_mean, listed
from clipq.terminal import one_line, printable

if TYPE_CHECKING:
    from clipq.cli.study_sources import StudySources

__all__ = ["ADVISE", "declare_advise", "run_advise"]

ADVISE = """\
Which quantizer for a model under margins: for each configuration whether all its losses lie within
them (surely, probably, hardly, surely not), and whether anything that costs no more loses less: its
place on the front of cost and worst loss in margins, as a probability over samples and seeds.

Margins are by default the project's: of each criterion the smallest that results were judged by.
--margin ece=0.01 gives another one, by the metric or by the column's key (auroc-mcm.near=0.02).
"""
_HEADERS = ("quantizer", "cost", "meets all margins", "P", "front, P", "worst loss", "of", "over")


def declare_advise(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clipq study advise`."""
    parser.add_argument("model", metavar="MODEL", help="by its name in the records")
    parser.add_argument(
        "--margin",
        action="append",
        default=[],
        metavar="METRIC=LOSS",
        help="the largest loss that is acceptable, in the metric's unit",
    )
    parser.add_argument(
        "--cost",
        default="bytes",
        metavar="COST",
        help="of fronts: bytes of the whole model (default), weight-bits, nominal-bits, "
        "activation-bits, milliseconds or unit-seconds",
    )


def run_advise(options: argparse.Namespace, sources: StudySources) -> str:
    """Return the advice on a model.

    Raises:
        StudyError: a model, a cost or a metric that there is not, or a margin that is none.
    """
    from clipq.cli.study_sources import say_what_is_partly_measured
    from clipq.study import METRICS
    from clipq.study.advice import advice_plain, criteria
    from clipq.study.configuration_costs import COSTS
    from clipq.study.page_data import configurations_plain
    from clipq.study.study_table import COLUMNS

    asked = criteria(COLUMNS)
    known = {name for one in asked for name in (one.key, one.metric)}
    margins = _margins(options.margin, sorted(known))
    costs = [str(cost["key"]) for cost in COSTS]
    if options.cost not in costs:
        raise StudyError(
            f"--cost {options.cost} is no cost", hint=did_you_mean(options.cost, costs)
        )
    measurements = sources.gathered(metrics=METRICS)
    if options.model not in measurements.models:
        raise StudyError(
            f"nothing was measured of a model {options.model!r}",
            hint=did_you_mean(options.model, measurements.models),
        )
    say_what_is_partly_measured(measurements, options.model)
    configurations = configurations_plain(
        measurements,
        models=(options.model,),
        seconds=sources.seconds(),
        milliseconds=sources.milliseconds(measurements),
    )
    advice = advice_plain(configurations, asked, cost=options.cost, margins=margins)
    found = advice["models"].get(options.model, {})
    measured = [one for one in asked if one.key in found.get("criteria", ())]
    names = {name for one in measured for name in (one.key, one.metric)}
    for name in margins:
        if name not in names:
            raise StudyError(
                f"--margin {name}: no configuration of {options.model} has a change of it, so that "
                "nothing would be held to it",
                hint=f"leave it out, or give what measured it; here are {listed(sorted(names))}",
            )
    if options.format == "json":
        own = [_named(configurations, row) for row in _rows(advice, options.model)]
        plain = {"model": options.model, **{k: v for k, v in advice.items() if k != "models"}}
        plain |= {"margins": found.get("margins", {}), "configurations": own}
        return json.dumps(plain, indent=1, allow_nan=False)
    return _text(options, configurations, advice)


def _margins(given: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """Read ``METRIC=LOSS`` texts."""
    from clipq.study.calculable import LARGEST

    found = {}
    for text in given:
        name, sign, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not sign or not 1 / LARGEST <= value <= LARGEST:
            raise StudyError(
                f"--margin {text} is no margin",
                hint="write METRIC=LOSS with a loss above 0: --margin ece=0.01",
            )
        if name not in known:
            raise StudyError(
                f"--margin {text}: {name!r} is no criterion", hint=did_you_mean(name, known)
            )
        found[name] = value
    return found


def _rows(advice: Mapping[str, Any], model: str) -> list[dict[str, Any]]:
    """Return a model's rows: the surest answer first, then by the front, then by the worst loss."""
    order = {answer: place for place, answer in enumerate(advice["answers"])}
    rows: list[dict[str, Any]] = advice["models"].get(model, {}).get("configurations", [])
    return sorted(
        rows,
        key=lambda row: (
            order[row["answer"]],
            -(row["front"] or 0.0),
            math.inf if row["worst"] is None else row["worst"],
        ),
    )


def _named(configurations: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the configuration in place of its number."""
    own = configurations[row["configuration"]]
    kept = {name: own[name] for name in ("quantizer", "seeds", "units", "costs")}
    return kept | {name: value for name, value in row.items() if name != "configuration"}


def _text(
    options: argparse.Namespace,
    configurations: Sequence[Mapping[str, Any]],
    advice: Mapping[str, Any],
) -> str:
    from clipq.cli.study_sources import width_of
    from clipq.study.configuration_costs import COSTS
    from clipq.study.fitted_table import filled, fitted

    cost = next(cost for cost in COSTS if cost["key"] == options.cost)
    scale, unit = (1e-6, "MB") if cost["unit"] == "bytes" else (1.0, cost["unit"])
    rows = _rows(advice, options.model)
    found = advice["models"].get(options.model, {})
    limits = found.get("margins", {})
    free = [key for key in found.get("criteria", ()) if key not in limits]
    cells = [
        (
            one_line(configurations[row["configuration"]]["quantizer"]),
            _short(configurations[row["configuration"]]["costs"][options.cost], scale),
            row["answer"],
            _short(row["meets"]),
            _short(row["front"]),
            _short(row["worst"]),
            row["limit"] or "",
            ", ".join(row["over"]) or _lacking(configurations[row["configuration"]], row["lacks"]),
        )
        for row in rows
    ]
    width = width_of(options)
    table = fitted(cells, _HEADERS, width=width)
    told = ", ".join(f"{key} {limit:g}" for key, limit in limits.items())
    unasked = f"; {listed(free)}: none in the project, and not asked" if free else ""
    notes = (
        f"margins: {told or 'none'}{unasked}",
        f"cost: {cost['title']} ({unit}). Worst loss: in margins. P: over samples and "
        "seeds, of configurations as if their errors were "
        "independent, which makes neighbours less sure than they are. docs/claims.md#advice",
    )
    return printable(f"{table}\n\n" + "\n".join(filled(note, width=width) for note in notes))


def _lacking(configuration: Mapping[str, Any], lacks: Sequence[str]) -> str:
    """Return why there is no answer: no interval of one seed's draw, or metrics without a number.

    >>> _lacking({"draws": True, "seeds": [0]}, ["top1", "ece"])
    'one seed: two are needed'
    >>> _lacking({"draws": False, "seeds": []}, ["top1", "ece"])
    'lacks top1, ece'
    """
    if not lacks:
        return ""
    if configuration["draws"] and len(configuration["seeds"]) == 1:
        return "one seed: two are needed"
    return f"lacks {listed(lacks)}"


def _short(value: float | None, scale: float = 1.0) -> str:
    return "" if value is None else f"{value * scale:.4g}"
