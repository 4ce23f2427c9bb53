"""What a project's settings name: plugins, models, probes, baselines, margins, waivers."""

from __future__ import annotations

from collections.abc import Iterator

from clipq.cli.onboarding.health import Context, Examination, Finding, State
from clipq.errors import BaselineError, ClipqError, listed
from clipq.settings import Settings

__all__ = ["EXAMINATIONS"]


def _settings(context: Context) -> Settings:
    """Return the settings; examinations that need some are skipped where there are none."""
    if context.settings is None:
        raise ClipqError("no settings", hint="clipq init")
    return context.settings


def _plugins(context: Context) -> Iterator[Finding]:
    from clipq.evaluation.plan import load_plugins

    settings = _settings(context)
    load_plugins(settings)
    yield Finding("plugins", State.OK, ", ".join(settings.plugins) or "none declared")


def _matrix(context: Context) -> Iterator[Finding]:
    from clipq.evaluation.plan import plan

    yield Finding("matrix", State.OK, f"{len(plan(_settings(context))):,} cases")


def _models(context: Context) -> Iterator[Finding]:
    from clipq.cli.onboarding.hub import cached_weights
    from clipq.models.source import ModelSource, local_files

    settings = _settings(context)
    for model in settings.models:
        name = f"model {model.name}"
        try:
            source = ModelSource.parse(model.source, base_dir=settings.root)
            if source.kind == "local-dir":
                size = local_files(source.path).checkpoint.stat().st_size
                yield Finding(name, State.OK, f"{source}, {size / 1e6:,.0f} MB of weights")
                continue
            weights = cached_weights(source)
        except ClipqError as error:
            yield Finding(name, State.PROBLEM, error.problem, error.hint)
            continue
        if weights is None:
            fix = "where there is a network, the first run downloads it"
            yield Finding(name, State.WARNING, f"{source} is not on this machine yet", fix)
        else:
            yield Finding(name, State.OK, f"{source}, cached")


def _probes(context: Context) -> Iterator[Finding]:
    from clipq.data import look_at_probe

    settings = _settings(context)
    seen: list[str] = []
    with_data = [probe for probe in settings.probes if probe.role != "pooled"]
    for probe in with_data:
        name = f"probe {probe.name}"
        try:
            counts = look_at_probe(
                name=probe.name,
                role=probe.role,
                source=probe.source,
                split=probe.split,
                base_dir=settings.root,
                cache=settings.cache,
            )
        except ClipqError as error:
            yield Finding(name, State.PROBLEM, error.problem, error.hint)
            continue
        if counts:
            seen.append(probe.name)
        else:
            text = f"{probe.source}: nothing is known of it before it is opened"
            yield Finding(name, State.SKIPPED, text, f"clipq probe check {probe.name}")
    if seen:
        text = f"{len(seen)} of {len(with_data)} are there; `clipq probe check` reads them"
        yield Finding("probes", State.OK, text)


def _baselines(context: Context) -> Iterator[Finding]:
    from clipq.evaluation.plan import plan
    from clipq.gating.baseline import load_baseline

    settings = _settings(context)
    cases = plan(settings)
    for model in settings.models:
        name = f"baseline {model.name}"
        try:
            stored = load_baseline(settings.baselines, model.name)
        except ClipqError as error:
            yield Finding(name, State.PROBLEM, error.problem, error.hint)
            continue
        if stored is None:
            fix = f"clipq baseline create {model.name}"
            yield Finding(name, State.PROBLEM, f"there is none in {settings.baselines}", fix)
            continue
        planned = {f"{case.probe}.{case.metric}" for case in cases if case.model == model.name}
        lacking, vanished = planned - set(stored.values), set(stored.values) - planned
        fix = f"clipq baseline update {model.name} --reason '...'"
        if lacking:
            yield Finding(name, State.PROBLEM, f"it lacks {_some(lacking)}", fix)
        elif vanished:
            text = f"it holds what the matrix no longer measures: {_some(vanished)}"
            yield Finding(name, State.PROBLEM, text, fix)
        else:
            approved = stored.history[-1]["date"] if stored.history else "?"
            text = f"{len(stored.values)} values, unaltered since approved ({approved})"
            yield Finding(name, State.OK, text)


def _margins(context: Context) -> Iterator[Finding]:
    from clipq.evaluation.plan import plan
    from clipq.gating.margins import load_margins
    from clipq.gating.matrix import reference_values

    settings = _settings(context)
    margins = load_margins(settings.margins, settings)
    try:
        values = reference_values(settings)
    except BaselineError:
        values = {}  # the baselines' own finding says so
    margins.check_against(plan(settings), values)
    failures = len(margins.expected_failures)
    yield Finding("margins", State.OK, f"cover the matrix; {failures} expected failures")


def _waivers(context: Context) -> Iterator[Finding]:
    from clipq.evaluation.plan import plan
    from clipq.gating.waivers import load_waivers

    settings = _settings(context)
    if not settings.waivers.is_file():
        yield Finding("waivers", State.OK, "none")
        return
    waivers = load_waivers(settings.waivers)
    matrix = {case.id for case in plan(settings)}
    # No case was run: what is found is what no run could change.
    problems = waivers.problems((), today=context.today, matrix=matrix)
    for problem in problems:
        yield Finding("waivers", State.PROBLEM, problem)
    if not problems:
        yield Finding("waivers", State.OK, f"{len(waivers.entries)}, none expired")


def _some(names: set[str]) -> str:
    return listed(sorted(names))


def _trained(context: Context) -> Iterator[Finding]:
    from clipq.evaluation.plan import load_plugins, planned_candidates
    from clipq.evaluation.trained_folder import TrainedFolder, folders_below
    from clipq.evaluation.trained_plan import trains
    from clipq.evaluation.trained_search import declared_path

    settings = _settings(context)
    load_plugins(settings)
    learning = [
        one
        for one in planned_candidates(settings)
        if settings.artifact(one) is None and trains(one.quantizer)
    ]
    found = {one: declared_path(one, settings) for one in learning}
    loaded = {path for path in found.values() if path is not None}
    for path in sorted(loaded):
        TrainedFolder.read(path)  # whole, or an error that becomes a problem
    untrained = [str(one) for one, path in found.items() if path is None]
    said = [f"{len(loaded)} loaded from {settings.trained}"] if loaded else []
    said += [f"trained at first use: {', '.join(untrained)}"] if untrained else []
    yield Finding("trained", State.OK, "; ".join(said) or "no quantizer of the matrix learns")
    for path in folders_below(settings.trained):
        if path not in loaded:
            text = (
                f"{path} holds {TrainedFolder.read(path).manifest.quantizer}, which is no candidate"
            )
            yield Finding(
                "trained", State.WARNING, text, "add it to [matrix], or remove the folder"
            )


EXAMINATIONS = (
    Examination("plugins", _plugins, needs_settings=True),
    Examination("matrix", _matrix, needs_settings=True),
    Examination("models", _models, needs_settings=True),
    Examination("trained", _trained, needs_settings=True),
    Examination("probes", _probes, needs_settings=True),
    Examination("margins", _margins, needs_settings=True),
    Examination("baselines", _baselines, needs_settings=True),
    Examination("waivers", _waivers, needs_settings=True),
)
