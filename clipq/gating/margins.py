"""Margins: how much worse than FP32 is still acceptable, per metric and format class.

A reviewed TOML file. `[[margin]]` tables are read in order and the last one that matches a case
wins; `[[expected-failure]]` names combinations that are known to break, with the reason.

    [[margin]]
    formats = "*"              # glob over the format class: w8, w8a8, w4 ...
    [margin.metrics]
    top1 = 0.01                # glob over METRIC, or over PROBE.METRIC where it holds a dot
    "auroc-*" = 0.02

    [[expected-failure]]
    cases = ["*/rtn:w4a4/id.top1"]
    reason = "naive 4-bit activations collapse"
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from clipq.cases import Case
from clipq.errors import SettingsError, did_you_mean
from clipq.quant import QuantizerSpec

__all__ = ["ExpectedFailure", "Margins", "load_margins"]


@dataclass(frozen=True, slots=True)
class MarginRule:
    """One `[[margin]]` table."""

    models: str
    formats: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ExpectedFailure:
    """Cases known to fail, as globs over case ids, and why."""

    cases: tuple[str, ...]
    reason: str

    def matches(self, case: Case) -> bool:
        return any(fnmatchcase(case.id, pattern) for pattern in self.cases)


@dataclass(frozen=True, slots=True)
class Margins:
    """The margin table and the expected failures of one file."""

    path: Path
    rules: tuple[MarginRule, ...]
    expected_failures: tuple[ExpectedFailure, ...]

    def margin(self, case: Case) -> float:
        """Return the margin of a case, in its metric's unit.

        Raises:
            SettingsError: no rule gives one.
        """
        spec = QuantizerSpec.parse(case.quantizer)
        found: float | None = None
        for rule in self.rules:
            if not fnmatchcase(case.model, rule.models):
                continue
            if not fnmatchcase(spec.format_class, rule.formats):
                continue
            for pattern, margin in rule.metrics.items():
                if fnmatchcase(case.key if "." in pattern else case.metric, pattern):
                    found = margin
        if found is None:
            raise SettingsError(
                f"{self.path} gives no margin for {case.id} (format class {spec.format_class!r})",
                hint="add the metric to a [[margin]] table; formats = '*' covers every quantizer",
            )
        return found

    def check_against(self, cases: Sequence[Case]) -> None:
        """Refuse what the whole matrix leaves without a margin, or an excuse without a case.

        Raises:
            SettingsError: a case has no margin, or an expected failure names no case.
        """
        for case in cases:
            self.margin(case)
        for entry in self.expected_failures:
            for pattern in entry.cases:
                if not any(fnmatchcase(case.id, pattern) for case in cases):
                    raise SettingsError(
                        f"{self.path}: expected failure {pattern!r} matches no case",
                        hint="correct or remove it; `clipq list cases` shows the matrix",
                    )

    def expected_failure(self, case: Case) -> ExpectedFailure | None:
        """Return why this case is expected to fail, or None."""
        return next((entry for entry in self.expected_failures if entry.matches(case)), None)


def load_margins(path: Path) -> Margins:
    """Read a margin file.

    Raises:
        SettingsError: it is missing, is not TOML, or holds something clipq does not know.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"margin file {path} cannot be read: {error}",
            hint="docs/margins.md shows a complete one; `margins` in clipq.toml says where it lies",
        ) from error
    _only(document, ("margin", "expected-failure"), path, "top level")
    return Margins(
        path,
        tuple(_rule(entry, path) for entry in _tables(document, "margin", path)),
        tuple(_expected(entry, path) for entry in _tables(document, "expected-failure", path)),
    )


def _tables(document: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    entries = document.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise SettingsError(f"{path}: {key} is not a list of tables", hint=f"write [[{key}]]")
    return entries


def _rule(entry: Mapping[str, Any], path: Path) -> MarginRule:
    _only(entry, ("models", "formats", "metrics"), path, "[[margin]]")
    table = entry.get("metrics")
    if not isinstance(table, Mapping) or not table:
        raise SettingsError(f"{path}: a [[margin]] without metrics", hint="add [margin.metrics]")
    for name, value in table.items():
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known or not math.isfinite(value):
            raise SettingsError(
                f"{path}: margin of {name!r} is {value!r}",
                hint="a margin is a finite number in the metric's unit",
            )
    return MarginRule(
        str(entry.get("models", "*")),
        str(entry.get("formats", "*")),
        {name: float(value) for name, value in table.items()},
    )


def _expected(entry: Mapping[str, Any], path: Path) -> ExpectedFailure:
    _only(entry, ("cases", "reason"), path, "[[expected-failure]]")
    cases, reason = entry.get("cases"), entry.get("reason")
    if not isinstance(cases, list) or not cases or not isinstance(reason, str) or not reason:
        raise SettingsError(
            f"{path}: an [[expected-failure]] with cases = {cases!r}, reason = {reason!r}",
            hint="cases is a list of globs over case ids, reason a text that says why they fail",
        )
    return ExpectedFailure(tuple(map(str, cases)), reason)


def _only(table: Mapping[str, Any], known: tuple[str, ...], path: Path, where: str) -> None:
    for key in table:
        if key not in known:
            raise SettingsError(
                f"{path}, {where}: unknown key {key!r}", hint=did_you_mean(key, known)
            )
