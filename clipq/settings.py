"""`clipq.toml` (or `[tool.clipq]` in pyproject.toml) as frozen values.

Reading is strict: an unknown key, a wrong type or a missing table is a `SettingsError` that names
the file, the key, the value and what is allowed. Paths are relative to the settings file.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from clipq.errors import SettingsError, did_you_mean

__all__ = [
    "CORRECTIONS",
    "POLICIES",
    "ROLES",
    "ModelSettings",
    "ProbeSettings",
    "Settings",
    "StatisticsSettings",
    "find_settings",
    "load_settings",
]

ROLES = ("calibration", "in-distribution", "ood")
POLICIES = ("ci", "release")
CORRECTIONS = ("holm", "benjamini-hochberg", "none")
_NAME = "letters, digits, '.', '_' and '-'"


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One `[[models]]` table: a short name and an open_clip source."""

    name: str
    source: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """One `[[probes]]` table: a labelled evaluation set with a role."""

    name: str
    role: str
    source: str
    split: str = "test"
    group: str = ""


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
    baselines: Path = Path("baselines")
    margins: Path = Path("baselines/margins.toml")
    cache: Path = Path(".clipq/cache")
    report: Path = Path(".clipq/report")
    plugins: tuple[str, ...] = ()
    policy: str = "ci"
    device: str = "cpu"
    threads: int = 1
    batch_size: int = 256
    statistics: StatisticsSettings = StatisticsSettings()

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
    return _Reader(path, document).settings()


