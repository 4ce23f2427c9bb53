"""A closer look at one model x quantizer: by group, by bin, by out-of-distribution set.

What `clipq inspect` prints. Everything is measured beside FP32; nothing here is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.cases import Candidate, Cell
from clipq.errors import ProbeError
from clipq.evaluation.figures import reliability_bins
from clipq.metrics import Predictions, metrics
from clipq.metrics.calibration import BINS

if TYPE_CHECKING:
    from clipq.evaluation.evaluator import Evaluator

__all__ = ["Table", "by_bin", "by_group", "detection"]

_SCORES = ("mcm", "max-logit", "energy", "entropy", "knn", "mahalanobis")
_KINDS = ("auroc", "aupr", "aupr-out", "fpr95")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts and numbers under their headers, and what to know about them."""

    headers: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""

    def to_plain(self) -> list[dict[str, Any]]:
        """Return one mapping per row, with None for what is not finite: ready for strict JSON."""
        return [
            {
                header: None if isinstance(value, float) and not np.isfinite(value) else value
                for header, value in zip(self.headers, row, strict=True)
            }
            for row in self.rows
        ]


def by_group(evaluator: Evaluator, cell: Cell) -> Table:
    """Return accuracy, calibration error and true-positive rate of each group, beside FP32's.

    The last rows are the groups' smallest, largest, range and standard deviation; by fairlearn.

    Raises:
        ProbeError: the probe has no groups or no labels.
    """
    observed = evaluator.evaluate(cell).predictions
    reference = evaluator.evaluate(cell.reference).predictions
    if "correct" not in observed.columns or len(set(observed.column("group"))) < 2:
        raise ProbeError(
            f"probe {cell.probe!r} has no groups of labelled samples to compare",
            hint="name an attribute in its table: group = '...'; `clipq probe check` shows it",
        )
    ours, theirs = _frame(observed), _frame(reference)
    names = ("top1", "ece", "tpr")
    rows: list[tuple[Any, ...]] = []
    for group in ours.by_group.index:
        own, other = ours.by_group.loc[group], theirs.by_group.loc[group]
        values = [value for name in names for value in (float(other[name]), float(own[name]))]
        rows.append((str(group), int(own["samples"]), *values))
    summaries: dict[str, Callable[[Any], Any]] = {
        "smallest": lambda frame: frame.group_min(),
        "largest": lambda frame: frame.group_max(),
        "range": lambda frame: frame.difference(method="between_groups"),
        "std": lambda frame: frame.by_group.std(ddof=0),
    }
    for title, of in summaries.items():
        own, other = of(ours), of(theirs)
        values = [value for name in names for value in (float(other[name]), float(own[name]))]
        rows.append((title, None, *values))
    headers = tuple(f"{name} {who}" for name in names for who in ("FP32", "quantized"))
    return Table(("group", "samples", *headers), tuple(rows), "tpr: mean over the classes present")


def by_bin(evaluator: Evaluator, cell: Cell) -> Table:
    """Return the reliability diagram's data: per bin of confidence, samples and accuracy.

    Raises:
        ProbeError: the probe has no labels.
    """
    tables = [evaluator.evaluate(form).predictions for form in (cell.reference, cell)]
    if "correct" not in tables[0].columns:
        raise ProbeError(
            f"probe {cell.probe!r} has no labelled samples", hint="calibration needs right answers"
        )
    rows = []
    sums = [reliability_bins(table) for table in tables]
    for index in range(BINS):
        row: list[Any] = [f"{index / BINS:.3f}-{(index + 1) / BINS:.3f}"]
        for count, confidence, correct in (found[:, index] for found in sums):
            filled = count > 0
            row += [
                int(count),
                float(confidence / count) if filled else float("nan"),
                float(correct / count) if filled else float("nan"),
            ]
        rows.append(tuple(row))
    headers = tuple(
        f"{what} {who}"
        for who in ("FP32", "quantized")
        for what in ("samples", "confidence", "accuracy")
    )
    return Table(("bin", *headers), tuple(rows), "an edge belongs to the upper bin, 1 to the last")


