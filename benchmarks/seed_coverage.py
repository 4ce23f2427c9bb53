"""Do intervals over samples and seeds hold as often as they state? Simulated.

    python benchmarks/seed_coverage.py [--quick]

A configuration with K seeds: each seed moves the effect by a normal draw of `drawn` standard errors
of the samples; errors of samples have the correlation `shared` between seeds. Goal: whatever the
two are, a nominal 95 % interval of `clipq.study.effects` covers at least 94.5 %.

For comparison: one normal quantile on the sum of both variances, and seeds alone (Student's t of
the mean over seeds), as tables of means and standard deviations over seeds have it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
from benchmark import Goals, Script
from scipy.special import ndtri, stdtrit
from tabulate import tabulate

from clipq.study.effects import Point, Series, summarise

GOAL = 0.945


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="two minutes")
    script.size("--repeats", full=20000, quick=300, help="simulated studies per row")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    rows = []
    for seeds in (2, 3, 5, 10):
        for shared in (0.0, 0.5, 1.0):
            for drawn in (0.0, 0.5, 2.0, 10.0):
                found = coverage(seeds=seeds, shared=shared, drawn=drawn, repeats=options.repeats)
                others = simpler(seeds=seeds, shared=shared, drawn=drawn, repeats=options.repeats)
                goals.measured(found >= GOAL)
                rows.append((seeds, shared, drawn, *(f"{x:.1%}" for x in (found, *others))))
    headers = ("seeds", "shared", "drawn", "covered", "normal of the sum", "seeds alone")
    print(tabulate(rows, headers, disable_numparse=True))
    return goals.code


def simulated(*, seeds: int, shared: float, drawn: float, repeats: int) -> np.ndarray:
    """Return measured effects (repeats, seeds), the true one 0 and the standard error 1."""
    rng = np.random.default_rng([seeds, round(100 * shared), round(100 * drawn)])
    common, own = rng.normal(size=(repeats, 1)), rng.normal(size=(repeats, seeds))
    errors = math.sqrt(shared) * common + math.sqrt(1 - shared) * own
    return errors + drawn * rng.normal(size=(repeats, seeds))


def coverage(*, seeds: int, shared: float, drawn: float, repeats: int) -> float:
    """Return how often the interval holds the true effect."""
    held = 0
    for values in simulated(seeds=seeds, shared=shared, drawn=drawn, repeats=repeats):
        points = {seed: Point(float(value), 1.0) for seed, value in enumerate(values)}
        effect = summarise(Series(points, draws=seeds > 1))
        low, high = effect.interval()
        held += low <= 0.0 <= high
    return held / repeats


def simpler(*, seeds: int, shared: float, drawn: float, repeats: int) -> tuple[float, float]:
    """Return how often two simpler intervals do."""
    values = simulated(seeds=seeds, shared=shared, drawn=drawn, repeats=repeats)
    mean, spread = values.mean(1), values.var(1, ddof=1) / seeds
    normal = -ndtri(0.025) * np.sqrt(spread + 1.0)
    student = -stdtrit(seeds - 1, 0.025) * np.sqrt(spread)
    return float((abs(mean) <= normal).mean()), float((abs(mean) <= student).mean())


if __name__ == "__main__":
    sys.exit(main())
