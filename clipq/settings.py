"""`clipq.toml` (or `[tool.clipq]` in pyproject.toml) as frozen values.

Their annotations say what each key may hold (`clipq.shapes`): an unknown key, a wrong type or a
missing table is a `SettingsError` that names the file, the key, the value and what is allowed.
Paths are relative to the settings file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NotRequired, Required, TypeVar, get_args

from clipq.artifact_settings import ArtifactSettings, artifact_table, read_artifacts
from clipq.cases import Candidate
from clipq.errors import SettingsError, did_you_mean
from clipq.files import read_file
from clipq.shapes import (
    Document,
    Meta,
    Name,
    PathText,
    Text,
    Texts,
    between,
    keys,
    one_of,
    table,
    whole,
)
from clipq.verdicts import POLICIES, Policy, policy_named

__all__ = [
    "ATTACKS",
    "BACKENDS",
    "CORRECTIONS",
    "MOST_PASSED_OVER",
    "PATHS",
    "POOLABLE",
    "PROFILES",
    "ROLES",
    "SELECTORS",
    "SEVERITIES",
    "UNEVALUATED",
    "AttackSettings",
    "CorruptionSettings",
    "HistorySettings",
    "LimitSettings",
    "ModelSettings",
    "ProbeSettings",
    "ProfileSettings",
    "Settings",
    "StatisticsSettings",
    "find_settings",
    "load_settings",
]

ROLES = (
    "adversarial",
    "calibration",
    "corruption",
    "groups",
    "in-distribution",
    "ood",
    "pooled",
    "proxy",
    "retrieval",
    "shift",
    "spurious",
)
UNEVALUATED = ("calibration", "proxy")
"""Roles whose samples are looked at and never evaluated on: they make no cases."""
POOLABLE = ("corruption", "groups", "in-distribution", "shift", "spurious")
"""Roles whose samples can be pooled: each has a right answer, and FP32 sees the same image."""
PROFILES = ("quick", "default", "full")
PATHS = ("baselines", "margins", "waivers", "cache", "report")
"""Paths that a command line may give in the place of those of the file."""
SELECTORS = ("model", "quantizer", "probe", "metric")
"""Parts of a case's id by which a command line narrows the matrix."""
ATTACKS = ("fgsm", "pgd", "apgd", "square")
SEVERITIES = (1, 2, 3, 4, 5)
BACKENDS = ("auto", "reference", "triton")
CORRECTIONS = ("conditional", "holm", "benjamini-hochberg", "none")
MOST_PASSED_OVER = 0.01
"""Share of a probe's files that may be pictures and not be read, where nothing is said of it."""

