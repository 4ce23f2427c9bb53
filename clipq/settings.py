"""`clipq.toml` (or `[tool.clipq]` in pyproject.toml) as frozen values.

Reading is strict: an unknown key, a wrong type or a missing table is a `SettingsError` that names
the file, the key, the value and what is allowed. Paths are relative to the settings file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from clipq.errors import SettingsError, did_you_mean

__all__ = [
    "ATTACKS",
    "BACKENDS",
    "CORRECTIONS",
    "POLICIES",
    "PROFILES",
    "ROLES",
    "SEVERITIES",
    "AttackSettings",
    "CorruptionSettings",
    "HistorySettings",
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
    "retrieval",
    "shift",
    "spurious",
)
PROFILES = ("quick", "default", "full")
ATTACKS = ("fgsm", "pgd", "apgd", "square")
SEVERITIES = (1, 2, 3, 4, 5)
POLICIES = ("ci", "release")
BACKENDS = ("auto", "reference", "triton")
CORRECTIONS = ("holm", "benjamini-hochberg", "none")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One `[[models]]` table: a short name and an open_clip source."""

    name: str
    source: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class CorruptionSettings:
    """How a probe's images are corrupted as they are read.

    Args:
        kinds: names or globs of corruptions; `clipq.data.corruption` knows them.
        severities: each from 1 to 5.
        draws: corrupted versions of each image, dealt out evenly over kinds and severities; 0 for
            every kind at every severity.
    """

    kinds: tuple[str, ...]
    severities: tuple[int, ...] = SEVERITIES
    draws: int = 0


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
    """

    name: str
    epsilon: float = 2.0
    steps: int = 10
    against: str = "itself"


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """One `[[probes]]` table: a labelled evaluation set with a role.

    Args:
        name: as in case ids.
        role: one of `ROLES`.
        source: ``kind:location`` of the data.
        split: which split of it.
        group: attribute that divides samples; "" for none.
        metrics: globs; which of the role's metrics are computed.
        reason: one line: why this probe is here.
        distance: of an out-of-distribution probe: ``near``, ``far`` or "".
        samples: evaluate only so many samples, always the same; 0 for all.
        unreadable: most images that may fail to decode before the probe fails.
        classes: a shipped class list or a file of one class a line, instead of the source's own.
        templates: likewise of prompt templates.
        corruption: None for images as they are.
        attack: None for images as they are.
    """

    name: str
    role: str
    source: str
    split: str = "test"
    group: str = ""
    metrics: tuple[str, ...] = ("*",)
    reason: str = ""
    distance: str = ""
    samples: int = 0
    unreadable: int = 0
    classes: str = ""
    templates: str = ""
    corruption: CorruptionSettings | None = None
    attack: AttackSettings | None = None


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """One `[profiles.NAME]` table: the part of the matrix that a kind of run takes, as globs."""

    models: tuple[str, ...] = ()
    quantizers: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StatisticsSettings:
    """The `[statistics]` table: how sure a verdict must be.

    Args:
        alpha: two-sided error rate; a pass or a failure is wrong with probability alpha / 2 each.
        power: probability with which `clipq power` promises a decision.
        correction: how false alarms are controlled over the cases of a run.
        replicates: bootstrap replicates per case.
        seed: of every resample; recorded with the run.
        noise_factor: a margin is never below this many times FP32's own noise.
        disagreement: share of samples whose correctness a quantizer is assumed to change, where
            planning has nothing measured.
    """

    alpha: float = 0.05
    power: float = 0.95
    correction: str = "holm"
    replicates: int = 500
    seed: int = 20250921
    noise_factor: float = 3.0
    disagreement: float = 0.01

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
    """

    store: str = "sqlite:///.clipq/history.db"
    record: bool = False
    predictions: bool = True
    commit_url: str = ""


_Named = TypeVar("_Named", ModelSettings, ProbeSettings)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `clipq.toml` says; `root` is the folder that its paths are relative to."""

    path: Path
    models: tuple[ModelSettings, ...]
    probes: tuple[ProbeSettings, ...]
    quantizers: tuple[str, ...]
    metrics: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    baselines: Path = Path("baselines")
    margins: Path = Path("baselines/margins.toml")
    waivers: Path = Path("baselines/waivers.toml")
    latency: Path | None = None
    cache: Path = Path(".clipq/cache")
    report: Path = Path(".clipq/report")
    plugins: tuple[str, ...] = ()
    policy: str = "ci"
    device: str = "cpu"
    backend: str = "auto"
    threads: int = 1
    batch_size: int = 256
    statistics: StatisticsSettings = StatisticsSettings()
    profiles: Mapping[str, ProfileSettings] = field(default_factory=dict)
    history: HistorySettings = HistorySettings()

    @property
    def root(self) -> Path:
        return self.path.parent

    def model(self, name: str) -> ModelSettings:
        """Return the model called `name`."""
        return _named(self.models, name, "model", self.path)

    def probe(self, name: str) -> ProbeSettings:
        """Return the probe called `name`."""
        return _named(self.probes, name, "probe", self.path)

    def probes_of(self, role: str) -> tuple[ProbeSettings, ...]:
        """Return the probes with a role, in file order."""
        return tuple(probe for probe in self.probes if probe.role == role)

    @property
    def in_distribution(self) -> ProbeSettings:
        """The probe whose classes make the zero-shot head."""
        return self.probes_of("in-distribution")[0]

    @property
    def calibration(self) -> ProbeSettings:
        """The split for activation ranges and the temperature; never evaluated on."""
        return self.probes_of("calibration")[0]


def _named(items: Sequence[_Named], name: str, kind: str, path: Path) -> _Named:
    for item in items:
        if item.name == name:
            return item
    known = [item.name for item in items]
    raise SettingsError(f"unknown {kind} {name!r} in {path}", hint=did_you_mean(name, known))


def find_settings(start: Path) -> Path | None:
    """Return the nearest clipq.toml (or pyproject.toml with [tool.clipq]) at or above `start`."""
    for folder in (start, *start.parents):
        if (folder / "clipq.toml").is_file():
            return folder / "clipq.toml"
        pyproject = folder / "pyproject.toml"
        if pyproject.is_file() and "[tool.clipq" in pyproject.read_text(encoding="utf-8"):
            return pyproject
    return None


def load_settings(path: Path) -> Settings:
    """Read and check a settings file.

    Raises:
        SettingsError: the file is missing, is not TOML, or says something clipq does not know.
    """
    path = path.resolve()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"no settings file at {path}",
            hint="create clipq.toml (docs/settings.md shows a complete one), or pass its path",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"{path} cannot be read as TOML: {error}", hint="correct the file at that place"
        ) from error
    if path.name == "pyproject.toml":
        document = document.get("tool", {}).get("clipq", {})
    from clipq.settings_reader import SettingsReader

    return SettingsReader(path, document).settings()
