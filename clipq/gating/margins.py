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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, NotRequired

from clipq.cases import Case
from clipq.errors import SettingsError
from clipq.evaluation.candidate_facts import format_class
from clipq.globs import matches_any
from clipq.metrics import Metric, metrics
from clipq.settings import Settings
from clipq.shapes import Document, Finite, Meta, Text, table

__all__ = ["ExpectedFailure", "Margins", "check_margin", "load_margins"]

_UNBOUNDED = 1e4
"""Beyond this no margin or limit of an unbounded metric says anything."""
_LARGE = 0.75
"""Of a metric's range: so large a margin judges nothing, however little FP32 has left to lose."""


@dataclass(frozen=True, slots=True)
class MarginRule:
    """One `[[margin]]` table."""

    metrics: Annotated[
        Mapping[str, Annotated[Finite, Meta(description="a finite number in the metric's unit")]],
        Meta(min_length=1, description="a table [margin.metrics]"),
    ]
    models: Text = "*"
    formats: Text = "*"


@dataclass(frozen=True, slots=True)
class ExpectedFailure:
    """Cases known to fail, as globs over case ids, and why.

    >>> collapse = ExpectedFailure(("*/rtn:w4a4/id.*",), "naive 4-bit activations collapse")
    >>> [collapse.matches(Case.parse(f"vit/rtn:{form}/id.ece")) for form in ("w4a4", "w8a8")]
    [True, False]
    """

    cases: Annotated[
        tuple[Text, ...], Meta(min_length=1, description="a list of globs over case ids")
    ]
    reason: Annotated[Text, Meta(description="a text that says why they fail")]

    def matches(self, case: Case) -> bool:
        return matches_any(case.id, self.cases)


