"""From a parsed settings document to checked values; every complaint names file, table and key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clipq.errors import SettingsError, did_you_mean
from clipq.settings import (
    ATTACKS,
    BACKENDS,
    CORRECTIONS,
    POLICIES,
    PROFILES,
    ROLES,
    SEVERITIES,
    AttackSettings,
    CorruptionSettings,
    HistorySettings,
    ModelSettings,
    ProbeSettings,
    ProfileSettings,
    Settings,
    StatisticsSettings,
)

__all__ = ["SettingsReader"]

_NAME = "letters, digits, '.', '_' and '-'"
_CORRUPTION = ("corruptions", "severities", "draws")
_ATTACK = ("attack", "epsilon", "steps", "against")


class SettingsReader:
    """Checked access to a parsed document.

    Args:
        path: the file, for messages and as the start of relative paths.
        document: what it says.
    """

    def __init__(self, path: Path, document: Mapping[str, Any]) -> None:
        self.path = path
        self.document = document

    def fail(self, where: str, problem: str, hint: str) -> SettingsError:
        return SettingsError(f"{self.path}, {where}: {problem}", hint=hint)

    def settings(self) -> Settings:
        known = ("clipq", "models", "probes", "matrix", "profiles", "statistics", "history")
        self.only(self.document, "top level", known)
        general = self.table("clipq", required=False)
        matrix = self.table("matrix", required=True)
        self.only(matrix, "[matrix]", ("quantizers", "metrics", "exclude", "kernels"))
        paths = ("baselines", "margins", "waivers", "cache", "report")
        numbers = ("threads", "batch_size")
        others = ("plugins", "policy", "device", "backend", "latency")
        self.only(general, "[clipq]", (*paths, *numbers, *others))
        chosen: dict[str, Any] = {
            key: Path(self.text(general, "[clipq]", key)) for key in paths if key in general
        }
        chosen |= {key: self.whole(general, "[clipq]", key) for key in numbers if key in general}
        if "plugins" in general:
            chosen["plugins"] = self.texts(general, "[clipq]", "plugins")
        if "device" in general:
            chosen["device"] = self.text(general, "[clipq]", "device")
        if "backend" in general:
            chosen["backend"] = self.one_of(general, "[clipq]", "backend", BACKENDS)
        if "policy" in general:
            chosen["policy"] = self.one_of(general, "[clipq]", "policy", POLICIES)
        for key in ("metrics", "exclude", "kernels"):
            if key in matrix:
                chosen[key] = self.texts(matrix, "[matrix]", key)
        settings = Settings(
            path=self.path,
            models=self.models(),
            probes=self.probes(),
            quantizers=self.texts(matrix, "[matrix]", "quantizers"),
            statistics=self.statistics(),
            profiles=self.profiles(),
            history=self.history(),
            **chosen,
        )
        if not settings.quantizers:
            raise self.fail("[matrix]", "quantizers is empty", "name at least one, e.g. 'rtn:w8a8'")
        under_root = {key: settings.root / getattr(settings, key) for key in paths}
        if "latency" in general:
            under_root["latency"] = settings.root / self.text(general, "[clipq]", "latency")
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

    def history(self) -> HistorySettings:
        table, where = self.table("history", required=False), "[history]"
        self.only(table, where, tuple(HistorySettings.__dataclass_fields__))
        chosen: dict[str, Any] = {
            key: self.text(table, where, key) for key in ("store", "commit_url") if key in table
        }
        chosen |= {
            key: self.truth(table, where, key) for key in ("record", "predictions") if key in table
        }
        return HistorySettings(**chosen)

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
            found.append(self.probe(entry, where))
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

    def probe(self, entry: Mapping[str, Any], where: str) -> ProbeSettings:
        texts = ("split", "group", "reason", "classes", "templates")
        counts = ("samples", "unreadable")
        own = ("name", "role", "source", "metrics", "distance")
        self.only(entry, where, (*own, *texts, *counts, *_CORRUPTION, *_ATTACK))
        role = self.one_of(entry, where, "role", ROLES)
        chosen: dict[str, Any] = {
            key: self.text(entry, where, key) for key in texts if key in entry
        }
        for key in counts:
            if key in entry:
                chosen[key] = self.whole(entry, where, key, least=0)
        if "metrics" in entry:
            chosen["metrics"] = self.texts(entry, where, "metrics")
        if "distance" in entry:
            if role != "ood":
                raise self.fail(
                    where,
                    f"distance of a probe with role {role!r}",
                    "only probes out of distribution are near or far",
                )
            chosen["distance"] = self.one_of(entry, where, "distance", ("near", "far"))
        return ProbeSettings(
            self.name(entry, where),
            role,
            self.text(entry, where, "source"),
            corruption=self.corruption(entry, where, role),
            attack=self.attack(entry, where, role),
            **chosen,
        )

    def corruption(
        self, entry: Mapping[str, Any], where: str, role: str
    ) -> CorruptionSettings | None:
        given = [key for key in _CORRUPTION if key in entry]
        if not given:
            return None
        if role != "corruption" or "corruptions" not in entry:
            raise self.fail(
                where,
                f"{given[0]} with role = {role!r}",
                "images are corrupted where role = 'corruption' and `corruptions` names the kinds",
            )
        chosen: dict[str, Any] = {}
        if "severities" in entry:
            value = entry["severities"]
            known = isinstance(value, list) and value and all(s in SEVERITIES for s in value)
            if not known or any(isinstance(s, bool) for s in value):
                raise self.fail(
                    where, f"severities = {value!r}", "give a list of whole numbers from 1 to 5"
                )
            chosen["severities"] = tuple(value)
        if "draws" in entry:
            chosen["draws"] = self.whole(entry, where, "draws", least=0)
        return CorruptionSettings(self.texts(entry, where, "corruptions"), **chosen)

    def attack(self, entry: Mapping[str, Any], where: str, role: str) -> AttackSettings | None:
        given = [key for key in _ATTACK if key in entry]
        if not given and role != "adversarial":
            return None
        if role != "adversarial" or "attack" not in entry:
            raise self.fail(
                where,
                f"role = {role!r} and attack = {entry.get('attack')!r}",
                "role = 'adversarial' and `attack` go together; attacks: " + ", ".join(ATTACKS),
            )
        chosen: dict[str, Any] = {}
        if "epsilon" in entry:
            chosen["epsilon"] = self.between(entry, where, "epsilon", 0.0, 255.0)
        if "steps" in entry:
            chosen["steps"] = self.whole(entry, where, "steps")
        if "against" in entry:
            chosen["against"] = self.one_of(entry, where, "against", ("itself", "fp32"))
        return AttackSettings(self.one_of(entry, where, "attack", ATTACKS), **chosen)

    def profiles(self) -> dict[str, ProfileSettings]:
        tables, found = self.table("profiles", required=False), {}
        self.only(tables, "[profiles]", PROFILES)
        known = tuple(ProfileSettings.__dataclass_fields__)
        for name, table in tables.items():
            where = f"[profiles.{name}]"
            if not isinstance(table, Mapping):
                raise self.fail(where, f"{table!r}", "write it as a table of lists of globs")
            self.only(table, where, known)
            found[name] = ProfileSettings(**{key: self.texts(table, where, key) for key in table})
        return found

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

    def truth(self, table: Mapping[str, Any], where: str, key: str) -> bool:
        value = table[key]
        if not isinstance(value, bool):
            raise self.fail(where, f"{key} = {value!r}", f"{key} must be true or false")
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
