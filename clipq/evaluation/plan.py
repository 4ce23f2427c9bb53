"""The matrix: which cases a settings file asks for, sorted, the same in every process.

Planning imports neither torch nor any quantizer's code: it needs names, not functions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clipq.cases import FP32, TUNED, Candidate, Case
from clipq.dependencies.file_reads import watching_imports
from clipq.errors import (
    ClipqError,
    QuantizerError,
    SettingsError,
    UnknownNameError,
    did_you_mean,
)
from clipq.evaluation.applicability import count_reasons, why_not_applicable
from clipq.evaluation.candidate_facts import format_class
from clipq.evaluation.isolation import import_contained
from clipq.globs import matches_any, unmatched
from clipq.metrics import Metric, metrics
from clipq.quant import Format, QuantizerSpec, quantizers
from clipq.records import not_applicable_sentences
from clipq.settings import ProbeSettings, ProfileSettings, Settings

__all__ = [
    "Selection",
    "load_plugins",
    "metrics_of",
    "not_applicable",
    "plan",
    "planned_candidates",
    "planned_quantizers",
    "simulation_of",
]


@dataclass(frozen=True, slots=True)
class Selection:
    """Globs that narrow the matrix for one run; an empty tuple selects everything.

    >>> bool(Selection()), bool(Selection(models=("vit-*",)))
    (False, True)
    """

    models: tuple[str, ...] = ()
    quantizers: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.models or self.quantizers or self.probes or self.metrics)


def load_plugins(settings: Settings) -> None:
    """Import the modules that `plugins` in the settings names, so that they register their parts.

    Raises:
        SettingsError: a module cannot be imported, or changes what others share.
    """
    if settings.plugins and str(settings.root) not in sys.path:
        sys.path.insert(0, str(settings.root))
    for name in settings.plugins:
        try:
            with watching_imports():
                import_contained(name)
        except ClipqError:
            raise
        except Exception as error:
            raise SettingsError(
                f"plugin {name!r} of {settings.path} cannot be imported: {error!r}",
                hint=f"plugins are module names, looked up in {settings.root} and sys.path",
            ) from error


def plan(
    settings: Settings, selection: Selection | None = None, *, profile: str = "full"
) -> tuple[Case, ...]:
    """Return the cases of the matrix, sorted and without duplicates.

    Args:
        settings: what the matrix holds.
        selection: globs that narrow it for one run.
        profile: ``quick``, ``default`` or ``full``; one without a table in the settings is the
            whole matrix, and ``full`` is unless the settings say otherwise.

    Raises:
        SettingsError: a pattern matches nothing, nothing selected can be measured, or a quantizer
            is named twice.
        UnknownNameError: a quantizer's method is not registered.
        QuantizerError: a number format makes no sense.

    >>> from pathlib import Path
    >>> from clipq.settings import ModelSettings
    >>> models = (ModelSettings("vit", "local-dir:vit"),)
    >>> probes = (ProbeSettings("id", "in-distribution", "folder:photos"),)
    >>> matrix = models, probes, ("rtn:w8",), ("top1", "ece")
    >>> [case.id for case in plan(Settings(Path("clipq.toml"), *matrix))]
    ['vit/rtn:w8/id.ece', 'vit/rtn:w8/id.top1']
    """
    asked = _asked(settings, selection or Selection(), profile)
    kept = [case for case in asked if not why_not_applicable(case, settings)]
    if asked and not kept:
        said = not_applicable_sentences(count_reasons(asked, settings))
        raise SettingsError(
            f"nothing of what was selected can be measured: {'; '.join(said)}",
            hint="select other probes, or the quantizer that simulates the artifact",
        )
    if not kept:
        raise SettingsError(
            f"the matrix of {settings.path} is empty after selection (profile {profile!r})",
            hint="widen [matrix], the selection or the profile; `clipq list cases` shows "
            "the matrix",
        )
    return tuple(sorted(kept))


def not_applicable(
    settings: Settings, selection: Selection | None = None, *, profile: str = "full"
) -> dict[str, dict[str, int]]:
    """Return how many cases `plan` leaves out because artifacts cannot have them.

    By candidate, and by what they need: gradients, a text tower.

    >>> from pathlib import Path
    >>> from clipq.settings import load_settings
    >>> needs = not_applicable(load_settings(Path("clipq.toml")))
    >>> set(needs["vit-clean/ort-static"])
    {'gradients'}
    """
    return count_reasons(_asked(settings, selection or Selection(), profile), settings)


def _asked(settings: Settings, chosen: Selection, profile: str) -> list[Case]:
    """Return what is asked for, whether it can be measured or not."""
    models = set(_select("model", chosen.models, [model.name for model in settings.models]))
    probes = _select("probe", chosen.probes, _evaluation_probes(settings))
    known = planned_candidates(settings)
    names = list(dict.fromkeys(candidate.quantizer for candidate in known))
    selected = set(_select("quantizer", _canonical(chosen.quantizers), names))
    declared = _match_all("metric", settings.metrics, metrics.names(), settings.path)
    chosen_metrics = _select("metric", chosen.metrics, declared)
    of_probe = {
        probe: _metrics_of(settings.probe(probe), chosen_metrics, settings) for probe in probes
    }
    cases = [
        candidate.on(probe).case(name)
        for candidate in known
        if candidate.model in models and candidate.quantizer in selected
        for probe in probes
        for name in of_probe[probe]
    ]
    kept = [case for case in cases if not matches_any(case.id, settings.exclude)]
    return _in_profile(kept, settings.profiles.get(profile), settings, profile)


def metrics_of(settings: Settings, probe: ProbeSettings) -> tuple[Metric, ...]:
    """Return the metrics that are computed on a probe.

    Raises:
        SettingsError: a pattern matches nothing.

    >>> from pathlib import Path
    >>> probe = ProbeSettings("id", "in-distribution", "folder:photos", metrics=("*ece",))
    >>> settings = Settings(Path("clipq.toml"), (), (probe,), ())
    >>> [metric.name for metric in metrics_of(settings, probe)]
    ['classwise-ece', 'ece', 'smooth-ece', 'ts-ece']
    """
    declared = _match_all("metric", settings.metrics, metrics.names(), settings.path)
    return tuple(map(metrics.get, _metrics_of(probe, declared, settings)))


def _metrics_of(probe: ProbeSettings, names: Sequence[str], settings: Settings) -> list[str]:
    """Return which of some metrics are computed on a probe."""
    applicable = [name for name in metrics.names() if probe.role in metrics.get(name).roles]
    chosen = _match_all("metric", probe.metrics, applicable, f"{settings.path}, {probe.name!r}")
    has_groups = bool(probe.group) or probe.corruption is not None
    return [
        name
        for name in names
        if name in chosen and (has_groups or not metrics.get(name).needs_groups)
    ]


def _in_profile(
    cases: list[Case], profile: ProfileSettings | None, settings: Settings, name: str
) -> list[Case]:
    """Return the cases that a profile takes.

    Raises:
        SettingsError: one of its quantizers or other names selects nothing of the matrix.
    """
    if profile is None:
        return cases
    where = f"{settings.path}, [profiles.{name}]"
    known = {
        "model": [model.name for model in settings.models],
        "quantizer": [candidate.quantizer for candidate in planned_candidates(settings)],
        "probe": _evaluation_probes(settings),
        "metric": metrics.names(),
    }
    globs = (
        profile.models,
        _canonical(profile.quantizers),
        profile.probes,
        profile.metrics,
    )
    taken = {
        kind: set(_match_all(kind, patterns, known[kind], where) if patterns else known[kind])
        for kind, patterns in zip(known, globs, strict=True)
    }
    return [
        case
        for case in cases
        if all(getattr(case, kind) in taken[kind] for kind in taken)
        and not matches_any(case.id, profile.exclude)
    ]


def planned_candidates(settings: Settings) -> tuple[Candidate, ...]:
    """Return every candidate of the settings, each once: quantizers of all models, and artifacts.

    A quantizer that only simulates an artifact is one of the artifact's model alone.

    Raises:
        SettingsError: an artifact is called as a quantizer method is.
        QuantizerError: a quantizer or a format makes no sense.

    >>> from pathlib import Path
    >>> from clipq.settings import ModelSettings
    >>> models = tuple(ModelSettings(name, f"local-dir:{name}") for name in ("vit", "resnet"))
    >>> settings = Settings(Path("clipq.toml"), models, (), ("rtn:w8",))
    >>> [str(candidate) for candidate in planned_candidates(settings)]
    ['vit/rtn:w8', 'resnet/rtn:w8']
    """
    everywhere = planned_quantizers(settings)
    found = {Candidate(model.name, text): None for model in settings.models for text in everywhere}
    for artifact in settings.artifacts:
        where = f"{settings.path}, artifact {artifact.name!r}"
        if artifact.name in quantizers:
            raise SettingsError(
                f"{where} is called as a quantizer method is",
                hint=f"call it otherwise, for example {artifact.name + '-artifact'!r}",
            )
        try:
            format_class(Candidate(artifact.model, artifact.name), settings)
            if artifact.simulation:
                spec = _known(artifact.simulation, where)
                found[Candidate(artifact.model, str(spec))] = None
        except (QuantizerError, UnknownNameError) as error:
            raise type(error)(f"{where}: {error.problem}", hint=error.hint) from error
        found[Candidate(artifact.model, artifact.name)] = None
        if artifact.logit_scale:
            found[Candidate(artifact.model, artifact.name + TUNED)] = None
    return tuple(found)


def simulation_of(candidate: Candidate, settings: Settings) -> str:
    """Return the quantizer that simulates an artifact, by which its loss is split; "" for none.

    It is the one that the settings name, or the matrix's first of the same format in the same
    towers; of a candidate whose logit scale is tuned, one of the matrix whose is tuned as well.

    >>> from pathlib import Path
    >>> from clipq.artifact_settings import ArtifactSettings
    >>> ort = ArtifactSettings("ort", "vit", "onnxruntime", recipe="mine", format="w8a8d")
    >>> texts = ("rtn:w4", "rtn:w8a8d")
    >>> settings = Settings(Path("clipq.toml"), (), (), texts, artifacts=(ort,))
    >>> simulation_of(Candidate("vit", "ort"), settings)
    'rtn:w8a8d'
    """
    artifact = settings.artifact(candidate)
    if artifact is None or artifact.is_float:
        return ""
    named = QuantizerSpec.parse(artifact.simulation) if artifact.simulation else None
    if named is not None and not candidate.tuned:
        return str(named)
    specs = [QuantizerSpec.parse(text) for text in planned_quantizers(settings)]
    alike = [spec for spec in specs if spec.tuned == candidate.tuned]
    if named is not None:
        return next((str(spec) for spec in alike if spec.base == named), "")
    if not artifact.format:
        return ""
    wanted = Format.parse(artifact.format), artifact.towers
    return next((str(spec) for spec in alike if (spec.format, spec.towers) == wanted), "")


def planned_quantizers(settings: Settings) -> tuple[str, ...]:
    """Return the settings' quantizers in canonical form, each checked and known.

    >>> from pathlib import Path
    >>> texts = ("rtn:w8@both", "awq:w4g32,ratio=0.5,ends=float")
    >>> planned_quantizers(Settings(Path("clipq.toml"), (), (), texts))
    ('rtn:w8', 'awq:w4g32,ends=float,ratio=0.5')
    """
    canonical = []
    for text in settings.quantizers:
        spec = _known(text, f"{settings.path}, [matrix]")
        if str(spec) in canonical:
            raise SettingsError(
                f"{settings.path}, [matrix]: quantizer {text!r} is given twice",
                hint=f"its canonical form is {str(spec)!r}",
            )
        canonical.append(str(spec))
    return tuple(canonical)


def _known(text: str, where: str) -> QuantizerSpec:
    """Return a quantizer whose method is registered."""
    try:
        spec = QuantizerSpec.parse(text)
    except QuantizerError as error:
        raise QuantizerError(
            f"{where}: quantizer {text!r}: {error.problem}", hint=error.hint
        ) from error
    if spec.is_reference:
        raise SettingsError(
            f"{where}: quantizer {text!r} is the reference itself",
            hint=f"list only quantizers to be judged against FP32; {FP32}{TUNED} is one",
        )
    if spec.method != FP32 and spec.method not in quantizers:
        quantizers.get(spec.method)  # raises, with the known names
    return spec


def _evaluation_probes(settings: Settings) -> list[str]:
    return [probe.name for probe in settings.evaluated]


def _canonical(patterns: Iterable[str]) -> tuple[str, ...]:
    """Canonicalise exact quantizer names; leave globs alone."""
    return tuple(
        pattern if any(c in pattern for c in "*?[") else str(QuantizerSpec.parse(pattern))
        for pattern in patterns
    )


def _select(kind: str, patterns: Sequence[str], known: Sequence[str]) -> list[str]:
    if not patterns:
        return list(known)
    return _match_all(kind, patterns, known, f"selection of {kind}s")


def _match_all(
    kind: str, patterns: Sequence[str], known: Sequence[str], origin: object
) -> list[str]:
    for pattern in unmatched(patterns, known):
        raise SettingsError(
            f"{origin}: no {kind} matches {pattern!r}", hint=did_you_mean(pattern, known)
        )
    return [name for name in known if matches_any(name, patterns)]
