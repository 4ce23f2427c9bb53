"""Which correction within a candidate, and which level of suspicion: measured on real predictions.

    python benchmarks/candidate_decisions.py [--quick] [--samples 512 2048 8192] [--draws 1000]
    python benchmarks/candidate_decisions.py --keep DRAWS     # makes draws once, tables again

Whole candidates of this repository's matrix (model x quantizer, 106 cases) are drawn again and
again (`candidate_draws`), and judged as if the true losses were other ones: all at the margin, all
at half of it, none at all, or one metric harmed by some times its margin while the others are not.

The true loss is that of the whole tables or, in rows that say `expected`, the expected one at that
number of samples, which is what an interval of a biased statistic is for (docs/statistics.md).

Goals: within a candidate at its margins, a false failure in at most 2.5 % (Monte Carlo error
added); harmless candidates blocked by policy `ci` in at most 5 %; one metric harmed by twice its
margin blocked in at least 95 % at the number of samples that `clipq power` names, and top-1 and NLL
in at least 90 % at 2,048 samples. The standard errors of some draws are also estimated by a real
gate's bootstrap; the closed forms are to lie within 10 % of them, in the median of each kind.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
from benchmark import Goals, Script
from candidate_draws import CandidateDraws
from candidates import Candidate, real_errors
from drawn_errors import drawn_errors
from embedded import embedded_settings, kept_predictions
from failure_rules import RULES, Decisions, Rule, decide, maximum
from tabulate import tabulate

from clipq.gating.margins import load_margins
from clipq.gating.planning import plan_power
from clipq.metrics import metrics
from clipq.settings import Settings, StatisticsSettings

STATISTICS = StatisticsSettings()
TAIL = STATISTICS.tail
HARMED = ("id.top1", "id.nll", "id.ece", "near-ood.auroc-mcm", "id.worst-group-top1")
TIMES = (0.5, 1.0, 1.5, 2.0, 3.0)
LEVELS = (0.16, 0.10, 0.05, 0.025)
NESTED = 30
CHOSEN = "Holm, p <= 0.5"
"""The rule that verdicts are shown by."""
_PART = 1000
_HARMLESS, _FOUND, _PROMISED, _CLOSE = 0.05, 0.90, 0.95, 0.10

All = Mapping[tuple[str, int], CandidateDraws]


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about forty minutes on one core")
    script.size(
        "--candidates",
        full=("vit-clean/rtn:w8a8", "vit-clean/rtn:w4g32", "siglip/rtn:w8a8", "siglip/rtn:w4g32"),
        quick=("vit-clean/rtn:w8",),
        help="MODEL/QUANTIZER",
    )
    script.size("--samples", full=(512, 2048, 8192), quick=(512,), help="in distribution")
    script.size("--draws", full=1000, quick=8, help="of each candidate and size")
    script.size("--errors", full=20, quick=1, help="draws whose errors a real gate estimates too")
    script.add_argument("--keep", type=Path, help="folder that draws are kept in and taken from")
    script.add_argument("--cache", type=Path, help="where predictions are kept")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    with kept_predictions(options.cache, apart=options.quick) as cache:
        settings = embedded_settings(
            models=1 if options.quick else None,
            quantizers=[name.split("/")[1] for name in options.candidates],
            probes=("id", "calibration", "near-ood") if options.quick else (),
            cache=cache,
        )
        candidates = [Candidate.load(settings, *name.split("/")) for name in options.candidates]
        drawn = dict(_draws(candidates, options.samples, options.draws, options.keep))
        _show_errors(candidates[0], options.errors, settings, goals)
        _show_rules(drawn, goals)
        _show_power(drawn)
        _show_harmless(drawn, goals)
        _show_harmed(drawn, goals)
        _show_promise(candidates, options.draws, settings, goals)
    return goals.code


def _draws(
    candidates: Sequence[Candidate], sizes: Sequence[int], draws: int, keep: Path | None
) -> Iterator[tuple[tuple[str, int], CandidateDraws]]:
    """Yield the draws of each candidate and size, made a thousand at a time."""
    for candidate in candidates:
        for samples in sizes:
            parts = []
            for seed, start in enumerate(range(0, draws, _PART), start=1):
                size = min(_PART, draws - start)
                name = f"{candidate.name}+{samples}+{seed}.npz".replace("/", "+").replace(":", "-")
                path = keep / name if keep else None
                parts.append(_kept(candidate, samples, size, seed, path))
            print(f"drawn: {candidate.name}, {samples} samples", file=sys.stderr, flush=True)
            yield (candidate.name, samples), CandidateDraws.joined(parts)


def _kept(
    candidate: Candidate, samples: int, draws: int, seed: int, path: Path | None
) -> CandidateDraws:
    if path is not None and path.exists():
        with np.load(path) as stored:
            found = CandidateDraws(**stored)
        if len(found.noise) == draws:
            return found
    made = CandidateDraws.make(candidate, samples, draws, seed=seed, replicates=NESTED)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **{one.name: getattr(made, one.name) for one in fields(made)})
    return made


def _scores(draws: CandidateDraws, losses: np.ndarray, seed: int = 0) -> np.ndarray:
    return draws.scores(losses, np.random.default_rng([seed, 2]))


def _harm(draws: CandidateDraws, key: str, times: float) -> tuple[np.ndarray, int]:
    """Return the scores of a candidate that one metric of is harmed, and which case that is."""
    at = int(np.flatnonzero(draws.keys == key)[0])
    losses = np.zeros(len(draws.keys))
    losses[at] = times * draws.margins[at]
    return _scores(draws, losses), at


# -- standard errors -----------------------------------------------------------------------------


def _show_errors(candidate: Candidate, draws: int, settings: Settings, goals: Goals) -> None:
    rng = np.random.default_rng(3)
    counts = candidate.counts(512, draws, rng)
    quick, _ = drawn_errors(candidate, counts, rng, NESTED)
    real = real_errors(candidate, counts, settings)
    kinds = np.array([metrics.get(case.metric).statistic.kind for case in candidate.cases])
    known = real > 0
    rows = []
    for kind in sorted(set(kinds)):
        ratio = (quick / np.where(known, real, np.nan))[:, kinds == kind]
        ratio = ratio[np.isfinite(ratio)]
        if len(ratio):
            rows.append((kind, (kinds == kind).sum(), np.median(ratio), ratio.std()))
            goals.measured(abs(rows[-1][2] - 1.0) <= _CLOSE)
    _table(
        f"\nStandard errors of {draws} draws of 512 samples ({candidate.name}), over a real gate's",
        ("kind", "cases", "median ratio", "spread"),
        rows,
        ("", "", ".3f", ".3f"),
    )


# -- rules ---------------------------------------------------------------------------------------


def _rules(draws: CandidateDraws) -> dict[str, Rule]:
    """Return every rule; the maximum's null is that of other draws, which no gate knows so well."""
    null = _scores(draws, draws.margins, seed=1)
    half = len(null) // 2
    return RULES | {"step-down maximum": partial(_second_half, null=null[:half])}


