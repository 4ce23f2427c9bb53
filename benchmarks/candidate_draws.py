"""Whole candidates drawn again and again from real predictions: all their cases at once.

A draw takes rows of every probe with replacement, the same rows for FP32 and for the candidate, so
the cases of a draw depend on each other as those of a real candidate do. The truth is the loss on
the whole tables. What is remembered of a draw is the noise (estimated minus true loss) and the
standard error of each case; for shares of independent samples, how many samples changed. Any loss
can then be assumed: `CandidateDraws.scores` gives the test statistics at the margins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from candidates import Candidate
from drawn_errors import Drawn, drawn_errors
from scipy.special import ndtri
from scipy.stats import t as student

from clipq.evaluation.resampling import Tables
from clipq.metrics import Metric, metrics

__all__ = ["CandidateDraws"]

_SURE = 30.0
"""A score beyond which nothing changes."""
_TURNED = "t2i-recall"
"""Means of answers: where hardly one of them changed, a loss takes turned answers, as shares do."""
_CHURN = ("flip-rate", "negative-flips")


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
        points = Drawn(counts, candidate)
        once = {probe: np.ones((1, rows.shape[1]), np.uint8) for probe, rows in counts.items()}
        whole = Drawn(once, candidate)
        shape = draws, len(candidate.cases)
        loss, truth = np.empty(shape), np.empty(shape[1])
        worse, better, right = (np.full(shape, -1) for _ in range(3))
        for at, case in enumerate(candidate.cases):
            metric, pair = metrics.get(case.metric), candidate.pair(case)
            loss[:, at] = points.losses(metric, pair)
            truth[at] = whole.losses(metric, pair)[0]
            if metric.statistic.kind == "share" and "cluster" not in pair[1].predictions.columns:
                worse[:, at], better[:, at], right[:, at] = _changed(
                    metric, pair, counts[case.probe]
                )
        error, again = drawn_errors(candidate, counts, rng, replicates)
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

    def expected(self) -> CandidateDraws:
        """Return the same draws against their mean, the expected loss at this number of samples.

        Statistics that are biased at any finite size (calibration errors, extremes of groups, false
        positives at a threshold) are estimates of that; of others it is the whole tables' loss.
        """
        return replace(self, noise=self.noise - self.noise.mean(axis=0))

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
