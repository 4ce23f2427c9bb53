"""Whole candidates drawn again and again from real predictions: all their cases at once.

A draw takes rows of every probe with replacement, the same rows for FP32 and for the candidate, so
the cases of a draw depend on each other as those of a real candidate do. The truth is the loss on
the whole tables. What is remembered of a draw is the noise (estimated minus true loss) and the
standard error of each case; for shares of independent samples, how many samples changed. Any loss
can then be assumed: `CandidateDraws.scores` gives the test statistics at the margins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from closed_errors import Pair, closed_error
from embedded import predictions
from scipy.special import ndtri
from scipy.stats import t as student

from clipq.cases import Case
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import Selection, plan
from clipq.evaluation.resampling import Resampler, Tables, resolution
from clipq.gating.baseline import load_baseline
from clipq.gating.loss_estimator import LossEstimator
from clipq.gating.margins import load_margins
from clipq.gating.verdict import Evidence
from clipq.metrics import Metric, Predictions, metrics
from clipq.metrics.calibration import BINS
from clipq.settings import Settings
from clipq.stats import bin_resolution

__all__ = ["Candidate", "CandidateDraws", "real_errors"]

_BLOCK = 50
"""Draws worked on at a time."""
_SURE = 30.0
"""A score beyond which nothing changes."""
_TURNED = "t2i-recall"
"""Means of answers: where hardly one of them changed, a loss takes turned answers, as shares do."""
_CHURN = ("flip-rate", "negative-flips")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model x quantizer with FP32's and its own tables by probe, and its resampled cases.

    Args:
        name: ``MODEL/QUANTIZER``.
        cases: those whose loss is resampled; the others are compared as they stand.
        margins: (K,) of the cases.
        tables: (FP32, quantized) by probe.
        known: name of the in-distribution probe.
        points: how many cases are compared as they stand.
    """

    name: str
    cases: tuple[Case, ...]
    margins: np.ndarray
    tables: Mapping[str, tuple[Predictions, Predictions]]
    known: str
    points: int

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
        return cls(
            f"{model}/{quantizer}",
            cases,
            np.array([margins.margin(case) for case in cases]),
            tables,
            known,
            len(planned) - len(cases),
        )

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
            drawn[probe] = _counts(rng.integers(0, len(table), (draws, size)), len(table))
        return drawn