def _second_half(scores: np.ndarray, tail: float, *, null: np.ndarray) -> np.ndarray:
    """Judge only draws that the null does not come from; the others, by no rule, never fail."""
    half = len(null)
    return np.concatenate([maximum(scores[half:], tail, null=null)] * 2)[: len(scores)]


def _both(drawn: All) -> Iterator[tuple[tuple[str, int], str, CandidateDraws]]:
    for key, draws in drawn.items():
        yield key, "whole", draws
        yield key, "expected", draws.expected()


def _show_rules(drawn: All, goals: Goals) -> None:
    rows = []
    for (name, samples), against, draws in _both(drawn):
        rules = _rules(draws)
        tenth = np.arange(len(draws.keys)) % 10 == 0
        for what, share in (
            ("at the margins", np.ones(len(tenth))),
            ("a tenth there, the others 0", tenth),
            ("half the margins", 0.5),
            ("0", 0.0),
        ):
            scores = _scores(draws, share * draws.margins)
            found = [rule(scores, TAIL).any(axis=1).mean() for rule in rules.values()]
            rows.append((name, samples, against, what, *found))
            if what == "at the margins" and against == "expected":
                least = TAIL + 3 * math.sqrt(TAIL * (1 - TAIL) / len(scores))
                goals.measured(found[list(rules).index(CHOSEN)] <= least)
    _table(
        "\nAny false failure in a candidate, by its true losses",
        ("candidate", "samples", "against", "losses", *rules),
        rows,
        ("", "", "", "", *[".1%"] * len(rules)),
    )


def _show_power(drawn: All) -> None:
    rows = []
    for (name, samples), draws in drawn.items():
        rules = _rules(draws)
        for key in HARMED:
            for times in TIMES[1:]:
                scores, at = _harm(draws, key, times)
                found = [rule(scores, TAIL)[:, at].mean() for rule in rules.values()]
                rows.append((name, samples, key, f"{times:g}", *found))
    _table(
        "\nThe harmed case fails; loss in margins, the other cases lose nothing",
        ("candidate", "samples", "case", "loss", *rules),
        rows,
        ("", "", "", "", *[".1%"] * len(rules)),
    )


