"""`clipq list`: what the settings and the registries hold."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from tabulate import tabulate

from clipq.artifact_settings import ArtifactSettings
from clipq.cases import TUNED, Candidate
from clipq.cli.context import settings_of
from clipq.settings import PROFILES, ProbeSettings, Settings
from clipq.terminal import emit, say

__all__ = ["declare", "listing", "run"]

KINDS = (
    *("models", "quantizers", "objectives", "artifacts", "runtimes", "probes", "metrics"),
    "cases",
)
_ROLES = {
    "adversarial": "is it right on images made to mislead it?",
    "calibration": "activation ranges and the temperature; never evaluated on",
    "corruption": "is it right on noisy, blurred, badly lit images?",
    "groups": "is it as right for every group?",
    "in-distribution": "accuracy, calibration and churn; its classes make the zero-shot head",
    "ood": "is it told from the in-distribution probe?",
    "pooled": "losses too small to be seen on one probe, of the same direction on all",
    "proxy": "image-caption pairs to train on; never evaluated on",
    "retrieval": "are images found by captions and captions by images?",
    "shift": "is it right on images of another kind?",
    "spurious": "is it right where a misleading cue points elsewhere?",
}


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq list` to the command line."""
    listing = commands.add_parser(
        "list", help="what is known: models, quantizers, artifacts, probes ..."
    )
    listing.add_argument("kind", choices=KINDS)
    listing.add_argument(
        "--profile", choices=PROFILES, default="default", help="of cases: which part of the matrix"
    )
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    listing.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the listing."""
    from clipq.evaluation.plan import load_plugins

    settings = settings_of(options)
    load_plugins(settings)
    if options.json:
        emit(json.dumps(_entries(settings, options.kind, options.profile), indent=1))
    else:
        say(listing(settings, options.kind, profile=options.profile))
    return 0


def _entries(
    settings: Settings, kind: str, profile: str
) -> list[dict[str, Any]] | dict[str, list[dict[str, Any]]]:
    """Return what a listing holds, for scripts."""
    from clipq.evaluation.needs import needs
    from clipq.evaluation.plan import plan, planned_quantizers
    from clipq.metrics import metrics
    from clipq.quant import quantizers
    from clipq.runtimes import runtimes

    if kind == "cases":
        parts = ("id", "model", "quantizer", "probe", "metric")
        planned = plan(settings, profile=profile)
        return [{part: getattr(case, part) for part in parts} for case in planned]
    if kind == "models":
        return [asdict(model) for model in settings.models]
    if kind == "probes":
        return [asdict(probe) for probe in settings.probes]
    if kind == "artifacts":
        return list(_listed_artifacts(settings))
    if kind == "runtimes":
        return [_runtime(name) for name in runtimes.names()]
    if kind == "objectives":
        return _objectives()
    if kind == "quantizers":
        known = quantizers.names()
        return {
            "matrix": [_plain(text) for text in planned_quantizers(settings)],
            "methods": [{"name": name, "does": _described(name)} for name in known],
        }
    return [
        {
            "name": m.name,
            "title": m.title,
            "unit": m.unit,
            "direction": m.direction,
            "roles": sorted(m.roles),
            "version": m.version,
            "needs": asdict(needs(m)),
            "note": m.note,
        }
        for m in map(metrics.get, metrics.names())
    ]


def _artifact(settings: Settings, one: ArtifactSettings) -> dict[str, Any]:
    """Return what a listing says of an artifact, which is not opened."""
    from clipq.evaluation.candidate_facts import format_class
    from clipq.evaluation.plan import simulation_of

    candidate = Candidate(one.model, one.name)
    return {
        "artifact": str(candidate),
        "runtime": one.runtime,
        "image": one.image,
        "text": one.text or one.head,
        "recipe": one.recipe,
        "batch": one.batch or settings.batch_size,
        "format_class": format_class(candidate, settings),
        "simulation": simulation_of(candidate, settings),
        "part_of": one.part_of,
    }


def _listed_artifacts(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield every artifact, and after one that is judged with a tuned logit scale as well, that."""
    from clipq.evaluation.plan import simulation_of

    for one in settings.artifacts:
        said = _artifact(settings, one)
        yield said
        if one.logit_scale:
            tuned = Candidate(one.model, one.name + TUNED)
            simulation = simulation_of(tuned, settings)
            yield said | {"artifact": str(tuned), "simulation": simulation, "part_of": one.name}


def _artifacts(settings: Settings) -> str:
    if not settings.artifacts:
        return (
            f"{settings.path} declares no [[artifacts]]: exported files that are gated as a "
            "quantizer is; `clipq list runtimes` shows what runs them"
        )
    rows = []
    for one in _listed_artifacts(settings):
        files = one["recipe"] or ", ".join(filter(None, (one["image"], one["text"])))
        shown = (one["artifact"], one["runtime"], files, one["batch"], one["format_class"])
        rows.append((*shown, one["simulation"] or "-", one["part_of"] or "-"))
    headers = ("artifact", "runtime", "files or recipe", "batch", "format class", "simulated by")
    widths = [None, None, 50, None, None, None, None]
    return tabulate(rows, (*headers, "part of"), maxcolwidths=widths)