_Count = Annotated[int, whole(0)]
_Share = Annotated[float, Meta(ge=0.0, le=1.0, description="a number from 0 to 1")]
_Positive = Annotated[int, whole(1)]
_Severities = Annotated[
    tuple[Annotated[int, Meta(ge=1, le=5, description="a whole number from 1 to 5")], ...],
    Meta(min_length=1, description="a list of whole numbers from 1 to 5"),
]
_SHARE = "a number from 0 to below 1"
_UP_TO_HALF = Meta(ge=0.0, le=0.5, description="a number from 0 to 0.5")
_Blocks = Annotated[
    tuple[Text, ...], Meta(min_length=1, description="a list of verdicts, 'fail' among them")
]
_Quantizers = Annotated[
    tuple[Text, ...],
    Meta(description="a list of texts, e.g. ['rtn:w8a8']"),
]


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One `[[models]]` table: a short name and an open_clip source.

    >>> ModelSettings("b32", "ViT-B-32/laion2b_s34b_b79k").name
    'b32'
    """

    name: Name
    source: Text
    sha256: Text = ""


@dataclass(frozen=True, slots=True)
class CorruptionSettings:
    """How a probe's images are corrupted as they are read.

    Args:
        kinds: names or globs of corruptions; `clipq.data.corruption` knows them.
        severities: each from 1 to 5.
        draws: corrupted versions of each image, dealt out evenly over kinds and severities; 0 for
            every kind at every severity.

    >>> CorruptionSettings(kinds=("*_blur", "fog"), draws=2).severities  # dealt out over all
    (1, 2, 3, 4, 5)
    """

    kinds: Texts
    severities: _Severities = SEVERITIES
    draws: _Count = 0


@dataclass(frozen=True, slots=True)
class AttackSettings:
    """How a probe's images are attacked.

    Args:
        name: one of `ATTACKS`.
        epsilon: largest change of a pixel value, in steps of 1 / 255 of the image before
            normalisation.
        steps: iterations (queries for ``square``); ``fgsm`` has one.
        against: ``itself``, the model under test with straight-through gradients, or ``fp32``:
            images made against the FP32 model and transferred.

    >>> AttackSettings("pgd").epsilon  # 2 / 255 of a pixel's range
    2.0
    """

    name: Annotated[str, one_of(*ATTACKS)]
    epsilon: Annotated[float, between(0.0, 255.0)] = 2.0
    steps: _Positive = 10
    against: Annotated[str, one_of("itself", "fp32")] = "itself"


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """One `[[probes]]` table: a labelled evaluation set with a role.

    Args:
        name: as in case ids.
        role: one of `ROLES`.
        source: ``kind:location`` of the data; a pooled probe has none.
        split: which split of it.
        group: attribute that divides samples; "" for none.
        cluster: attribute that says which samples belong together, and so err together: a patient,
            a video; "" where they are independent.
        metrics: globs; which of the role's metrics are computed.
        reason: one line: why this probe is here.
        probes: of a pooled probe: whose samples it pools; empty for all that it may.
        use: ``release`` for a probe that is measured under policy ``release`` alone, so that nobody
            tunes on it; "" for every run.
        distance: of an out-of-distribution probe: ``near``, ``far`` or "".
        samples: evaluate only so many samples, always the same; 0 for all.
        unreadable: most images that may fail to decode before the probe fails.
        passed_over: largest share of its files that may be pictures and are not read, for example
            because of their ending, before the probe fails.
        classes: a shipped class list or a file of one class a line, instead of the source's own.
        templates: likewise of prompt templates.
        corruption: None for images as they are.
        attack: None for images as they are.

    >>> ProbeSettings("id", "in-distribution", "webdataset:data/shapes").split
    'test'
    """

    name: Name
    role: Annotated[str, one_of(*ROLES)]
    source: Text = ""
    split: Text = "test"
    group: Text = ""
    metrics: Texts = ("*",)
    reason: Text = ""
    distance: Annotated[str, one_of("near", "far")] = ""
    samples: _Count = 0
    unreadable: _Count = 0
    passed_over: _Share = MOST_PASSED_OVER
    classes: Text = ""
    templates: Text = ""
    probes: Texts = ()
    use: Annotated[str, one_of("release")] = ""
    corruption: CorruptionSettings | None = None
    attack: AttackSettings | None = None
    cluster: Text = ""


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """One `[profiles.NAME]` table: the part of the matrix that a kind of run takes, as globs.

    >>> ProfileSettings(quantizers=("rtn:w8*",)).metrics  # of these quantizers, all metrics
    ()
    """

    models: Texts = ()
    quantizers: Texts = ()
    probes: Texts = ()
    metrics: Texts = ()
    exclude: Texts = ()


@dataclass(frozen=True, slots=True)
class StatisticsSettings:
    """The `[statistics]` table: how sure a verdict must be.

    Args:
        alpha: two-sided error rate; a pass or a failure is wrong with probability alpha / 2 each.
        power: probability with which `clipq power` promises a decision.
        suspicion: p-value at the margin below which a loss that is not surely beyond it is suspect.
        correction: how false alarms are controlled over the cases of a release candidate.
        replicates: bootstrap replicates per case; up to 16 times as many where a verdict is near.
        seed: of every resample; recorded with the run.
        noise_factor: a margin below this many times FP32's own noise is an error.
        disagreement: least share of samples whose correctness a quantizer is assumed to change,
            where planning has nothing measured.

    >>> StatisticsSettings(alpha=0.1).tail  # a pass is wrong with this probability
    0.05
    """

    alpha: Annotated[float, between(0.0, 0.5)] = 0.05
    power: Annotated[float, between(0.5, 1.0)] = 0.95
    suspicion: Annotated[float, _UP_TO_HALF] = 0.1
    correction: Annotated[str, one_of(*CORRECTIONS)] = "conditional"
    replicates: Annotated[int, whole(100)] = 500
    seed: Annotated[int, whole(0, 2**63 - 1)] = 20250921
    noise_factor: Annotated[float, between(0.0, 100.0)] = 3.0
    disagreement: Annotated[float, between(0.0, 1.0)] = 0.01

    @property
    def tail(self) -> float:
        """One-sided error rate."""
        return self.alpha / 2


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """The `[history]` table: where runs are kept.

    Args:
        store: a URL, ``sqlite:///PATH`` (relative to the settings file) or ``postgresql://...``;
            the environment variable CLIPQ_STORE, which may hold a password, goes before it.
        record: whether every complete gate is recorded, as ``clipq gate --record`` does one.
        predictions: whether per-sample predictions are kept, for paired comparison.
        commit_url: where a commit can be looked at; ``{sha}`` stands for its hash.

    >>> HistorySettings().store
    'sqlite:///.clipq/history.db'
    """

    store: Text = "sqlite:///.clipq/history.db"
    record: bool = False
    predictions: bool = True
    commit_url: Text = ""


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """The `[limits]` table: what a gate does not accept, whoever signed it, and how long it waits.

    Args:
        waiver_days: a waiver ends at most so many days from today.
        excused_share: at most this share of the matrix's cases is waived or expected to fail.
        stalled_seconds: a candidate is given up where nothing of it gets done for so long: no
            batch is encoded, no case measured.

    >>> LimitSettings(waiver_days=90).excused_share
    0.5
    """

    waiver_days: Annotated[int, whole(1, 3660)] = 366
    excused_share: Annotated[float, Meta(ge=0.0, lt=1.0, description=_SHARE)] = 0.5
    stalled_seconds: Annotated[float, between(0.0, math.inf, "a number of seconds")] = 3600.0


_Named = TypeVar("_Named", ModelSettings, ProbeSettings)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `clipq.toml` says; `root` is the folder that its paths are relative to.

    >>> settings = load_settings(Path("clipq.toml"))
    >>> settings.in_distribution.source, settings.model("siglip").source
    ('webdataset:fixtures/data/shapes', 'local-dir:fixtures/models/siglip')
    """

    path: Path
    models: tuple[ModelSettings, ...]
    probes: tuple[ProbeSettings, ...]
    quantizers: _Quantizers
    metrics: Texts = ("*",)
    exclude: Texts = ()
    kernels: Texts = ()
    baselines: PathText = Path("baselines")
    margins: PathText = Path("baselines/margins.toml")
    waivers: PathText = Path("baselines/waivers.toml")
    latency: PathText | None = None
    cache: PathText = Path(".clipq/cache")
    report: PathText = Path(".clipq/report")
    trained: PathText = Path("trained")
    plugins: Texts = ()
    policy: Text = "ci"
    device: Text = "cpu"
    backend: Annotated[str, one_of(*BACKENDS)] = "auto"
    threads: _Positive = 1
    batch_size: _Positive = 256
    statistics: StatisticsSettings = StatisticsSettings()
    profiles: Mapping[str, ProfileSettings] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=lambda: POLICIES)
    history: HistorySettings = HistorySettings()
    limits: LimitSettings = LimitSettings()
    artifacts: tuple[ArtifactSettings, ...] = ()

    @property
    def root(self) -> Path:
        return self.path.parent

    @property
    def rule(self) -> Policy:
        """The policy in force, with the verdicts that block under it."""
        return self.policies[self.policy]

    def under(self, policy: str) -> Settings:
        """Return the same settings with another of their policies in force.

        Raises:
            SettingsError: there is none of that name.
        """
        return replace(self, policy=policy_named(policy, self.policies).name)

    def model(self, name: str) -> ModelSettings:
        """Return the model called `name`."""
        return _named(self.models, name, "model", self.path)

    def artifact(self, candidate: Candidate) -> ArtifactSettings | None:
        """Return the artifact that a candidate is; None of one that a quantizer makes.

        One whose logit scale is tuned is still the same files.
        """
        named = candidate.model, candidate.base.quantizer
        return next((one for one in self.artifacts if (one.model, one.name) == named), None)

    def probe(self, name: str) -> ProbeSettings:
        """Return the probe called `name`."""
        return _named(self.probes, name, "probe", self.path)

    def probes_of(self, role: str) -> tuple[ProbeSettings, ...]:
        """Return the probes with a role, in file order."""
        return tuple(probe for probe in self.probes if probe.role == role)

    def members(self, pooled: str) -> tuple[ProbeSettings, ...]:
        """Return the probes whose samples a pooled probe pools, in file order.

        Where it names none these are all that have labels, but for those of `use` ``release`` if it
        is not of that use itself.

        Raises:
            SettingsError: it pools less than two probes, itself, one without labels, one that is
                kept for releases while it is not, one that there is not, or the same images in
                clusters of two kinds.

        >>> members = load_settings(Path("clipq.toml")).members("pooled")
        >>> [probe.name for probe in members]
        ['id', 'corruptions', 'shifted', 'backgrounds', 'four-groups']
        """
        asked = self.probe(pooled)
        problem = f"{self.path}: pooled probe {pooled!r}"
        for name in asked.probes:
            member = self.probe(name)
            if member.role not in POOLABLE:
                raise SettingsError(
                    f"{problem} pools {name!r}, which has the role {member.role!r}",
                    hint=f"roles whose samples can be pooled: {', '.join(POOLABLE)}",
                )
            if member.use and not asked.use:
                raise SettingsError(
                    f"{problem} pools {name!r}, which is for releases only",
                    hint=f"leave it out, or give {pooled!r} use = {member.use!r} as well",
                )
        found = tuple(
            probe
            for probe in self.probes
            if probe.role in POOLABLE
            and (probe.name in asked.probes or not asked.probes)
            and (asked.use or not probe.use)
        )
        if len(found) < 2 or len(asked.probes) > len(found):
            names = ", ".join(asked.probes or [probe.name for probe in found]) or "none"
            raise SettingsError(
                f"{problem} pools {names}", hint="name two or more probes with labels, each once"
            )
        by_place: dict[tuple[str, str], ProbeSettings] = {}
        for probe in found:
            other = by_place.setdefault((probe.source, probe.split), probe)
            if probe.cluster != other.cluster:
                raise SettingsError(
                    f"{problem} pools {other.name!r} with cluster = {other.cluster!r} and "
                    f"{probe.name!r} with cluster = {probe.cluster!r}, of the same images",
                    hint="give both the same: what belongs together in one does in the other",
                )
        return found

    @property
    def withheld(self) -> tuple[ProbeSettings, ...]:
        """The probes that the policy in force leaves unseen: those kept for releases."""
        return tuple(probe for probe in self.probes if probe.use not in ("", self.policy))

    @property
    def evaluated(self) -> tuple[ProbeSettings, ...]:
        """The probes that cases are made of, in file order."""
        return tuple(probe for probe in self.probes if probe.role not in UNEVALUATED)

    @property
    def in_distribution(self) -> ProbeSettings:
        """The probe whose classes make the zero-shot head."""
        return self.probes_of("in-distribution")[0]

    @property
    def calibration(self) -> ProbeSettings:
        """The split for activation ranges and the temperature; never evaluated on."""
        return self.probes_of("calibration")[0]

    @property
    def proxy(self) -> ProbeSettings | None:
        """The image-caption pairs to train on, never evaluated on; None where none is declared."""
        return next(iter(self.probes_of("proxy")), None)