def detection(evaluator: Evaluator, candidate: Candidate, *, local: bool = False) -> Table:
    """Return OpenOOD's kind of table: each set and score, and the means of near and far sets.

    Args:
        evaluator: of models and probes.
        candidate: which.
        local: also the GL-MCM score, where the tower exposes tokens; takes another encoding.

    Raises:
        ProbeError: the settings declare no out-of-distribution probe.
        QuantizerError: `local`, and the tower exposes no tokens.
    """
    settings = evaluator.settings
    probes = settings.probes_of("ood")
    if not probes:
        raise ProbeError(
            f"{settings.path} declares no probe with role 'ood'", hint="add one to [[probes]]"
        )
    known_cell = candidate.on(settings.in_distribution.name)
    known = evaluator.evaluate(known_cell).predictions
    scores = list(_SCORES)
    columns = {score: metrics.get(f"auroc-{score}").score for score in scores}
    inside = {score: known.column(columns[score]) for score in scores}
    outside = {
        probe.name: {
            score: evaluator.evaluate(candidate.on(probe.name)).predictions.column(columns[score])
            for score in scores
        }
        for probe in probes
    }
    if local:
        from clipq.evaluation.local import gl_mcm

        scores.append("gl-mcm")
        inside["gl-mcm"] = gl_mcm(evaluator, known_cell)
        for probe in probes:
            outside[probe.name]["gl-mcm"] = gl_mcm(evaluator, candidate.on(probe.name))
    found = {
        (probe.name, score): _areas(inside[score], outside[probe.name][score])
        for probe in probes
        for score in scores
    }
    rows: list[tuple[Any, ...]] = []
    for score in scores:
        for probe in probes:
            rows.append((score, probe.name, probe.distance, *found[probe.name, score]))
        for distance in ("near", "far"):
            sets = [probe.name for probe in probes if probe.distance == distance]
            if sets:
                means = np.mean([found[name, score] for name in sets], axis=0).tolist()
                rows.append((score, f"mean of {distance}", distance, *means))
    headers = ("score", "set", "distance", "AUROC", "AUPR-in", "AUPR-out", "FPR95")
    note = "higher scores = more in-distribution; AUROC, AUPR-in and FPR95 take it as positive"
    return Table(headers, tuple(rows), note)


def _areas(inside: np.ndarray, outside: np.ndarray) -> tuple[float, ...]:
    tables = Predictions({"mcm": outside}), Predictions({"mcm": inside})
    return tuple(metrics.get(f"{kind}-mcm").compute(*tables) for kind in _KINDS)


def _frame(table: Predictions) -> Any:
    from fairlearn.metrics import MetricFrame
    from sklearn.metrics import accuracy_score, recall_score

    def ece(truth: np.ndarray, guess: np.ndarray, *, confidence: np.ndarray) -> float:
        correct = (np.asarray(truth) == np.asarray(guess)).astype(np.int64)
        part = Predictions({"confidence": np.asarray(confidence), "correct": correct})
        return metrics.get("ece").compute(part)

    def tpr(truth: np.ndarray, guess: np.ndarray) -> float:
        return float(recall_score(truth, guess, average="macro", labels=np.unique(truth)))

    labels = table.column("label")
    # Of a narrowed head, predictions are no labels: only right or wrong is asked of either.
    guess = np.where(table.column("correct") == 1, labels, -1)
    return MetricFrame(
        metrics={
            "samples": lambda truth, guess: len(truth),
            "top1": accuracy_score,
            "ece": ece,
            "tpr": tpr,
        },
        y_true=labels,
        y_pred=guess,
        sensitive_features=table.column("group"),
        sample_params={"ece": {"confidence": table.column("confidence")}},
    )