@dataclass(frozen=True, eq=False)
class CandidateDraws:
    """What is remembered of D draws of a candidate's K cases.

    Args:
        keys: (K,) PROBE.METRIC.
        margins, truth: (K,).
        noise, error: (D, K); of the estimated losses.
        samples: (K,) of the case's probe in each draw.
        worse, better, right: (D, K) changed samples, and those that stayed right, of shares of
            independent samples; -1 for other cases.
        churn: (K,) whether a share counts changes, of which FP32 has none.
        freedom: (K,) degrees of freedom of errors from few replicates; 0 for all others.
    """

    keys: np.ndarray
    margins: np.ndarray
    truth: np.ndarray
    noise: np.ndarray
    error: np.ndarray
    samples: np.ndarray
    worse: np.ndarray
    better: np.ndarray
    right: np.ndarray
    churn: np.ndarray
    freedom: np.ndarray

    @classmethod
    def make(
        cls, candidate: Candidate, samples: int, draws: int, *, seed: int, replicates: int
    ) -> CandidateDraws:
        """Draw a candidate.

        Args:
            candidate: whose tables are drawn from.
            samples: in distribution; of other probes in proportion.
            draws: D.
            seed: of everything.
            replicates: per draw, for the few statistics that have no closed form.
        """
        rng = np.random.default_rng([seed, samples, len(candidate.cases)])
        counts = candidate.counts(samples, draws, rng)
        shape = draws, len(candidate.cases)
        loss, error = np.empty(shape), np.empty(shape)
        worse, better, right = (np.full(shape, -1) for _ in range(3))
        points = _Drawn(counts, candidate)
        whole = _Drawn(
            {k: np.ones((1, v.shape[1]), np.uint8) for k, v in counts.items()}, candidate
        )
        nested = []
        for at, case in enumerate(candidate.cases):
            metric, pair = metrics.get(case.metric), candidate.pair(case)
            loss[:, at] = points.losses(metric, pair)
            both = Pair(*pair, counts[case.probe], counts[candidate.known])
            spread = closed_error(metric.statistic, both, rng)
            if spread is None:
                nested.append(at)
            else:
                error[:, at] = spread
            if metric.statistic.kind == "share" and "cluster" not in pair[1].predictions.columns:
                worse[:, at], better[:, at], right[:, at] = _changed(
                    metric, pair, counts[case.probe]
                )
        if nested:
            cases = [candidate.cases[at] for at in nested]
            error[:, nested] = _nested(cases, candidate, counts, rng, replicates)
        for at, case in enumerate(candidate.cases):
            both = Pair(*candidate.pair(case), counts[case.probe], counts[candidate.known])
            worth = _resolutions(metrics.get(case.metric), both)
            error[:, at] = np.sqrt(error[:, at] ** 2 + 2.0 * worth**2)
        truth = np.array(
            [whole.losses(metrics.get(c.metric), candidate.pair(c))[0] for c in candidate.cases]
        )
        again = np.isin(np.arange(len(candidate.cases)), nested)
        return cls(
            np.array([case.key for case in candidate.cases]),
            candidate.margins,
            truth,
            loss - truth,
            error,
            np.array([counts[case.probe][0].sum(dtype=int) for case in candidate.cases]),
            worse,
            better,
            right,
            np.array([case.metric in _CHURN for case in candidate.cases]),
            np.where(again, replicates - 1, 0),
        )

    @classmethod
    def joined(cls, parts: Sequence[CandidateDraws]) -> CandidateDraws:
        """Return the draws of all parts, which are of one candidate and size."""
        arrays = {one.name: [getattr(part, one.name) for part in parts] for one in fields(cls)}
        return cls(
            **{
                name: np.concatenate(found) if found[0].ndim == 2 else found[0]
                for name, found in arrays.items()
            }
        )

    def scores(self, losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return z (D, K) of the hypotheses that losses are at the margins; positive = worse.

        Fails, suspects and passes follow from z alone: the one-sided p-value is that of a standard
        normal above z, and the upper bound lies below the margin where z is below -1.96.

        Args:
            losses: (K,) assumed to be the true ones. A share loses that much because a random part
                of its right answers turns wrong; what changed besides gets worse or better with
                equal chances, so that it does no harm.
            rng: of the turned answers.
        """
        noise, error = self.noise.copy(), self.error.copy()
        for at in [at for at, key in enumerate(self.keys) if _TURNED in key]:
            size = self.samples[at]
            share = rng.binomial(size, losses[at], len(noise)) / size
            noise[:, at] += share - losses[at]
            error[:, at] = np.sqrt(error[:, at] ** 2 + share * (1 - share) / size)
        over = losses + noise - self.margins
        # Without any spread, a gate compares as it stands.
        z = np.where(over > 0, _SURE, -_SURE)
        z = np.clip(np.divide(over, error, out=z, where=error > 0), -_SURE, _SURE)
        few = self.freedom > 0
        # Few replicates make a score Student's; the normal score of the same probability.
        z[:, few] = np.clip(-ndtri(student.sf(z[:, few], self.freedom[few])), -_SURE, _SURE)
        for at in np.flatnonzero(self.worse[0] >= 0):
            z[:, at] = _share_scores(*self._changed(at, losses[at], rng), self.margins[at])
        return z

    def _changed(
        self, at: int, loss: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, int]:
        worse, better = self.worse[:, at], self.better[:, at]
        size = int(self.samples[at])
        if self.churn[at]:
            rate = self.truth[at]
            if loss <= rate:
                return rng.binomial(worse, loss / rate if rate else 0.0), better, size
            return worse + rng.binomial(size - worse, (loss - rate) / (1 - rate)), better, size
        changed = worse + better
        even = rng.binomial(changed, 0.5)
        right = self.right[:, at]
        chance = min(1.0, loss * size / max(right.mean(), 1e-9))
        return even + rng.binomial(right, chance), changed - even, size


def real_errors(
    candidate: Candidate, samples: int, draws: int, settings: Settings, *, seed: int
) -> np.ndarray:
    """Return the standard errors (D, K) that a gate estimates for the same draws, one by one."""
    rng = np.random.default_rng([seed, samples, len(candidate.cases)])
    counts = candidate.counts(samples, draws, rng)
    found = np.empty((draws, len(candidate.cases)))
    for row in range(draws):
        estimate = LossEstimator(settings.statistics, Resampler(settings.statistics))
        tables = {
            probe: tuple(_repeated(table, counts[probe][row]) for table in pair)
            for probe, pair in candidate.tables.items()
        }
        drawn = replace(candidate, tables=tables)
        for at, case in enumerate(candidate.cases):
            margin = float(candidate.margins[at])
            first, second = drawn.pair(case)
            evidence = Evidence(metrics.get(case.metric), 0.0, 0.0, margin, first, second)
            found[row, at] = estimate(evidence, 0.0, margin=margin).standard_error
    return found


class _Drawn(Resampler):
    """Replicates are the given draws, whatever the settings say."""

    def __init__(self, counts: Mapping[str, np.ndarray], candidate: Candidate) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._counts = {
            id(table): counts[probe] for probe, pair in candidate.tables.items() for table in pair
        }

    def _drawn(self, table: Predictions, stream: int) -> np.ndarray:
        return self._counts[id(table)]

    def losses(self, metric: Metric, pair: Sequence[Tables]) -> np.ndarray:
        """Return the loss in each draw (D,)."""
        return metric.loss(*(self.replicates(metric, tables) for tables in pair))


def _nested(
    cases: Sequence[Case],
    candidate: Candidate,
    counts: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    replicates: int,
) -> np.ndarray:
    """Bootstrap every draw: its rows are drawn once more. Return the spreads (D, cases)."""
    probes = {candidate.known, *(case.probe for case in cases)}
    spread = []
    for start in range(0, len(counts[candidate.known]), _BLOCK):
        weights = dict.fromkeys(candidate.tables, np.empty((0, 0)))
        for probe in sorted(probes):
            block = counts[probe][start : start + _BLOCK]
            weights[probe] = _again(block, replicates, rng)
        drawn = _Drawn(weights, candidate)
        losses = [drawn.losses(metrics.get(c.metric), candidate.pair(c)) for c in cases]
        values = np.stack(losses, axis=1).reshape(-1, replicates, len(cases))
        spread.append(values.std(axis=1, ddof=1))
    return np.concatenate(spread)


def _again(counts: np.ndarray, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """Return counts (D * R, N) of resamples of draws (D, N)."""
    rows = np.stack([np.repeat(np.arange(counts.shape[1]), row) for row in counts])
    size = rows.shape[1]
    picked = rng.integers(0, size, (len(rows), replicates * size))
    drawn = np.take_along_axis(rows, picked, axis=1).reshape(-1, size)
    return _counts(drawn, counts.shape[1])


def _resolutions(metric: Metric, both: Pair) -> np.ndarray:
    """Return what one sample is worth in each draw (D,); `clipq.evaluation.resampling` says why."""
    kind, tables, own = metric.statistic.kind, both.quantized, both.counts
    if kind in ("ace", "mce"):
        sure = tables.predictions.column(metric.statistic.columns[0])
        return np.array([bin_resolution(np.repeat(sure, row), bins=BINS) for row in own])
    if metric.needs_groups:
        member = np.unique(tables.predictions.column("group"), return_inverse=True)[1]
        sizes = own @ np.eye(member.max() + 1)[member]
        return 1.0 / np.where(sizes > 0, sizes, np.inf).min(axis=1)
    return np.full(len(own), resolution(metric, _sized(tables, own, both.counts_id)))


def _sized(tables: Tables, own: np.ndarray, known: np.ndarray) -> Tables:
    first, second = (
        _repeated(t, c[0])
        for t, c in zip((tables.predictions, tables.in_distribution), (own, known), strict=True)
    )
    return Tables(first, second)


def _repeated(table: Predictions, counts: np.ndarray) -> Predictions:
    drawn = table.drawn(np.repeat(np.arange(len(counts)), counts))
    columns = {"id": np.arange(len(drawn))} | dict(drawn.columns)
    if "cluster" in columns:
        columns["cluster"] = np.arange(len(drawn))  # each image was drawn by itself
    return Predictions(columns, drawn.scalars)


def _changed(
    metric: Metric, pair: tuple[Tables, Tables], counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    statistic = metric.statistic
    first, second = (
        np.asarray(tables.predictions.column(statistic.columns[0])) < statistic.below
        for tables in pair
    )
    if metric.direction == "lower":
        first, second = ~first, ~second
    worse, better, right = (
        (counts @ rows.astype(np.float64)).round().astype(np.int64)
        for rows in (first & ~second, ~first & second, first & second)
    )
    return worse, better, right


def _share_scores(worse: np.ndarray, better: np.ndarray, samples: int, drop: float) -> np.ndarray:
    """Return `clipq.stats.score_z` of many counts at one drop."""
    excess = worse - better - samples * drop
    linear = -worse - better + (2 * samples - worse + better) * drop
    constant = -better * drop * (1 - drop)
    root = np.sqrt(np.maximum(linear**2 - 8 * samples * constant, 0.0))
    chance = np.maximum((root - linear) / (4 * samples), 0.0)
    return np.asarray(excess / np.sqrt(samples * (2 * chance + drop * (1 - drop))))


def _counts(rows: np.ndarray, size: int) -> np.ndarray:
    """Count drawn rows (D, n) of a table of so many: (D, N)."""
    shifted = rows + size * np.arange(len(rows))[:, None]
    return (
        np.bincount(shifted.ravel(), minlength=size * len(rows)).reshape(-1, size).astype(np.uint8)
    )


def _resampled(metric: Metric) -> bool:
    return metric.statistic is not None and metric.statistic.kind != "point"
