"""What the site's pages read: an overview of everything, and one file of columns per pair.

Plain lists and numbers. No name from outside is ever a key, so none can shadow one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipq.history.model import RunInfo, TrendTable
from clipq.history.site.columns import decimal_step, pack, whole_steps
from clipq.history.site.commits import CommitLink
from clipq.history.steps import Levels, Step, yardsticks
from clipq.verdicts import POLICIES, Policy, Verdict

__all__ = ["Current", "Matrix", "current_state", "matrix_of", "overview", "pair_columns"]

_LONGEST_SUBJECT = 200
_FIGURES = 5  # significant digits of what is listed
_AGREES = 1.5  # steps of rounding within which observed = baseline +- loss


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """The cases as model x quantizer pairs times probe.metric keys; numbers count rows of each."""

    models: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    keys: tuple[str, ...]
    pair_of: np.ndarray
    key_of: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Current:
    """Per case (C,): the last run that has it (-1: none), its verdict, and the run since which the
    verdict is the same."""

    last: np.ndarray
    verdict: np.ndarray
    since: np.ndarray


def matrix_of(table: TrendTable) -> Matrix:
    """Split case ids; both names and pairs are in the order of the table."""
    split = []
    for case in table.cases:
        # Not `Case.parse`: a store may hold names that no plan would make, and they are shown.
        pair, _, key = case.rpartition("/")
        model, _, quantizer = pair.partition("/")
        split.append((model, quantizer, key))
    pairs = tuple(dict.fromkeys((model, quantizer) for model, quantizer, _ in split))
    keys = tuple(dict.fromkeys(key for _, _, key in split))
    pair_number = {pair: number for number, pair in enumerate(pairs)}
    key_number = {key: number for number, key in enumerate(keys)}
    return Matrix(
        models=tuple(dict.fromkeys(model for model, _ in pairs)),
        pairs=pairs,
        keys=keys,
        pair_of=np.array([pair_number[m, q] for m, q, _ in split], dtype=np.int64),
        key_of=np.array([key_number[key] for _, _, key in split], dtype=np.int64),
    )


def current_state(table: TrendTable) -> Current:
    """Say where each case stands."""
    verdicts = table.verdicts
    count, runs = verdicts.shape
    columns = np.arange(runs)
    present = verdicts >= 0
    last = np.where(present, columns, -1).max(axis=1, initial=-1)
    verdict = np.where(last >= 0, verdicts[np.arange(count), last], -1) if runs else last
    other = np.where(present & (verdicts != verdict[:, None]), columns, -1).max(axis=1, initial=-1)
    later = present & (columns > other[:, None])
    since = np.where(last >= 0, later.argmax(axis=1), -1) if runs else last
    return Current(last=last, verdict=verdict, since=since)


def overview(
    table: TrendTable,
    steps: Sequence[Step],
    *,
    matrix: Matrix,
    link: CommitLink | None,
) -> dict[str, Any]:
    """Return what every page needs: runs, the state of each case, all steps."""
    now = current_state(table)
    rows, at = np.arange(len(table.cases)), np.maximum(now.last, 0)
    units = tuple(dict.fromkeys(table.units))
    passed, present = _passed(table, matrix)
    return {
        "verdicts": [verdict.value for verdict in Verdict],
        "blocks": {
            rule: [policy.blocks(verdict) for verdict in Verdict]
            for rule, policy in _policies(table).items()
        },
        "link": None if link is None else [link.before, link.after],
        **_runs(table.runs),
        "models": [_text(model) for model in matrix.models],
        "pairs": [[_text(model), _text(quantizer)] for model, quantizer in matrix.pairs],
        "keys": [_text(key) for key in matrix.keys],
        "units": [_text(unit) for unit in units],
        "pairPassed": pack(passed),
        "pairPresent": pack(present),
        "cases": {
            "pair": matrix.pair_of.tolist(),
            "key": matrix.key_of.tolist(),
            "unit": [units.index(unit) for unit in table.units],
            "direction": [_text(direction) for direction in table.directions],
            "margin": _rounded(table.margins),
            "last": now.last.tolist(),
            "verdict": now.verdict.tolist(),
            "since": now.since.tolist(),
            "loss": _rounded(table.loss[rows, at]),
            "error": _rounded(table.error[rows, at]),
            "observed": _rounded(table.observed[rows, at]),
            "baseline": _rounded(table.baseline[rows, at]),
        },
        "steps": {
            "case": [step.case for step in steps],
            "run": [step.run for step in steps],
            "last": [step.last for step in steps],
            "before": _rounded(step.before for step in steps),
            "after": _rounded(step.after for step in steps),
            "margins": _rounded(step.margins for step in steps),
            "errors": _rounded(step.errors for step in steps),
            "jitter": _rounded(step.jitter for step in steps),
            "reference": [_one(step.reference) if step.by_reference else None for step in steps],
            "confirmed": [int(step.confirmed) for step in steps],
        },
    }


def pair_columns(
    table: TrendTable, rows: np.ndarray, *, levels: Sequence[Levels]
) -> dict[str, Any]:
    """Return the columns over runs of some cases; `rows` are rows of the table.

    An observed column is left out where it follows from FP32's value, the loss and the direction.
    """
    yards = yardsticks(table)[rows]
    named = (table.loss, table.error, table.baseline, table.observed)
    loss, error, baseline, observed = (column[rows] for column in named)
    largest = np.zeros(len(rows))
    for column in (loss, error, baseline, observed):
        finite = np.where(np.isfinite(column), np.abs(column), 0.0)
        largest = np.maximum(largest, finite.max(axis=1, initial=0.0))
    exponents = np.array(
        [decimal_step(float(y), largest=float(m)) for y, m in zip(yards, largest, strict=True)],
        dtype=np.int64,
    )
    signs = {"lower": 1.0, "higher": -1.0}
    sign = np.array([signs.get(table.directions[row], np.nan) for row in rows])
    with np.errstate(invalid="ignore", over="ignore"):
        derived = baseline + sign[:, None] * loss
        off = np.abs(derived - observed) > _AGREES * (10.0 ** exponents.astype(np.float64))[:, None]
        off |= np.isfinite(derived) != np.isfinite(observed)
    underivable = off.any(axis=1)
    texts = iter(pack(whole_steps(observed[underivable], exponents[underivable])))
    return {
        "exponent": exponents.tolist(),
        "loss": pack(whole_steps(loss, exponents)),
        "error": pack(whole_steps(error, exponents)),
        "baseline": pack(whole_steps(baseline, exponents)),
        "observed": [next(texts) if apart else None for apart in underivable],
        "verdict": pack(table.verdicts[rows]),
        "odd": [list(levels[row].odd) for row in rows],
    }


def _policies(table: TrendTable) -> dict[str, Policy]:
    """Return the policies of all runs, and the usual ones; of one name, the latest."""
    return dict(POLICIES) | {run.policy: run.rule for run in table.runs}


def _passed(table: TrendTable, matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return per pair and run (P, R) how many cases did not block, and how many there were."""
    blocking = {
        rule: np.array([policy.blocks(verdict) for verdict in Verdict] + [False])
        for rule, policy in _policies(table).items()
    }
    passed = np.zeros((len(matrix.pairs), len(table.runs)), dtype=np.int64)
    present = np.zeros_like(passed)
    for column, run in enumerate(table.runs):
        verdicts = table.verdicts[:, column]  # -1, absent, is the last entry of `blocking`
        there = verdicts >= 0
        good = there & ~blocking[run.policy][verdicts]
        present[:, column] = np.bincount(matrix.pair_of[there], minlength=len(matrix.pairs))
        passed[:, column] = np.bincount(matrix.pair_of[good], minlength=len(matrix.pairs))
    return passed, present


