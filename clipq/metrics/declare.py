"""What a metric is: a name with unit, direction, range and version, and a lazy function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from clipq.errors import ClipqError
from clipq.metrics.predictions import Predictions
from clipq.registry import Registry

__all__ = ["Direction", "Metric", "metrics"]

Direction = Literal["lower", "higher", "zero"]
"""Which values are better: lower, higher, or nearer to zero."""


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

    def loss(self, baseline: float, observed: float) -> float:
        """Return how much worse `observed` is than `baseline`, in `unit`; positive = worse."""
        if self.direction == "higher":
            return baseline - observed
        if self.direction == "lower":
            return observed - baseline
        return abs(observed) - abs(baseline)


metrics: Registry[Metric] = Registry("metric", group="clipq.metrics")
"""Every known metric."""

_CLASSIFIED = frozenset({"in-distribution"})
_HERE = "clipq.metrics"
_BINS = "15 equal-width bins over [0, 1]; an edge belongs to the upper bin, 1 to the last"

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
    ),
    Metric(
        "ace",
        "average calibration error",
        "fraction",
        "lower",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.calibration:ace",
        note=f"{_BINS}; unweighted mean over the bins that hold samples",
    ),
    Metric(
        "mce",
        "maximum calibration error",
        "fraction",
        "lower",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.calibration:mce",
        note=_BINS,
    ),
    Metric(
        "ts-ece",
        "expected calibration error after temperature scaling",
        "fraction",
        "lower",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.calibration:ts_ece",
        note=f"{_BINS}; temperature fitted on the calibration split",
    ),
    Metric(
        "nll",
        "negative log-likelihood",
        "nats",
        "lower",
        (0, math.inf),
        _CLASSIFIED,
        f"{_HERE}.calibration:nll",
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
    ),
    Metric(
        "zero-fraction",
        "share of zero feature entries",
        "fraction",
        "lower",
        (0, 1),
        _CLASSIFIED,
        f"{_HERE}.sanity:zero_fraction",
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
            "share of OOD accepted where at least 95 % of in-distribution is",
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
            ),
        )
