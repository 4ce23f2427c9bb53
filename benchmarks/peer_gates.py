"""False alarms and misses of published gates and of rules of thumb, on the same simulated pairs.

    python benchmarks/peer_gates.py [--quick] [--samples 500 2048 10000] [--gates 2000]

Needs `pip install evalgate-cli deltagate paired-eval`, which a quick run does without; clipq never
does. FP32 answers 80 % right; a quantized model changes 2 % of the answers, as many for the better
as for the worse, and besides turns a random part of the right ones wrong: a drop of 0, of 0.3
points (harmless: the margin is 1 point) or of 2 points, twice the margin. A harmless model that is
blocked is a false alarm, a harmful one that is let through a miss. No goal for the peers; of clipq,
at most 5 % of false alarms, and of misses at 2,048 samples or more at most 10 %.

What is called of each: `evalgate.decide` of its `mcnemar_test` (a regression), deltagate's
`paired_delta` (significant at 5 % and worse; its word REAL also wants a bootstrap interval that
excludes 0, which takes 200 times as long and agreed in 157 of 160 gates near the border),
`interpret` of paired-eval with its exact McNemar test, as its reports of pass or fail do
(significant and worse). They ask whether there is any drop; none takes a margin. Recovery is the
quantized accuracy over FP32's. Without them the exit code is 3.

Of clipq, policy `ci` blocks a failure or a suspicion, `release` whatever is no pass. With 106 cases
the 105 others lose nothing, are independent, and their margins are 2.5 to 100 standard errors wide
at 2,048 samples, in even steps of their logarithm, as those of this repository's candidates are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from benchmark import Goals, Script, lacking
from failure_rules import RULES
from scipy.special import ndtri
from tabulate import tabulate

from clipq.settings import StatisticsSettings
from clipq.stats import Discordance, score_z

STATISTICS = StatisticsSettings()
ACCURACY, CHANGED, MARGIN = 0.8, 0.02, 0.01
HARMLESS, HARMFUL = (0.0, 0.003), 2 * MARGIN
PEERS = {"evalgate": "evalgate-cli", "deltagate": "deltagate", "paired_eval": "paired-eval"}
CASES = 106
_RULE = "Holm, p <= 0.5"
_WIDTHS = np.geomspace(2.5, 100.0, CASES - 1)
_THEIR_ALPHA = 0.05

Gate = Callable[[int, int, int, int], bool]
"""Whether right-right, right-wrong, wrong-right and wrong-wrong samples are blocked."""


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="half a minute")
    script.size("--samples", full=(500, 2048, 10_000), quick=(500,), help="in distribution")
    script.size("--gates", full=2000, quick=50, help="simulated per row")
    options = script.options(arguments)
    gates = rules_of_thumb()
    if not options.quick:
        if absent := [package for name, package in PEERS.items() if find_spec(name) is None]:
            lacking(f"pip install {' '.join(absent)}")
        gates |= peers()
    goals, rows = Goals(quick=options.quick), []
    for samples in options.samples:
        clipq = {
            f"clipq, {cases} case{'s' * (cases > 1)}, {policy}": _clipq(cases, policy=policy)
            for policy in ("ci", "release")
            for cases in (1, CASES)
        }
        for name, gate in (gates | clipq).items():
            shares = [_blocked(gate, samples, options.gates, drop) for drop in HARMLESS]
            missed = 1.0 - _blocked(gate, samples, options.gates, HARMFUL)
            rows.append((samples, name, *(f"{x:.1%}" for x in (*shares, missed))))
            if name.endswith("ci"):
                goals.measured(max(shares) <= 0.05 and (samples < 2048 or missed <= 0.1))
    headers = ["samples", "gate", *(f"false alarms, drop {x:.1%}" for x in HARMLESS)]
    headers.append(f"misses, drop {HARMFUL:.0%}")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    return goals.code


def _blocked(gate: Gate, samples: int, gates: int, drop: float) -> float:
    """Return how often a gate blocks models with such a drop."""
    rng = np.random.default_rng([samples, round(drop * 1000)])
    half = CHANGED / 2
    kept = ACCURACY - half
    # Of what stays right, so much turns wrong that the accuracy falls by the drop.
    chances = [kept - drop, half + drop, half, 1.0 - ACCURACY - half]
    drawn = rng.multinomial(samples, chances, size=gates)
    return float(np.mean([gate(*map(int, counts)) for counts in drawn]))


def rules_of_thumb() -> dict[str, Gate]:
    """Return the rules that look at two accuracies alone."""

    def recovery(least: float) -> Gate:
        return lambda both, worse, better, neither: both + better < least * (both + worse)

    def drop(both: int, worse: int, better: int, neither: int) -> bool:
        return worse - better > MARGIN * (both + worse + better + neither)

    return {
        "recovery >= 0.95": recovery(0.95),
        "recovery >= 0.99": recovery(0.99),
        "drop <= 1 point": drop,
    }


def peers() -> dict[str, Gate]:
    """Return the published gates; each decides equal counts once."""
    evalgate, deltagate, paired = map(import_module, PEERS)

    @cache
    def with_evalgate(both: int, worse: int, better: int, neither: int) -> bool:
        return bool(evalgate.decide(evalgate.mcnemar_test(worse, better)).is_regression)

    @cache
    def with_deltagate(both: int, worse: int, better: int, neither: int) -> bool:
        counts = (both, worse, better, neither)
        fp32, ours = (np.repeat(right, counts) for right in ((1, 1, 0, 0), (1, 0, 1, 0)))
        found = deltagate.paired_delta(fp32, ours)
        return bool(found["p_value"] < _THEIR_ALPHA and found["delta"] > 0)

    @cache
    def with_paired(both: int, worse: int, better: int, neither: int) -> bool:
        size = both + worse + better + neither
        drop = (worse - better) / size
        compared = {
            "n": size,
            "mean_diff": drop,
            "diff_ci": (drop, drop),
            "p_value": paired.mcnemar_exact(worse, better),
        }
        if compared["p_value"] >= _THEIR_ALPHA:
            return False  # it would go on to search for the effect that is ruled out
        said = paired.interpret(compared, floor_n=worse + better, lang="en")
        return bool(said["verdict"] == "significant" and drop > 0)

    return {
        "evalgate-cli": with_evalgate,
        "deltagate": with_deltagate,
        "paired-eval": with_paired,
    }


def _clipq(cases: int, *, policy: str) -> Gate:
    """Return a policy's decision on a case that was drawn and others that lose nothing."""
    rng = np.random.default_rng(cases)
    tail = STATISTICS.tail
    most = -ndtri(STATISTICS.suspicion) if policy == "ci" else ndtri(tail)

    def gate(both: int, worse: int, better: int, neither: int) -> bool:
        size = both + worse + better + neither
        scores = np.empty((1, cases))
        scores[0, 0] = score_z(Discordance(worse, better, size), MARGIN)
        widths = _WIDTHS[: cases - 1] * np.sqrt(size / 2048)
        scores[0, 1:] = rng.standard_normal(cases - 1) - widths
        return bool(RULES[_RULE](scores, tail).any() or (scores > most).any())

    return gate


if __name__ == "__main__":
    sys.exit(main())