def _named(items: Sequence[_Named], name: str, kind: str, path: Path) -> _Named:
    for item in items:
        if item.name == name:
            return item
    known = [item.name for item in items]
    raise SettingsError(f"unknown {kind} {name!r} in {path}", hint=did_you_mean(name, known))


def find_settings(start: Path) -> Path | None:
    """Return the nearest clipq.toml (or pyproject.toml with [tool.clipq]) at or above `start`.

    >>> find_settings(Path("docs/tutorial").resolve()).name  # looked for upwards
    'clipq.toml'
    """
    for folder in (start, *start.parents):
        if (folder / "clipq.toml").is_file():
            return folder / "clipq.toml"
        pyproject = folder / "pyproject.toml"
        with suppress(OSError):  # of another project, perhaps, that nobody may read
            if b"[tool.clipq" in read_file(pyproject):
                return pyproject
    return None


_PATHS = (*PATHS, "latency", "trained")
_GENERAL = (*_PATHS, "plugins", "policy", "device", "backend", "threads", "batch_size")
_OWN = tuple(name for name in ProbeSettings.__slots__ if name not in ("corruption", "attack"))
_OF_RESULTS = ("metrics", "group", "cluster", "classes", "templates")
"""Keys of a probe that say how results on it are asked for, divided or counted."""
_POOLED = ("name", "role", "probes", "metrics", "reason", "use")
"""Keys of a probe that pools others."""
_CORRUPTION = {"corruptions": "kinds", "severities": "severities", "draws": "draws"}
_ATTACK = {"attack": "name", "epsilon": "epsilon", "steps": "steps", "against": "against"}


