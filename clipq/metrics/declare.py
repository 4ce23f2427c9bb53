"""What a metric is: a name with unit, direction, range and version, and a lazy function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, TypeVar

import numpy as np

from clipq.errors import ClipqError, did_you_mean
from clipq.metrics.predictions import Predictions
from clipq.registry import Registry

__all__ = ["STATISTICS", "Direction", "Metric", "Statistic", "metrics"]

Direction = Literal["lower", "higher", "zero"]
"""Which values are better: lower, higher, or nearer to zero."""

_Value = TypeVar("_Value", float, np.ndarray)


STATISTICS = {
    "mean": ("value",),
    "mean-gap": ("confidence", "correct"),
    "share": ("value",),
    "ece": ("confidence", "correct"),
    "ace": ("confidence", "correct"),
    "mce": ("confidence", "correct"),
    "auroc": ("score",),
    "aupr": ("score",),
    "fpr95": ("score",),
    "point": (),
}
"""Kinds of statistic and the columns that each needs."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """How a metric follows from columns, so that thousands of resamples of it cost little.

    Args:
        kind: ``mean`` of a column; ``mean-gap``, the mean of one minus that of another; ``share``
            of samples whose column is below `below`; ``ece``, ``ace``, ``mce`` of (confidence,
            correct); ``auroc``, ``aupr``, ``fpr95`` of a score; ``point`` where the table holds
            one number for the whole probe, so that nothing can be resampled.
        columns: the prediction columns it reads, as many as `STATISTICS` says.
        below: the threshold of a ``share``.
    """

    kind: str
    columns: tuple[str, ...] = ()
    below: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in STATISTICS:
            raise ClipqError(
                f"unknown kind of statistic {self.kind!r}", hint=did_you_mean(self.kind, STATISTICS)
            )
        if len(self.columns) != len(STATISTICS[self.kind]):
            raise ClipqError(
                f"a statistic of kind {self.kind!r} with columns {self.columns}",
                hint=f"give one column each for: {', '.join(STATISTICS[self.kind]) or 'none'}",
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
        reference: ``baseline``, or ``absolute`` where FP32 has no finite value and the margin
            table gives the worst acceptable value instead.
        statistic: how the value follows from columns. Without it the metric is resampled by
            calling its function again and again, which is right but slow.
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
    reference: Literal["baseline", "absolute"] = "baseline"
    statistic: Statistic | None = None

    def __post_init__(self) -> None:
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
            return float(compute(*arguments))
        except ClipqError:
            raise
        except Exception as error:
            raise ClipqError(
                f"metric {self.name!r} failed: {type(error).__name__}: {error}",
                hint=f"correct {self.target}, or leave the metric out of [matrix]",
            ) from error

    def _resolve(self) -> Callable[..., float]:
        module, _, function = self.target.partition(":")
        try:
            found: Callable[..., float] = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ClipqError(
                f"metric {self.name!r}: target {self.target!r} cannot be imported: {error}",
                hint="correct the target, or install the package that provides it",
            ) from error
        return found

    def loss(self, baseline: _Value, observed: _Value) -> _Value:
        """Return how much worse `observed` is than `baseline`, in `unit`; positive = worse.

        Takes two numbers, or two arrays of replicates.
        """
        worse: _Value
        if self.direction == "zero":
            worse = abs(observed) - abs(baseline)
        else:
            worse = observed - baseline if self.direction == "lower" else baseline - observed
        return worse


metrics: Registry[Metric] = Registry("metric", group="clipq.metrics")
"""Every known metric."""

_CLASSIFIED = frozenset({"in-distribution"})
_HERE = "clipq.metrics"
_BINS = "15 equal-width bins over [0, 1]; an edge belongs to the upper bin, 1 to the last"
_WIDE = "intervals cover more than they state"

for _metric in (
    Metric(
        "top1",
        "zero-shot top-1 accuracy",
        "fraction",
        "higher",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.accuracy:top1",
        note="a tie for the largest logit counts against the model",
        statistic=Statistic("share", ("rank",), below=1),
    ),
    Metric(
        "top5",
        "zero-shot top-5 accuracy",
        "fraction",
        "higher",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.accuracy:top5",
        note="ties count against the model",
        statistic=Statistic("share", ("rank",), below=5),
    ),
    Metric(
        "confidence-gap",
        "mean confidence - accuracy",
        "fraction",
        "zero",
        (-1, 1),
        _CLASSIFIED,
        f"{_HERE}.calibration:confidence_gap",
        note="positive = over-confident",
        statistic=Statistic("mean-gap", ("confidence", "correct")),
    ),
    Metric(
        "ece",
        "expected calibration error",
        "fraction",
        "lower",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.calibration:ece",
        note=_BINS,
        statistic=Statistic("ece", ("confidence", "correct")),
    ),
    Metric(
        "ace",
        "average calibration error",
        "fraction",
        "lower",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.calibration:ace",
        note=f"{_BINS}; unweighted mean over the bins that hold samples; {_WIDE}",
        statistic=Statistic("ace", ("confidence", "correct")),
    ),
    Metric(
        "mce",
        "maximum calibration error",
        "fraction",
        "lower",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.calibration:mce",
        note=f"{_BINS}; {_WIDE}",
        statistic=Statistic("mce", ("confidence", "correct")),
    ),
    Metric(
        "ts-ece",
        "expected calibration error after temperature scaling",
        "fraction",
        "lower",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.calibration:ts_ece",
        note=f"{_BINS}; temperature fitted on the calibration split; {_WIDE}",
        statistic=Statistic("ece", ("ts_confidence", "correct")),
    ),
    Metric(
        "nll",
        "negative log-likelihood",
        "nats",
        "lower",
        (0, math.inf),
        _CLASSIFIED,
        f"{_HERE}.calibration:nll",
        statistic=Statistic("mean", ("nll",)),
    ),
    Metric(
        "brier",
        "Brier score",
        "score",
        "lower",
        (0, 2),
        _CLASSIFIED,
        f"{_HERE}.calibration:brier",
        note="sum over classes (0 to 2), not their mean",
        statistic=Statistic("mean", ("brier",)),
    ),
    Metric(
        "sqnr",
        "feature signal-to-quantization-noise ratio",
        "dB",
        "higher",
        (-math.inf, math.inf),
        _CLASSIFIED,
        f"{_HERE}.sanity:sqnr",
        note="against FP32 features; the worse of the quantized towers; the margin is a floor",
        reference="absolute",
        statistic=Statistic("point"),
    ),
    Metric(
        "zero-fraction",
        "share of zero feature entries",
        "fraction",
        "lower",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.sanity:zero_fraction",
        statistic=Statistic("point"),
    ),
    Metric(
        "effective-rank",
        "effective rank of the image features",
        "dimensions",
        "higher",
        (1, math.inf),
        _CLASSIFIED,
        f"{_HERE}.sanity:effective_rank",
        note="exp of the spectrum's entropy, centred features",
        statistic=Statistic("point"),
    ),
    Metric(
        "flip-rate",
        "share of samples whose predicted class differs from FP32's",
        "fraction",
        "lower",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.churn:flip_rate",
        note="0 for FP32 itself",
        statistic=Statistic("share", ("agrees",), below=1),
    ),
    Metric(
        "negative-flips",
        "share of samples that FP32 gets right and the quantized model wrong",
        "fraction",
        "lower",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.churn:negative_flips",
        note="0 for FP32 itself; equal accuracy can hide them",
        statistic=Statistic("share", ("stays_correct",), below=1),
    ),
    Metric(
        "kl-to-fp32",
        "mean Kullback-Leibler divergence of the softmax from FP32's",
        "nats",
        "lower",
        (0, math.inf),
        _CLASSIFIED,
        f"{_HERE}.churn:kl_to_fp32",
        note="KL(FP32 || quantized)",
        statistic=Statistic("mean", ("kl",)),
    ),
    Metric(
        "margin-shrinkage",
        "mean loss of the gap between the two largest probabilities, against FP32",
        "fraction",
        "lower",
        (-1, 1),
        _CLASSIFIED,
        f"{_HERE}.churn:margin_shrinkage",
        note="positive = decisions became less clear",
        statistic=Statistic("mean", ("margin_loss",)),
    ),
):
    metrics.add(_metric.name, _metric)

for _score, _title, _column in (
    ("mcm", "MCM", "mcm"),
    ("max-logit", "max-logit", "max_logit"),
    ("energy", "energy", "energy"),
    ("entropy", "negative entropy", "neg_entropy"),
):
    for _name, _kind, _direction, _note in (
        ("auroc", "AUROC", "higher", "positive class: in-distribution"),
        ("aupr", "AUPR", "higher", "positive class: in-distribution; step-wise (no interpolation)"),
        (
            "fpr95",
            "FPR at 95 % TPR",
            "lower",
            "share of OOD accepted where at least 95 % of in-distribution is; with few samples "
            + _WIDE,
        ),
    ):
        metrics.add(
            f"{_name}-{_score}",
            Metric(
                f"{_name}-{_score}",
                f"OOD detection {_kind}, {_title} score",
                "fraction",
                _direction,  # type: ignore[arg-type]
                (0, 1),
                frozenset({"ood"}),
                f"{_HERE}.ood:{_name}",
                note=_note,
                score=_column,
                statistic=Statistic(_name, (_column,)),
            ),
        )
