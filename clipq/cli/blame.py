"""`clipq blame`: which layers make a case fail, and which to keep in float."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from clipq.cases import Candidate, Case
from clipq.cli.context import settings_of
from clipq.cli.only_quantizers import refuse_artifact
from clipq.cli.progress import Progress, watching
from clipq.errors import SettingsError, did_you_mean
from clipq.terminal import say
from clipq.verdicts import EXCUSABLE, Verdict

if TYPE_CHECKING:
    from clipq.gating.blame import Search, UnitBlame
    from clipq.gating.verdict import Judgement
    from clipq.metrics import Metric

__all__ = ["declare", "run"]


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq blame` to the command line."""
    blame = commands.add_parser(
        "blame",
        help="which layers make a case fail, and the fewest to keep in float",
        description="Takes a case apart: each layer alone quantized, each alone in float, its "
        "signal-to-quantization-noise ratio; then searches the fewest layers to keep in float so "
        "that the case passes, and runs the gate on the quantizer that does so. What was "
        "evaluated is cached: an interrupted search goes on where it was.",
    )
    blame.add_argument("case", metavar="CASE", help="for example 'vit-clean/rtn:w4a4/id.ece'")
    blame.add_argument(
        "--by",
        choices=("layer", "block"),
        default="layer",
        help="what is switched at once; blocks take a fraction of the time",
    )
    blame.add_argument("--top", type=int, default=15, metavar="N", help="rows shown (default 15)")
    blame.add_argument("--all", action="store_true", help="show every row")
    blame.add_argument("--quiet", action="store_true", help="no progress")
    blame.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print ranking, search and the quantizer to use; return 0 where one makes the case pass."""
    with watching(options, unit="image") as watch:
        return _taken_apart(options, watch)


def _taken_apart(options: argparse.Namespace, watch: Progress) -> int:
    from clipq.evaluation.plan import load_plugins, plan
    from clipq.gating.blame import GOOD, Blame
    from clipq.metrics import metrics

    settings = settings_of(options)
    from clipq.evaluation.evaluator import Evaluator
    from clipq.gating.families import Families, sizes
    from clipq.gating.session import Gate

    load_plugins(settings)
    planned = plan(settings)
    case = _case(options.case, planned)
    instead = f"clipq blame '{{}}/{case.key}'"
    refuse_artifact(case.candidate, settings, needs="layers to put back to float", instead=instead)
    # Corrected as in a run: the other cases of the candidate might fail, too.
    families = Families(settings.statistics, whole=sizes(planned))
    gate = Gate(settings, Evaluator(settings, progress=watch), families=families)
    result = gate.check(case)
    watch.clear()
    if result.verdict not in (
        *GOOD,
        *EXCUSABLE,
        Verdict.WAIVED,
        Verdict.NON_FINITE,
    ):
        say(f"{case.id}: {result.verdict.value}: {result.reason}", error=True)
        if result.next_command:
            say(f"  fix: {result.next_command}", error=True)
        return 2
    blame = Blame(gate, case, by=options.by, progress=watch.step)
    metric = metrics.get(case.metric)
    whole = blame.whole()
    watch.clear()
    say(f"{case.id}: {_described(whole, metric)}\n")
    ranked = blame.rank()
    watch.clear()
    shown = ranked if options.all else ranked[: options.top]
    say(tabulate([_row(unit, whole) for unit in shown], _headers(metric), disable_numparse=True))
    if len(shown) < len(ranked):
        say(f"... and {len(ranked) - len(shown)} more; --all shows them")
    say(f"\n{_LEGEND}\n")
    if whole.verdict in GOOD:
        say("The case passes: there is nothing to keep in float.")
        return 0
    search = blame.search(ranked)
    watch.clear()
    say(_conclusion(search, case, metric, options.by))
    return 0 if search.passes else 1


_LEGEND = (
    "contributes: how much smaller the loss is with only this in float; alone: the loss with only "
    "this quantized.\nown SQNR: of its output where its input is exact; SQNR and cosine: in the "
    "quantized model, over the calibration split."
)


def _case(text: str, planned: tuple[Case, ...]) -> Case:
    """Return the case that a text names; its quantizer need not be in the matrix."""
    from clipq.quant import QuantizerSpec

    by_id = {case.id: case for case in planned}
    if text in by_id:
        return by_id[text]
    named = Case.parse(text)
    if not any((case.model, case.key) == (named.model, named.key) for case in planned):
        raise SettingsError(f"no case is called {text!r}", hint=did_you_mean(text, list(by_id)))
    spec = QuantizerSpec.parse(named.quantizer)
    if spec.base.is_reference:
        raise SettingsError(
            f"{text!r} is a case of the reference, which has no quantized layers",
            hint="name a quantizer; `clipq list cases` shows those of the matrix",
        )
    return Candidate(named.model, str(spec)).on(named.probe).case(named.metric)


def _headers(metric: Metric) -> tuple[str, ...]:
    unit = f" [{metric.unit}]" if metric.unit else ""
    return (
        "layer or block",
        f"contributes{unit}",
        f"alone{unit}",
        "MACs",
        "own SQNR",
        "SQNR",
        "cosine",
    )


def _row(unit: UnitBlame, whole: Judgement) -> tuple[str, ...]:
    total = math.nan if whole.estimate.loss is None else whole.estimate.loss
    return (
        unit.name,
        f"{total - unit.rest:+.4f}",
        f"{unit.alone:+.4f}",
        f"{unit.share:.1%}",
        _decibels(unit.distortion.own),
        _decibels(unit.distortion.total),
        "-" if math.isnan(unit.distortion.cosine) else f"{unit.distortion.cosine:.4f}",
    )


def _decibels(value: float) -> str:
    """Return an SQNR as text; a bare matrix has none."""
    return "-" if math.isnan(value) else f"{value:.1f} dB"


def _described(judgement: Judgement, metric: Metric) -> str:
    if judgement.estimate.loss is None:
        return f"{judgement.verdict.value} ({judgement.reason})"
    interval = (
        ""
        if judgement.estimate.low is None or judgement.estimate.high is None
        else f" [{judgement.estimate.low:+.4f}, {judgement.estimate.high:+.4f}]"
    )
    margin = "" if judgement.estimate.margin is None else f", margin {judgement.estimate.margin:g}"
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{judgement.verdict.value}, loss {judgement.estimate.loss:+.4f}{interval}{margin}{unit}"


def _conclusion(search: Search, case: Case, metric: Metric, by: str) -> str:
    from clipq.quant import QuantizerSpec

    if search.units is None:
        return (
            f"Nothing helps: {search.proof}.\nThe loss comes from elsewhere (attention products, "
            "scales, FP32 itself), or the margin demands more than FP32 has."
        )
    count = len(search.units)
    lines = [
        f"Keep {count} {by}{'' if count == 1 else 's'} in float ({search.proof}):",
        *(f"  {name}" for name in search.units),
    ]
    if search.quantizer is None or search.verified is None:
        method = QuantizerSpec.parse(case.quantizer).method
        return "\n".join([*lines, f"{method!r} has no option `exclude` to do so."])
    result = search.verified
    lines += ["", "As a quantizer:", f"  {search.quantizer}"]
    if result.estimate.loss is None:
        lines.append(f"The gate says of it: {result.verdict.value}: {result.reason}")
    else:
        bounds = (
            ""
            if result.estimate.low is None
            else f" [{result.estimate.low:+.4f}, {result.estimate.high:+.4f}]"
        )
        lines.append(
            f"The gate says of it: {result.verdict.value}, loss {result.estimate.loss:+.4f}{bounds}"
        )
    return "\n".join(lines)