class _Reader:
    """Checked access to the parsed document; every complaint names file, table and key."""

    def __init__(self, path: Path, document: Mapping[str, Any]) -> None:
        self.path = path
        self.document = document

    def fail(self, where: str, problem: str, hint: str) -> SettingsError:
        return SettingsError(f"{self.path}, {where}: {problem}", hint=hint)

    def settings(self) -> Settings:
        self.only(self.document, "top level", ("clipq", "models", "probes", "matrix", "statistics"))
        general = self.table("clipq", required=False)
        matrix = self.table("matrix", required=True)
        self.only(matrix, "[matrix]", ("quantizers", "metrics", "exclude"))
        paths = ("baselines", "margins", "cache", "report")
        numbers = ("threads", "batch_size")
        self.only(general, "[clipq]", (*paths, *numbers, "plugins", "policy", "device"))
        chosen: dict[str, Any] = {
            key: Path(self.text(general, "[clipq]", key)) for key in paths if key in general
        }
        chosen |= {key: self.whole(general, "[clipq]", key) for key in numbers if key in general}
        if "plugins" in general:
            chosen["plugins"] = self.texts(general, "[clipq]", "plugins")
        if "device" in general:
            chosen["device"] = self.text(general, "[clipq]", "device")
        if "policy" in general:
            chosen["policy"] = self.one_of(general, "[clipq]", "policy", POLICIES)
        for key in ("metrics", "exclude"):
            if key in matrix:
                chosen[key] = self.texts(matrix, "[matrix]", key)
        settings = Settings(
            path=self.path,
            models=self.models(),
            probes=self.probes(),
            quantizers=self.texts(matrix, "[matrix]", "quantizers"),
            statistics=self.statistics(),
            **chosen,
        )
        if not settings.quantizers:
            raise self.fail("[matrix]", "quantizers is empty", "name at least one, e.g. 'rtn:w8a8'")
        under_root = {key: settings.root / getattr(settings, key) for key in paths}
        return replace(settings, **under_root)

    def statistics(self) -> StatisticsSettings:
        table, where = self.table("statistics", required=False), "[statistics]"
        self.only(table, where, tuple(StatisticsSettings.__dataclass_fields__))
        chosen: dict[str, Any] = {}
        for key, low, high in (
            ("alpha", 0.0, 0.5),
            ("power", 0.5, 1.0),
            ("disagreement", 0.0, 1.0),
            ("noise_factor", 0.0, math.inf),
        ):
            if key in table:
                chosen[key] = self.between(table, where, key, low, high)
        if "correction" in table:
            chosen["correction"] = self.one_of(table, where, "correction", CORRECTIONS)
        if "seed" in table:
            chosen["seed"] = self.whole(table, where, "seed", least=0)
        if "replicates" in table:
            chosen["replicates"] = self.whole(table, where, "replicates", least=100)
        return StatisticsSettings(**chosen)

    def models(self) -> tuple[ModelSettings, ...]:
        found = []
        for index, entry in enumerate(self.tables("models")):
            where = f"[[models]] number {index + 1}"
            self.only(entry, where, ("name", "source", "sha256"))
            sha256 = self.text(entry, where, "sha256") if "sha256" in entry else ""
            found.append(
                ModelSettings(self.name(entry, where), self.text(entry, where, "source"), sha256)
            )
        self.unique([model.name for model in found], "[[models]]")
        return tuple(found)

    def probes(self) -> tuple[ProbeSettings, ...]:
        found = []
        for index, entry in enumerate(self.tables("probes")):
            where = f"[[probes]] number {index + 1}"
            self.only(entry, where, ("name", "role", "source", "split", "group"))
            optional = {
                key: self.text(entry, where, key) for key in ("split", "group") if key in entry
            }
            found.append(
                ProbeSettings(
                    self.name(entry, where),
                    self.one_of(entry, where, "role", ROLES),
                    self.text(entry, where, "source"),
                    **optional,
                )
            )
        self.unique([probe.name for probe in found], "[[probes]]")
        for role in ("in-distribution", "calibration"):
            count = sum(probe.role == role for probe in found)
            if count != 1:
                raise self.fail(
                    "[[probes]]",
                    f"{count} probes have the role {role!r}",
                    f"declare exactly one probe with role = {role!r}",
                )
        return tuple(found)

    def table(self, key: str, *, required: bool) -> Mapping[str, Any]:
        value = self.document.get(key)
        if value is None and not required:
            return {}
        if not isinstance(value, Mapping):
            raise self.fail("top level", f"no table [{key}]", f"add a table [{key}]")
        return value

    def tables(self, key: str) -> Sequence[Mapping[str, Any]]:
        value = self.document.get(key)
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(entry, Mapping) for entry in value)
        ):
            raise self.fail("top level", f"no [[{key}]] tables", f"add at least one [[{key}]]")
        return value

    def only(self, table: Mapping[str, Any], where: str, known: Sequence[str]) -> None:
        for key in table:
            if key not in known:
                raise self.fail(where, f"unknown key {key!r}", did_you_mean(key, known))

    def text(self, table: Mapping[str, Any], where: str, key: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value:
            raise self.fail(where, f"{key} = {value!r}", f"{key} must be a non-empty text")
        return value

    def texts(self, table: Mapping[str, Any], where: str, key: str) -> tuple[str, ...]:
        value = table.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fail(where, f"{key} = {value!r}", f"{key} must be a list of texts")
        return tuple(value)

    def whole(self, table: Mapping[str, Any], where: str, key: str, *, least: int = 1) -> int:
        value = table[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.fail(where, f"{key} = {value!r}", f"{key} must be a whole number >= {least}")
        return value

    def between(
        self, table: Mapping[str, Any], where: str, key: str, low: float, high: float
    ) -> float:
        value = table[key]
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known or not low < value < high:
            raise self.fail(
                where, f"{key} = {value!r}", f"{key} must be a number above {low} and below {high}"
            )
        return float(value)

    def one_of(self, table: Mapping[str, Any], where: str, key: str, allowed: Sequence[str]) -> str:
        value = self.text(table, where, key)
        if value not in allowed:
            raise self.fail(where, f"{key} = {value!r}", did_you_mean(value, allowed))
        return value

    def name(self, table: Mapping[str, Any], where: str) -> str:
        value = self.text(table, where, "name")
        if not all((c.isalnum() and c.isascii()) or c in "._-" for c in value):
            raise self.fail(where, f"name = {value!r}", f"a name holds {_NAME}")
        return value

    def unique(self, names: Sequence[str], where: str) -> None:
        for name in names:
            if names.count(name) > 1:
                raise self.fail(where, f"name {name!r} is given twice", "names are unique")
