"""`clipq baseline`: create, update, show, verify."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from clipq.cli.context import settings_of
from clipq.cli.progress import watching
from clipq.errors import BaselineError
from clipq.estimate import Estimate
from clipq.settings import Settings
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.gating.baseline import Baseline

__all__ = ["declare", "run"]


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq baseline` to the command line."""
    baseline = commands.add_parser(
        "baseline",
        help="create, update, show or verify FP32 baselines",
        description="Baselines are reviewed like code: only this command writes them.",
    )
    actions = baseline.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("create", "measure FP32 and store it, where there is no baseline yet"),
        ("update", "measure FP32 again, show what changes, store it with a reason"),
        ("show", "print stored values, their change since the first approval, and history"),
        ("verify", "measure FP32 again and compare; write nothing"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("models", nargs="*", metavar="MODEL", help="default: all of them")
        if name == "show":
            action.add_argument("--json", action="store_true", help="print one JSON document")
        else:
            action.add_argument("--quiet", action="store_true", help="no progress")
        if name == "update":
            action.add_argument("--reason", required=True, help="why the baseline changes")
            action.add_argument(
                "--accept-cumulative-loss",
                action="store_true",
                help="approve even where FP32 became worse than first approved by over a margin",
            )
    baseline.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run one action on the chosen models; return the exit code."""
    from clipq.evaluation.plan import load_plugins

    # FP32 is nobody's candidate: it is measured on the probes that are kept for releases as well.
    settings = settings_of(options).under("release")
    load_plugins(settings)
    models = [settings.model(name).name for name in options.models] or [
        model.name for model in settings.models
    ]
    if options.action == "show":
        stored = [_stored(settings, model) for model in models]
        if options.json:
            known = settings.in_distribution.name
            documents = [_plain(baseline, known) for baseline in stored]
            emit(json.dumps(documents, indent=1, allow_nan=False))
        else:
            for baseline in stored:
                say(_show(baseline))
                _say_in_short(settings, baseline)
        return 0
    action = {"create": _create, "update": _update, "verify": _verify}[options.action]
    return max(action(settings, model, options) for model in models)


def _create(settings: Settings, model: str, options: argparse.Namespace) -> int:
    from clipq.gating.approve import approve_first
    from clipq.gating.baseline import json_path, save_baseline

    path = json_path(settings.baselines, model)
    if path.exists():
        raise BaselineError(
            f"{path} exists", hint=f"clipq baseline update {model} --reason '...' replaces it"
        )
    new = approve_first(_measured(settings, model, options), date=_today())
    save_baseline(settings.baselines, new)
    _say_in_short(settings, new)
    say(f"{model}: {len(new.values)} values written to {path}; review and commit it")
    return 0


def _update(settings: Settings, model: str, options: argparse.Namespace) -> int:
    from clipq.gating.approve import (
        approve_update,
        changes,
        flips,
        paired_differences,
        worse_since_first,
    )
    from clipq.gating.baseline import json_path, save_baseline
    from clipq.gating.margins import load_margins

    old = _stored(settings, model)
    new = _measured(settings, model, options)
    approved = approve_update(old, new, reason=options.reason, date=_today())
    changed = changes(old, new)
    same = (old.identity, old.probes, old.environment) == (
        new.identity,
        new.probes,
        new.environment,
    )
    if not changed and same:
        say(f"{model}: nothing changed, nothing written")
        return 0
    intervals = paired_differences(old, new, changed, settings)
    rows = [
        (
            c.key,
            _text(c.old),
            _text(c.new),
            _text(c.loss),
            _bounds(intervals.get(c.key)),
            _since_first(c.first, c.new),
            c.unit,
        )
        for c in changed
    ]
    level = f"{1 - settings.statistics.alpha:.0%} interval"
    say(f"{model}: {len(changed)} of {len(new.values)} values change (loss > 0 = worse)")
    headers = ("metric", "old", "new", "loss", level, "since first approval", "unit")
    say(tabulate(rows, headers))
    probe = settings.in_distribution.name
    count = flips(old, new, probe)
    samples = len(new.predictions[probe])
    say(
        "the probe's samples changed: no paired comparison"
        if count is None
        else f"{count} of {samples} in-distribution predictions differ, paired by sample id"
    )
    far = worse_since_first(approved, load_margins(settings.margins, settings), settings)
    if far and not options.accept_cumulative_loss:
        listed = ", ".join(f"{key} by {loss:.3g} (margin {m:g})" for key, (loss, m) in far.items())
        raise BaselineError(
            f"{model}: since the first approval FP32 became worse by more than a margin: {listed}",
            hint="small steps add up: find out why, or repeat with --accept-cumulative-loss; "
            "nothing was written",
        )
    save_baseline(settings.baselines, approved)
    _say_in_short(settings, approved)
    say(f"written to {json_path(settings.baselines, model)}; review and commit it")
    return 0


def _verify(settings: Settings, model: str, options: argparse.Namespace) -> int:
    from clipq.evaluation.evaluator import Evaluator
    from clipq.gating.approve import problems

    stored = _stored(settings, model)
    with watching(options, unit="image") as watch:
        faults = problems(Evaluator(settings, progress=watch), stored)
    for problem in faults:
        say(f"{model}: {problem}")
    if not faults:
        say(f"{model}: verified, FP32 measured again gives the stored values")
    return 1 if faults else 0


def _measured(settings: Settings, model: str, options: argparse.Namespace) -> Baseline:
    """Return FP32's baseline as it is measured here and now."""
    from clipq.evaluation.evaluator import Evaluator
    from clipq.gating.approve import measure

    with watching(options, unit="image") as watch:
        evaluator = Evaluator(settings, progress=watch)
        measured = measure(evaluator, model)
    for probe in evaluator.inputs.probes.values():
        if probe.passed_over.pictures or probe.passed_over.beside:
            say(f"{model}: probe {probe.name!r}: {probe.passed_over}")
    return measured


def _say_in_short(settings: Settings, baseline: Baseline) -> None:
    """Print the headline numbers, and what speaks against FP32 itself."""
    from clipq.cli.fp32_in_short import in_short

    say(f"{in_short(baseline, settings.in_distribution.name)}\n")


def _plain(baseline: Baseline, known: str) -> dict[str, Any]:
    """Return everything but the per-sample columns."""
    from clipq.gating.soundness import remarks

    return {
        "model": baseline.model,
        "source": baseline.source,
        "columns_sha256": baseline.digest,
        "environment": dict(baseline.environment),
        "identity": dict(baseline.identity),
        "probes": dict(baseline.probes),
        "noise_from": list(baseline.noise_from),
        "history": [dict(entry) for entry in baseline.history],
        "remarks": [*baseline.remarks, *remarks(baseline, known)],
        "metrics": {key: asdict(value) for key, value in sorted(baseline.values.items())},
    }


def _show(baseline: Baseline) -> str:
    rows = [
        (
            key,
            _text(value.value),
            value.unit,
            f"{value.noise:.1g}",
            _since_first(value.first, value.value),
            value.version,
        )
        for key, value in sorted(baseline.values.items())
    ]
    history = "\n".join(
        f"  {entry['date']}  {entry['reason']} ({entry['changed']} values)"
        for entry in baseline.history
    )
    environment = ", ".join(f"{name} {value}" for name, value in baseline.environment.items())
    headers = ("metric", "FP32", "unit", "noise", "since first approval", "version")
    return (
        f"{baseline.model}  {baseline.source}\n{environment}\n"
        f"noise of FP32 over: {', '.join(baseline.noise_from) or 'not measured'}\n\n"
        f"{tabulate(rows, headers)}\n\nhistory:\n{history}\n"
    )


def _stored(settings: Settings, model: str) -> Baseline:
    from clipq.gating.baseline import load_baseline

    stored = load_baseline(settings.baselines, model)
    if stored is None:
        raise BaselineError(
            f"no baseline of {model!r} in {settings.baselines}",
            hint=f"clipq baseline create {model}",
        )
    return stored


def _since_first(first: float | None, now: float | None) -> str:
    return "-" if first is None or now is None else f"{now - first:+.4g}"


def _bounds(estimate: Estimate | None) -> str:
    if estimate is None or estimate.interval is None:
        return "-"
    low, high = estimate.interval
    return f"[{low:+.3g}, {high:+.3g}]"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