def _runs(runs: Sequence[RunInfo]) -> dict[str, Any]:
    environments: dict[tuple[tuple[str, str], ...], int] = {}
    numbers = []
    for run in runs:
        pairs = tuple(sorted((_text(key), _text(value)) for key, value in run.environment.items()))
        numbers.append(environments.setdefault(pairs, len(environments)))
    return {
        "runs": {
            "number": [run.number for run in runs],
            "id": [_text(run.id) for run in runs],
            "started": [_text(run.started) for run in runs],
            "sha": [_text(run.commit.get("sha")) for run in runs],
            "subject": [_text(run.commit.get("subject"))[:_LONGEST_SUBJECT] for run in runs],
            "branch": [_text(run.commit.get("branch")) for run in runs],
            "dirty": [int(bool(run.commit.get("dirty"))) for run in runs],
            "policy": [_text(run.policy) for run in runs],
            "passed": [int(run.passed) for run in runs],
            "cases": [run.cases for run in runs],
            "counts": [_counts(run.counts) for run in runs],
            "environment": numbers,
        },
        "environments": [[list(pair) for pair in pairs] for pairs in environments],
    }


def _counts(counts: Mapping[str, int]) -> list[int]:
    numbers = [int(counts.get(verdict.value, 0)) for verdict in Verdict]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def _rounded(values: Iterable[float] | np.ndarray) -> list[float | int | None]:
    return [_one(value) for value in values]


def _one(value: float) -> float | int | None:
    """Return a number of a few significant digits; None unless it is finite."""
    if not np.isfinite(value):
        return None
    short = float(f"{value:.{_FIGURES}g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short


def _text(value: object) -> str:
    """Return a text without halves of surrogate pairs, which no address can hold."""
    text = "" if value is None else str(value)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
