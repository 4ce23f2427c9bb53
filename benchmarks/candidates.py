"""A release candidate of this repository's matrix, and rows of all its probes drawn together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from embedded import predictions

from clipq.cases import Case
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import Selection, plan
from clipq.evaluation.resampling import Resampler, Tables
from clipq.gating.baseline import load_baseline
from clipq.gating.loss_estimator import LossEstimator
from clipq.gating.margins import load_margins
from clipq.gating.verdict import Evidence
from clipq.metrics import Metric, Predictions, metrics
from clipq.settings import Settings

__all__ = ["Candidate", "counted", "real_errors", "repeated"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model x quantizer with FP32's and its own tables by probe, and its resampled cases.

    Args:
        name: ``MODEL/QUANTIZER``.
        cases: those whose loss is resampled; the others are compared as they stand.
        margins: (K,) of the cases.
        tables: (FP32, quantized) by probe.
        known: name of the in-distribution probe.
    """

    name: str
    cases: tuple[Case, ...]
    margins: np.ndarray
    tables: Mapping[str, tuple[Predictions, Predictions]]
    known: str

    @classmethod
    def load(cls, settings: Settings, model: str, quantizer: str) -> Candidate:
        """Return a candidate of the settings' default profile."""
        evaluator, known = Evaluator(settings), settings.in_distribution.name
        baseline = load_baseline(settings.baselines, model)
        if baseline is None:
            raise FileNotFoundError(f"no baseline of {model}: clipq baseline create {model}")
        chosen = Selection(models=(model,), quantizers=(quantizer,))
        planned = plan(settings, chosen, profile="default")
        cases = tuple(case for case in planned if _resampled(metrics.get(case.metric)))
        margins = load_margins(settings.margins)
        tables = {
            probe: (baseline.predictions[probe], predictions(evaluator, model, quantizer, probe))
            for probe in sorted({known, *(case.probe for case in cases)})
        }
        values = np.array([margins.margin(case) for case in cases])
        return cls(f"{model}/{quantizer}", cases, values, tables, known)

    def only(self, key: str) -> Candidate:
        """Return the candidate with one of its cases."""
        kept = [at for at, case in enumerate(self.cases) if case.key == key]
        probes = {self.known, key.split(".")[0]}
        return replace(
            self,
            cases=tuple(self.cases[at] for at in kept),
            margins=self.margins[kept],
            tables={probe: self.tables[probe] for probe in sorted(probes)},
        )

    def pair(self, case: Case) -> tuple[Tables, Tables]:
        """Return FP32's and the quantized model's tables of a case."""
        first, second = (
            Tables(table, known)
            for table, known in zip(self.tables[case.probe], self.tables[self.known], strict=True)
        )
        return first, second

    def counts(self, samples: int, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return how often each row is drawn (D, N), by probe, for so many samples of the known."""
        drawn = {}
        scale = samples / len(self.tables[self.known][0])
        for probe, (table, _) in self.tables.items():
            size = max(1, round(scale * len(table)))
            drawn[probe] = counted(rng.integers(0, len(table), (draws, size)), len(table))
        return drawn


def counted(rows: np.ndarray, size: int) -> np.ndarray:
    """Count drawn rows (D, n) of a table of so many: (D, N)."""
    shifted = rows + size * np.arange(len(rows))[:, None]
    counts = np.bincount(shifted.ravel(), minlength=size * len(rows))
    return counts.reshape(-1, size).astype(np.uint8)


def repeated(table: Predictions, counts: np.ndarray) -> Predictions:
    """Return a table that holds each row as often as it was drawn (N,)."""
    drawn = table.drawn(np.repeat(np.arange(len(counts)), counts))
    columns = {"id": np.arange(len(drawn))} | dict(drawn.columns)
    if "cluster" in columns:
        columns["cluster"] = np.arange(len(drawn))  # each image was drawn by itself
    return Predictions(columns, drawn.scalars)


def real_errors(
    candidate: Candidate, counts: Mapping[str, np.ndarray], settings: Settings
) -> np.ndarray:
    """Return the standard errors (D, K) that a gate estimates for each draw, one by one."""
    draws = len(counts[candidate.known])
    found = np.empty((draws, len(candidate.cases)))
    for row in range(draws):
        estimate = LossEstimator(settings.statistics, Resampler(settings.statistics))
        tables = {
            probe: (repeated(first, counts[probe][row]), repeated(second, counts[probe][row]))
            for probe, (first, second) in candidate.tables.items()
        }
        drawn = replace(candidate, tables=tables)
        for at, case in enumerate(candidate.cases):
            margin = float(candidate.margins[at])
            evidence = Evidence(metrics.get(case.metric), 0.0, 0.0, margin, *drawn.pair(case))
            found[row, at] = estimate(evidence, 0.0, margin=margin).standard_error
    return found


def _resampled(metric: Metric) -> bool:
    return metric.statistic is not None and metric.statistic.kind != "point"