# -- suspicion -----------------------------------------------------------------------------------


def _show_harmless(drawn: All, goals: Goals) -> None:
    rows = []
    for (name, samples), against, draws in _both(drawn):
        for what, share in (("0", 0.0), ("half the margins", 0.5)):
            scores = _scores(draws, share * draws.margins)
            found = [_decided(scores, level) for level in LEVELS]
            rows.append((name, samples, against, what, *_shares(found)))
            if share == 0.0 and samples >= 2048:
                chosen = _decided(scores, STATISTICS.suspicion)
                goals.measured(chosen.blocked <= _HARMLESS)
    _table(
        f"\nHarmless candidates: P(fail), P(ci exits 1) by level of suspicion, P(release blocks); "
        f"failures by {CHOSEN}",
        ("candidate", "samples", "against", "losses", *_DECIDED),
        rows,
        ("", "", "", "", *[".1%"] * (2 + len(LEVELS))),
    )


def _show_harmed(drawn: All, goals: Goals) -> None:
    rows = []
    for (name, samples), draws in drawn.items():
        for key in HARMED:
            at = int(np.flatnonzero(draws.keys == key)[0])
            errors = draws.margins[at] / np.median(draws.error[:, at])
            for times in TIMES:
                scores, _ = _harm(draws, key, times)
                found = [_decided(scores, level) for level in LEVELS]
                rows.append((name, samples, key, errors, f"{times:g}", *_shares(found)))
                if times == 2.0 and samples == 2048 and key in HARMED[:2]:
                    goals.measured(_decided(scores, STATISTICS.suspicion).blocked >= _FOUND)
    _table(
        "\nCandidates harmed in one metric: loss in margins; `margin` in standard errors",
        ("candidate", "samples", "case", "margin", "loss", *_DECIDED),
        rows,
        ("", "", "", ".1f", "", *[".1%"] * (2 + len(LEVELS))),
    )


_DECIDED = ("fail", *(f"ci {level}" for level in LEVELS), "release")


def _shares(found: Sequence[Decisions]) -> tuple[float, ...]:
    """Return shares of candidates that fail, that `ci` blocks by level, that `release` blocks."""
    last = found[-1]
    return found[0].failed, *(one.blocked for one in found), last.blocked + last.inconclusive


def _decided(scores: np.ndarray, level: float) -> Decisions:
    return decide(scores, tail=TAIL, suspicion=level, rule=RULES[CHOSEN])


def _show_promise(
    candidates: Sequence[Candidate], draws: int, settings: Settings, goals: Goals
) -> None:
    """Harm by twice the margin, at as many samples as `clipq power` names for that."""
    rows = []
    for candidate in candidates:
        margins = load_margins(settings.margins)
        named = {one.key: one for one in plan_power(settings, candidate.cases, margins)}
        for key in HARMED:
            if named[key].needed is None:
                continue
            scale = len(candidate.tables[candidate.known][0]) / named[key].samples
            samples = math.ceil(named[key].needed * scale)
            alone = candidate.only(key)
            made = CandidateDraws.make(alone, samples, draws, seed=5, replicates=NESTED)
            scores, _ = _harm(made, key, 2.0)
            # Whatever the other cases show, and as if none of them was near its margin.
            surely = RULES["none"](scores, TAIL / len(candidate.cases)).mean()
            found = [_decided(scores, level) for level in LEVELS]
            rows.append((candidate.name, key, samples, surely, *_shares(found)[:-1]))
            chosen = _decided(scores, STATISTICS.suspicion)
            goals.measured(chosen.blocked >= _PROMISED)
    _table(
        "\nHarmed by twice the margin, at the samples that `clipq power` names; the case by "
        "itself, its failures also corrected for all cases",
        ("candidate", "case", "samples", "fail, Bonferroni", *_DECIDED[:-1]),
        rows,
        ("", "", "", *[".1%"] * (2 + len(LEVELS))),
    )


def _table(
    title: str, headers: Sequence[str], rows: Sequence[tuple], formats: Sequence[str]
) -> None:
    print(title)
    shown = [[format(x, y) if y else x for x, y in zip(r, formats, strict=True)] for r in rows]
    print(tabulate(shown, headers, tablefmt="github", disable_numparse=True), flush=True)


if __name__ == "__main__":
    sys.exit(main())
