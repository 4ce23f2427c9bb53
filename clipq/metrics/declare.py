"""What a metric is: a name with unit, direction, range and version, and a lazy function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal, TypeVar

import numpy as np

from clipq.errors import ClipqError, did_you_mean
from clipq.estimate import Direction, loss
from clipq.metrics.predictions import Predictions
from clipq.registry import Registry
from clipq.statistic_kinds import KINDS

__all__ = ["Direction", "Metric", "Statistic", "metrics"]

_Value = TypeVar("_Value", float, np.ndarray)


@dataclass(frozen=True, slots=True)
class Statistic:
    """How a metric follows from columns, so that thousands of resamples of it cost little.

    Args:
        kind: ``mean`` of a column; ``mean-share``, the mean of a column of shares in [0, 1], of
            captions found, say; ``mean-gap``, the mean of one minus that of another; ``share`` of
            samples whose column is below `below`; ``ece``, ``ace``, ``mce`` of (confidence,
            correct), as ``smooth-ece``, ``aurc``, ``augrc`` and ``coverage``; ``auroc``, ``aupr``,
            ``aupr-out``, ``fpr95`` of a score; ``group-...``, ``relative-gap``,
            ``added-vulnerability`` and ``corruption-error`` between the table's groups;
            ``skewness`` of a column; ``point`` where the table holds one number for the whole
            probe, so that nothing can be resampled.
        columns: the prediction columns it reads, as many as `clipq.statistic_kinds.KINDS` says.
        below: the threshold of a ``share``.

    >>> Statistic("share", ("rank",), below=1)  # top-1 accuracy: the share of ranks below 1
    Statistic(kind='share', columns=('rank',), below=1)
    """

    kind: str
    columns: tuple[str, ...] = ()
    below: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ClipqError(
                f"unknown kind of statistic {self.kind!r}", hint=did_you_mean(self.kind, KINDS)
            )
        if len(self.columns) != len(KINDS[self.kind].columns):
            raise ClipqError(
                f"a statistic of kind {self.kind!r} with columns {self.columns}",
                hint=f"give one column each for: {', '.join(KINDS[self.kind].columns) or 'none'}",
            )
        if (self.kind == "share") != (self.below is not None):
            raise ClipqError(
                f"a statistic of kind {self.kind!r} with below = {self.below}",
                hint="`below` belongs to kind 'share', which needs it",
            )


@dataclass(frozen=True, slots=True)
class Metric:
    """A declared metric.

    Args:
        name: as in case ids.
        title: one line for reports.
        unit: of value, loss and margin.
        direction: what is better.
        range: smallest and largest possible value.
        roles: roles of the probes that it is computed on.
        target: ``module:function``. It takes `Predictions`; where `score` is set it takes two
            arrays of that score instead: in-distribution (N,) and out-of-distribution (M,).
        note: bin edges, positive class and conventions.
        version: bumped when the value can change for equal predictions.
        score: the score column by which an OOD probe is told from the in-distribution probe.
        judged_by: ``baseline``, or ``limit`` where FP32 has no finite value and the margin table
            gives the worst acceptable value instead.
        statistic: how the value follows from columns. Without it the metric is resampled by
            calling its function again and again, which is right but slow.
        arguments: further keyword arguments of the function.

    >>> top1 = metrics.get("top1")
    >>> top1.unit, top1.direction, top1.loss(0.75, 0.5)
    ('fraction', 'higher', 0.25)
    """

    name: str
    title: str
    unit: str
    direction: Direction
    range: tuple[float, float]
    roles: frozenset[str]
    target: str
    note: str = ""
    version: int = 1
    score: str = ""
    judged_by: Literal["baseline", "limit"] = "baseline"
    statistic: Statistic | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or any(mark in self.name for mark in "./ "):
            raise ClipqError(
                f"metric {self.name!r}: a name with a dot, a slash or a space",
                hint="case ids are read as MODEL/QUANTIZER/PROBE.METRIC: use letters, digits and -",
            )
        if self.direction not in ("lower", "higher", "zero"):
            raise ClipqError(
                f"metric {self.name!r}: direction {self.direction!r}",
                hint="allowed: 'lower', 'higher', 'zero' (what is better)",
            )
        module, colon, function = self.target.partition(":")
        if not (module and colon and function):
            raise ClipqError(
                f"metric {self.name!r}: target {self.target!r}",
                hint="write package.module:function",
            )
        if not self.range[0] < self.range[1]:
            raise ClipqError(
                f"metric {self.name!r}: range {self.range}", hint="(smallest, largest), apart"
            )

    @property
    def needs_groups(self) -> bool:
        """Whether it compares the groups of a probe."""
        return self.statistic is not None and KINDS[self.statistic.kind].family == "groups"

    @property
    def needs_id(self) -> bool:
        """Whether `compute` needs the in-distribution predictions as well."""
        return bool(self.score)

    def compute(
        self, predictions: Predictions, in_distribution: Predictions | None = None
    ) -> float:
        """Return the metric's value; NaN where a prediction is not finite.

        Raises:
            ClipqError: the function cannot be imported or fails, or a table is missing.
        """
        compute = self._resolve()
        arguments: tuple[object, ...] = (predictions,)
        if self.score:
            if in_distribution is None:
                raise ClipqError(
                    f"metric {self.name!r} contrasts a probe with the in-distribution probe",
                    hint="pass the in-distribution predictions as second argument",
                )
            arguments = (in_distribution.column(self.score), predictions.column(self.score))
        try:
            return float(compute(*arguments, **self.arguments))
        except ClipqError:
            raise
        except Exception as error:
            raise ClipqError(
                f"metric {self.name!r} failed: {type(error).__name__}: {error}",
                hint=f"correct {self.target}, or leave the metric out of [matrix]",
            ) from error

    def _resolve(self) -> Callable[..., float]:
        module, _, name = self.target.partition(":")
        try:
            function: Callable[..., float] = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ClipqError(
                f"metric {self.name!r}: target {self.target!r} cannot be imported: {error}",
                hint="correct the target, or install the package that provides it",
            ) from error
        return function

    def loss(self, baseline: _Value, observed: _Value) -> _Value:
        """Return how much worse `observed` is than `baseline`, in `unit`; positive = worse.

        Takes two numbers, or two arrays of replicates.
        """
        worse: _Value = loss(self.direction, baseline, observed)
        return worse


metrics: Registry[Metric] = Registry("metric", group="clipq.metrics")
"""Every known metric."""