def _runtime(name: str) -> dict[str, Any]:
    """Return what a listing says of a runtime, whose library is not loaded."""
    from clipq.provenance import package_versions
    from clipq.runtimes import runtimes

    runtime = runtimes.get(name)
    versions = dict(package_versions(runtime.packages))
    return {
        "runtime": name,
        "packages": {package: versions[package] for package in runtime.packages},
        "extra": runtime.extra,
    }


def _runtimes() -> str:
    from clipq.runtimes import runtimes

    rows = []
    for known in (_runtime(name) for name in runtimes.names()):
        packages = ", ".join(f"{name} {version}" for name, version in known["packages"].items())
        install = f"pip install 'pytest-clipq[{known['extra']}]'" if known["extra"] else "-"
        rows.append((known["runtime"], packages or "-", install))
    return tabulate(rows, ("runtime", "packages here", "to install them"))


def _objectives() -> list[dict[str, Any]]:
    """Return what a listing says of objectives; to know what they say, they are imported."""
    from clipq.training.objectives import objectives

    return [
        {"name": name, "does": (inspect.getdoc(objectives.get(name)) or "").partition("\n")[0]}
        for name in objectives.names()
    ]


def _plain(text: str) -> dict[str, Any]:
    from clipq.quant import QuantizerSpec

    spec = QuantizerSpec.parse(text)
    return {"quantizer": text, "method": spec.method, "format_class": spec.format_class}


def listing(settings: Settings, kind: str, *, profile: str = "default") -> str:
    """Return the listing of one kind as text; of cases, those that a profile takes."""
    from clipq.evaluation.needs import needs
    from clipq.evaluation.plan import load_plugins, not_applicable, plan, planned_quantizers
    from clipq.metrics import metrics
    from clipq.quant import QuantizerSpec, quantizers
    from clipq.records import not_applicable_sentences

    load_plugins(settings)
    if kind == "cases":
        cases = plan(settings, profile=profile)
        left = not_applicable_sentences(not_applicable(settings, profile=profile))
        return "\n".join([*(case.id for case in cases), f"{len(cases)} cases ({profile})", *left])
    if kind == "artifacts":
        return _artifacts(settings)
    if kind == "runtimes":
        return _runtimes()
    if kind == "objectives":
        rows = [tuple(one.values()) for one in _objectives()]
        return tabulate(rows, ("objective", "what is minimised"), maxcolwidths=[None, 90])
    if kind == "models":
        return tabulate([(m.name, m.source) for m in settings.models], ("model", "source"))
    if kind == "probes":
        rows = [
            (p.name, _role(p), _origin(settings, p), p.reason or _ROLES[p.role])
            for p in settings.probes
        ]
        headers = ("probe", "role", "source, split", "why it is here")
        return tabulate(rows, headers, maxcolwidths=[None, None, 40, 60])
    if kind == "quantizers":
        chosen = [
            (text, QuantizerSpec.parse(text).format_class) for text in planned_quantizers(settings)
        ]
        known = [(name, _described(name)) for name in quantizers.names()]
        return "\n\n".join(
            [
                tabulate(chosen, ("quantizer", "format class")),
                tabulate(known, ("method", "what it does"), maxcolwidths=[None, 90]),
                "docs/quantizers.md has their formats and options.",
            ]
        )
    declared = [metrics.get(name) for name in metrics.names()]
    described = [
        (
            *(m.name, m.title, m.unit, m.direction),
            *(", ".join(sorted(m.roles)), str(needs(m)), m.version, m.note),
        )
        for m in declared
    ]
    of_metric = ("metric", "title", "unit", "better", "probes", "needs", "version", "note")
    widths = [None, 40, None, None, 40, 30, None, 60]
    return tabulate(described, of_metric, maxcolwidths=widths)


def _origin(settings: Settings, probe: ProbeSettings) -> str:
    if probe.role != "pooled":
        return f"{probe.source} {probe.split}"
    return f"the samples of {', '.join(one.name for one in settings.members(probe.name))}"


def _role(probe: ProbeSettings) -> str:
    """Return a probe's role, with what is done to its images and when."""
    if probe.use:
        return f"{_role(replace(probe, use=''))}, for the {probe.use} only"
    if probe.attack is not None:
        attack = probe.attack
        return f"{probe.role}: {attack.name}, {attack.epsilon:g}/255, against {attack.against}"
    if probe.corruption is not None:
        severities = ", ".join(map(str, probe.corruption.severities))
        return f"{probe.role}: severities {severities}"
    return f"{probe.distance} {probe.role}".strip()


def _described(name: str) -> str:
    """Return a method's first line: of its module where that is clipq's, else of itself."""
    from clipq.quant import quantizers

    method = quantizers.get(name)
    module = inspect.getmodule(method)
    built_in = module is not None and module.__name__.startswith("clipq.")
    text = inspect.getdoc(module if built_in else method) or ""
    return text.partition("\n")[0]