def _flat(shape: type, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the keys by which a probe's own table gives what is nested in its settings."""
    held = keys(shape, *names.values())
    return {key: NotRequired[get_args(held[name])[0]] for key, name in names.items()}


@cache
def _file(*, data_alone: bool) -> Any:
    """Return the shape of the file; made when one is read, for it takes longer than `--help`."""
    nested: dict[str, Any] = _flat(CorruptionSettings, _CORRUPTION) | _flat(AttackSettings, _ATTACK)
    probe: Any = table("probe", keys(ProbeSettings, *_OWN) | nested)
    matrix: Any = table("matrix", keys(Settings, "quantizers", "metrics", "exclude", "kernels"))
    some = Meta(min_length=1, description="one or more tables [[models]]")
    models = Annotated[tuple[ModelSettings, ...], some]
    a_matrix = Annotated[matrix, Meta(description="a table [matrix]")]
    probes = Meta(min_length=1, description="one or more tables [[probes]]")
    artifact: Any = artifact_table()
    policy: Any = table("policy", {"blocks": Required[_Blocks]})
    profiles = table("profiles", dict.fromkeys(PROFILES, NotRequired[ProfileSettings]))
    return table(
        "settings",
        {
            "clipq": NotRequired[table("clipq", keys(Settings, *_GENERAL))],
            "models": NotRequired[models] if data_alone else Required[models],
            "probes": Required[Annotated[tuple[probe, ...], probes]],
            "artifacts": NotRequired[tuple[artifact, ...]],
            "matrix": NotRequired[a_matrix] if data_alone else Required[a_matrix],
            "profiles": NotRequired[profiles],
            "policies": NotRequired[Mapping[str, policy]],
            "statistics": NotRequired[StatisticsSettings],
            "history": NotRequired[HistorySettings],
            "limits": NotRequired[LimitSettings],
        },
    )


def load_settings(path: Path, *, data_alone: bool = False) -> Settings:
    """Read and check a settings file.

    Args:
        path: of clipq.toml, or of a pyproject.toml with [tool.clipq].
        data_alone: whether it may lack models and a matrix: what looks at data needs neither.

    Raises:
        SettingsError: the file is missing, is not TOML, or says something clipq does not know.

    >>> load_settings(Path("clipq.toml")).policy
    'ci'
    >>> load_settings(Path("docs/clipq.toml"))
    Traceback (most recent call last):
    clipq.errors.SettingsError: no settings file at ...clipq.toml
    ...
    """
    path = Path(os.path.realpath(path))  # `resolve` raises where a link leads to itself
    if not path.is_file():
        raise SettingsError(
            f"no settings file at {path}",
            hint="create clipq.toml (docs/settings.md shows a complete one), or pass its path",
        )
    document = Document(path, "TOML", SettingsError)
    content, place = document.parse(), ""
    if path.name == "pyproject.toml":
        tools = content.get("tool")
        content, place = tools.get("clipq") if isinstance(tools, dict) else None, "tool.clipq"
    found = document.shaped(content, _file(data_alone=data_alone), place)
    found |= found.pop("matrix", {}) | found.pop("clipq", {})
    if data_alone:
        found = {"models": (), "quantizers": ()} | found
    found["probes"] = tuple(
        _probe(given, document, f"{place}.probes[{at}]".strip("."))
        for at, given in enumerate(found["probes"])
    )
    models = [model.name for model in found["models"]]
    declared = found.get("artifacts", ())
    found["artifacts"] = tuple(read_artifacts(declared, models, document, place))
    if not (data_alone or declared or found["quantizers"]):
        hint = "name a quantizer, e.g. ['rtn:w8a8'], or declare [[artifacts]]"
        raise document.fail(f"{place}.matrix".strip("."), "quantizers = []", hint)
    found["policies"] = _policies(found.get("policies", {}), document, place)
    settings = Settings(path=path, **found)
    if settings.policy not in settings.policies:
        where = f"{place}.clipq.policy" if not place else f"{place}.policy"
        known = ", ".join(settings.policies)
        raise document.fail(where.strip("."), f"policy = {settings.policy!r}", f"known: {known}")
    for what, items in (("models", settings.models), ("probes", settings.probes)):
        names = [item.name for item in items]
        for at, name in enumerate(names):
            if name in names[:at]:
                where = f"{place}.{what}[{at}]".strip(".")
                raise document.fail(where, f"name {name!r} is given twice", "names are unique")
    for role in ("in-distribution", "calibration"):
        if (count := len(settings.probes_of(role))) != 1:
            raise document.fail(
                place,
                f"{count} probes have the role {role!r}",
                f"declare exactly one probe with role = {role!r}",
            )
    if (count := len(settings.probes_of("proxy"))) > 1:
        raise document.fail(
            place,
            f"{count} probes have the role 'proxy'",
            "declare at most one: what is trained on is part of what identifies a training",
        )
    for probe in settings.probes_of("pooled"):
        settings.members(probe.name)
    given = {key: getattr(settings, key) for key in _PATHS}
    return replace(settings, **{key: settings.root / at for key, at in given.items() if at})


def _policies(given: Mapping[str, Any], document: Document, place: str) -> dict[str, Policy]:
    """Return the policies of a file, with those that every project has."""
    found = dict(POLICIES)
    for name, table_ in given.items():
        try:
            found[name] = Policy(name, table_["blocks"])
        except SettingsError as error:
            where = f"{place}.policies.{name}.blocks".strip(".")
            raise document.fail(where, error.problem, error.hint or "") from None
    return found


def _probe(given: Mapping[str, Any], document: Document, place: str) -> ProbeSettings:
    """Return a probe, of which all has been checked but what its role asks for."""
    role = given["role"]
    corruption = {name: given[key] for key, name in _CORRUPTION.items() if key in given}
    attack = {name: given[key] for key, name in _ATTACK.items() if key in given}
    others = [key for key in given if key not in _POOLED]
    wrong = {
        f"role = 'pooled' and {', '.join(others)}": (
            role == "pooled" and others,
            "a pooled probe has no data of its own: it holds the samples of its `probes`",
        ),
        f"probes = {given.get('probes')!r} with role = {role!r}": (
            "probes" in given and role != "pooled",
            "only a probe with role = 'pooled' pools others",
        ),
        f"use = {given.get('use')!r} with role = {role!r}": (
            "use" in given and role in ("in-distribution", *UNEVALUATED),
            "every run may need its images: they make the zero-shot head, ranges and trainings",
        ),
        f"{', '.join(key for key in _OF_RESULTS if key in given)} with role = 'proxy'": (
            role == "proxy" and any(key in given for key in _OF_RESULTS),
            "images and captions are all that is taken of pairs to train on",
        ),
        "no source": (
            role != "pooled" and not given.get("source"),
            "source = 'kind:location'; docs/probes.md lists the kinds",
        ),
        f"distance of a probe with role {role!r}": (
            "distance" in given and role != "ood",
            "only probes out of distribution are near or far",
        ),
        f"{next((key for key in _CORRUPTION if key in given), '')} with role = {role!r}": (
            corruption and (role != "corruption" or "kinds" not in corruption),
            "images are corrupted where role = 'corruption' and `corruptions` names the kinds",
        ),
        f"role = {role!r} and attack = {given.get('attack')!r}": (
            (attack or role == "adversarial") and (role != "adversarial" or "name" not in attack),
            f"role = 'adversarial' and `attack` go together; attacks: {', '.join(ATTACKS)}",
        ),
    }
    for problem, (found, hint) in wrong.items():
        if found:
            raise document.fail(place, problem, hint)
    return ProbeSettings(
        **{name: given[name] for name in _OWN if name in given},
        corruption=CorruptionSettings(**corruption) if corruption else None,
        attack=AttackSettings(**attack) if attack else None,
    )