@dataclass(frozen=True, slots=True)
class Margins:
    """The margin table and the expected failures of one file.

    >>> rules = MarginRule({"*": 0.05, "top1": 0.02}), MarginRule({"top1": 0.03}, formats="w4*")
    >>> margins = Margins(Path("margins.toml"), rules, ())
    >>> cases = [Case.parse(f"vit/rtn:{form}/id.top1") for form in ("w8a8", "w4a8")]
    >>> [margins.margin(case) for case in cases]  # the last rule that matches wins
    [0.02, 0.03]
    """

    path: Path
    rules: tuple[MarginRule, ...]
    expected_failures: tuple[ExpectedFailure, ...]
    settings: Settings | None = None
    _rows: dict[tuple[str, str], list[tuple[str, float]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def margin(self, case: Case, baseline: float | None = None) -> float:
        """Return the margin of a case, in its metric's unit.

        Args:
            case: which.
            baseline: FP32's value of its metric, where it is at hand.

        Raises:
            SettingsError: no rule gives one, or no loss can be larger.
        """
        bits, key, metric = format_class(case.candidate, self.settings), case.key, case.metric
        matching = (
            margin
            for pattern, margin in self._last_first(case.model, bits)
            if fnmatchcase(key if "." in pattern else metric, pattern)
        )
        found = next(matching, None)
        if found is None:
            raise SettingsError(
                f"{self.path} gives no margin for {case.id} (format class {bits!r})",
                hint="add the metric to a [[margin]] table; formats = '*' covers every quantizer",
            )
        check_margin(metrics.get(metric), found, where=f"{self.path}: {key}", baseline=baseline)
        return found

    def _last_first(self, model: str, bits: str) -> list[tuple[str, float]]:
        """Return the patterns that hold for a model and a format class, the last one first."""
        if (model, bits) not in self._rows:
            rules = [
                rule
                for rule in self.rules
                if fnmatchcase(model, rule.models) and fnmatchcase(bits, rule.formats)
            ]
            rows = [row for rule in rules for row in rule.metrics.items()]
            self._rows[model, bits] = rows[::-1]
        return self._rows[model, bits]

    def check_against(
        self,
        cases: Sequence[Case],
        baselines: Mapping[str, Mapping[str, float | None]] = MappingProxyType({}),
    ) -> None:
        """Refuse what the whole matrix leaves without a margin, or an excuse without a case.

        Args:
            cases: of the whole matrix.
            baselines: FP32's values by model and ``probe.metric``, as far as there are any.

        Raises:
            SettingsError: a case has no margin, or one that no loss can exceed; or an expected
                failure names no case.
        """
        for case in cases:
            self.margin(case, baselines.get(case.model, {}).get(case.key))
        ids = [case.id for case in cases]
        for entry in self.expected_failures:
            for pattern in entry.cases:
                if not any(fnmatchcase(one, pattern) for one in ids):
                    raise SettingsError(
                        f"{self.path}: expected failure {pattern!r} matches no case",
                        hint="correct or remove it; `clipq list cases` shows the matrix",
                    )

    def expected_failure(self, case: Case) -> ExpectedFailure | None:
        """Return why this case is expected to fail, or None."""
        return next((entry for entry in self.expected_failures if entry.matches(case)), None)


def check_margin(
    metric: Metric, margin: float, *, where: str, baseline: float | None = None
) -> None:
    """Refuse a margin that no value of the metric can be held against.

    From FP32's value a bounded metric can lose so much and no more: a margin that large passes
    whatever a quantizer does. Where FP32 itself lies in the worse half of the range, that is not
    the margin's fault unless it is three quarters of the range.

    Args:
        metric: what it is of.
        margin: in the metric's unit.
        where: what a message begins with.
        baseline: FP32's value, where it is at hand.

    Raises:
        SettingsError: no loss is larger, or it is a limit outside the metric's range.

    >>> check_margin(metrics.get("top1"), 1e308, where="margins.toml: id.top1")
    Traceback (most recent call last):
    clipq.errors.SettingsError: margins.toml: id.top1: a margin of 1e+308 fraction
      fix: a loss of top1 lies in [-1, 1]: such a margin judges nothing
    """
    low, high = metric.range
    if metric.judged_by == "limit":
        low, high = max(low, -_UNBOUNDED), min(high, _UNBOUNDED)
        allowed = f"the limit of {metric.name} is a value of it, in [{low:g}, {high:g}]"
    else:
        largest = min(high - low, _UNBOUNDED)
        low, high = -largest, math.nextafter(largest, 0.0)  # the largest loss is not within it
        allowed = f"a loss of {metric.name} lies in [{low:g}, {largest:g}]"
    if not low <= margin <= high:
        raise SettingsError(
            f"{where}: a margin of {margin:g} {metric.unit}",
            hint=f"{allowed}: such a margin judges nothing",
        )
    if baseline is None or metric.judged_by == "limit":
        return
    low, high = metric.range
    furthest = max(abs(low), abs(high))
    worst, scale = {
        "lower": (high, high - low),
        "higher": (low, high - low),
        "zero": (furthest, furthest),
    }[metric.direction]
    reachable = metric.loss(baseline, worst)
    hopeless = reachable < scale / 2 and margin < _LARGE * scale
    if margin >= reachable and not hopeless:
        raise SettingsError(
            f"{where}: a margin of {margin:g} {metric.unit}, and from FP32's {baseline:.4g} no "
            f"quantizer can lose more than {reachable:.4g}",
            hint="such a margin passes everything: say how much loss is acceptable, or leave the "
            "metric out of the matrix",
        )


def _refuse_contradictions(path: Path, rules: Sequence[MarginRule]) -> None:
    """Refuse two margins for the very same cases: the later would win without a word."""
    given: dict[tuple[str, str, str], float] = {}
    for rule in rules:
        for pattern, margin in rule.metrics.items():
            key = rule.models, rule.formats, pattern
            if given.setdefault(key, margin) != margin:
                raise SettingsError(
                    f"{path}: {pattern!r} has the margins {given[key]:g} and {margin:g}, both for "
                    f"models = {rule.models!r} and formats = {rule.formats!r}",
                    hint="remove one: of tables that differ in models or formats the last wins, "
                    "of equal ones none should",
                )


_FILE = table(
    "margins",
    {
        "margin": NotRequired[tuple[MarginRule, ...]],
        "expected-failure": NotRequired[tuple[ExpectedFailure, ...]],
    },
)


def load_margins(path: Path, settings: Settings | None = None) -> Margins:
    """Read a margin file.

    Args:
        path: of the file.
        settings: which artifacts there are, whose formats they say; None for none.

    Raises:
        SettingsError: it is missing, is not TOML, or holds something clipq does not know.

    >>> margins = load_margins(Path("baselines/margins.toml"))
    >>> margins.margin(Case.parse("vit-clean/rtn:w8a8/id.top1"))
    0.01
    """
    fix = "docs/margins.md shows a complete one; `margins` in clipq.toml says where it lies"
    found = Document(path, "TOML", SettingsError, fix).read(_FILE)
    rules = found.get("margin", ())
    _refuse_contradictions(path, rules)
    return Margins(path, rules, found.get("expected-failure", ()), settings)
