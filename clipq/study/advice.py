"""Which configurations of a model meet given margins, and which nothing else beats: how surely.

Every loss is known with an error: theta = d + s Z + u T, with the sampling error s and, of K seeds,
u = S / sqrt K with Student's t of K - 1 degrees of freedom: the terms of the interval in
`clipq.study.effects`. Losses are drawn from that, all of a model's configurations together, and
each draw is judged as if it were the truth:

- it *meets* the margins where no loss exceeds its own;
- it is on the *front* where nothing else costs as little and has as small a worst loss, counted in
  margins, and less of one of the two. There is a front of each criterion's loss as well, and the
  *joint* one of all of them at once, on which nearly everything is where criteria are many.

The share of draws is the probability. Errors of two configurations are drawn by themselves, for
how they go together is not known. All are measured on the same samples, on which errors mostly
agree, so that a difference is surer than what is drawn, and probabilities are nearer to one half
than they need be. Numbers that are equal to the last digit come from the same predictions and share
their draw.

Beside the probabilities stands an answer with the error rates of the claims: *surely* where the
upper bound of every loss lies within its margin, each at 2.5 % (an intersection-union test),
*surely not* where the lower bound of one lies beyond it, at 2.5 % over their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from clipq.study.calculable import LARGEST
from clipq.study.effects import TAIL, Effect
from clipq.study.fronts import Losses, front, joint_front
from clipq.study.study_table import Column

__all__ = ["ANSWERS", "Criterion", "advice_plain", "criteria"]

ANSWERS = ("surely", "probably", "hardly", "surely not", "unknown")
"""Whether a configuration meets all margins: from the surest to what is not known."""
_DRAWS = 1000
_SEED = 20260731


@dataclass(frozen=True, slots=True)
class Criterion:
    """A column that a configuration must not lose too much of.

    Args:
        key: of the column.
        metric: of it, which margins may name as well.
        sign: 1 where higher is better, -1 where lower is.

    >>> Criterion("top1", "top1", 1).loss({"change": -0.02, "sampling": 0.01, "seeds": 1}).value
    0.02
    """

    key: str
    metric: str
    sign: int

    def loss(self, value: Mapping[str, Any]) -> Effect | None:
        """Return how much worse than FP32 a value of the document is; None where not known."""
        if value.get("change") is None or value.get("sampling") is None:
            return None
        drawn = value.get("drawn") or 0.0
        return Effect(
            -self.sign * value["change"], value["sampling"], drawn**2, value.get("seeds") or 1
        )


def criteria(columns: Sequence[Column]) -> list[Criterion]:
    """Return the columns that have a change against FP32, as criteria."""
    return [Criterion(each.key, each.metric, each.sign) for each in columns if not each.level]


def advice_plain(
    configurations: Sequence[Mapping[str, Any]],
    asked: Sequence[Criterion],
    *,
    cost: str = "bytes",
    margins: Mapping[str, float] | None = None,
    draws: int = _DRAWS,
) -> dict[str, Any]:
    """Return what is known of every configuration under margins, as plain data.

    Matched noise is nothing that could be chosen, and is left out. Of each criterion there is one
    margin, whatever the format, or formats could not be compared: by default the smallest of those
    that results were judged by. Of one without any margin nothing is asked.

    Args:
        configurations: of the document: ``model``, ``costs``, ``values`` and so on.
        asked: what must not be lost. Of a model, those that any configuration of it has.
        cost: of `clipq.study.configuration_costs.COSTS`.
        margins: by key or by metric, in place of these; positive.
        draws: how many; probabilities have a standard error of 0.5 / sqrt(draws) at most.

    >>> top1 = {"change": -0.002, "sampling": 0.001, "seeds": 1, "margin": 0.01}
    >>> rtn = {"model": "vit", "method": "rtn", "costs": {"bytes": 8.0}}
    >>> advice = advice_plain([rtn | {"values": {"top1": top1}}], [Criterion("top1", "top1", 1)])
    >>> advice["models"]["vit"]["configurations"][0]["answer"]
    'surely'
    """
    chosen: dict[str, list[int]] = {}
    for place, each in enumerate(configurations):
        if each["method"] != "noise":
            chosen.setdefault(each["model"], []).append(place)
    models = {}
    for model, places in chosen.items():
        own = [configurations[place] for place in places]
        measured = [one for one in asked if any(one.key in each["values"] for each in own)]
        limits = {one.key: limit for one in measured if (limit := _margin(one, own, margins or {}))}
        rows = _advised(own, [one for one in measured if one.key in limits], cost, limits, draws)
        named = [{"configuration": place} | row for place, row in zip(places, rows, strict=True)]
        keys = [one.key for one in measured]
        models[model] = {"criteria": keys, "margins": limits, "configurations": named}
    return {
        "cost": cost,
        "margins": dict(margins) if margins else None,
        "criteria": [one.key for one in asked],
        "answers": list(ANSWERS),
        "tail": TAIL,
        "draws": draws,
        "models": models,
    }


def _advised(
    own: Sequence[Mapping[str, Any]],
    asked: Sequence[Criterion],
    cost: str,
    limits: Mapping[str, float],
    draws: int,
) -> list[dict[str, Any]]:
    """Return a row per configuration of one model."""
    rows: list[dict[str, Any]] = []
    known: list[tuple[dict[str, Any], list[Effect], float | None]] = []
    for each in own:
        losses = {one.key: one.loss(each["values"].get(one.key, {})) for one in asked}
        lacks = [key for key, loss in losses.items() if loss is None]
        row: dict[str, Any] = {"answer": "unknown", "meets": None, "lacks": lacks}
        row |= {"over": [], "open": [], "worst": None, "limit": None}
        row |= {"front": None, "joint": None, "fronts": {}}
        rows.append(row)
        effects = [loss for loss in losses.values() if loss is not None]
        if not lacks and asked:
            row |= _answer(asked, effects, limits)
            known.append((row, effects, each["costs"].get(cost)))
    if known:
        allowed = np.array([limits[one.key] for one in asked])
        _met(known, allowed, draws)
        _on_fronts([each for each in known if each[2] is not None], asked, allowed, draws)
    return rows


_Known = Sequence[tuple[dict[str, Any], list[Effect], float | None]]


def _met(rows: _Known, allowed: np.ndarray, draws: int) -> None:
    """Write into rows how probably each meets all margins."""

    def within(drawn: np.ndarray) -> np.ndarray:
        return np.asarray((drawn <= allowed).all(axis=2))

    shares = Losses([effects for _, effects, _ in rows], seed=_SEED).share(within, draws)
    for (row, _, _), share in zip(rows, shares, strict=True):
        row["meets"] = share
        if row["answer"] == "unknown":
            row["answer"] = "probably" if share >= 0.5 else "hardly"


def _on_fronts(rows: _Known, asked: Sequence[Criterion], allowed: np.ndarray, draws: int) -> None:
    """Write into rows, all of a known cost, how probably each is on the fronts."""
    if not rows:
        return
    costs = np.array([price for _, _, price in rows])
    losses = Losses([effects for _, effects, _ in rows], seed=_SEED)
    worst = losses.share(lambda drawn: front(costs, (drawn / allowed).max(axis=2)), draws)
    joint = losses.share(lambda drawn: joint_front(costs, drawn), draws)
    for (row, _, _), share, of_all in zip(rows, worst, joint, strict=True):
        row["front"], row["joint"] = share, of_all
    for index, one in enumerate(asked):
        shares = losses.share(partial(_front_of, costs, index), draws)
        for (row, _, _), share in zip(rows, shares, strict=True):
            row["fronts"][one.key] = share


def _front_of(costs: np.ndarray, criterion: int, drawn: np.ndarray) -> np.ndarray:
    return front(costs, drawn[:, :, criterion])


def _answer(
    asked: Sequence[Criterion], losses: Sequence[Effect], limits: Mapping[str, float]
) -> dict[str, Any]:
    """Return the answer where it is sure, which criteria are surely over or open, and the worst."""
    over, open_ = [], []
    for one, loss in zip(asked, losses, strict=True):
        if loss.interval(TAIL / len(asked))[0] > limits[one.key]:
            over.append(one.key)
        elif loss.interval()[1] > limits[one.key]:
            open_.append(one.key)
    answer = "surely not" if over else "unknown" if open_ else "surely"
    excess = [loss.value / limits[one.key] for one, loss in zip(asked, losses, strict=True)]
    worst = max(range(len(asked)), key=lambda at: excess[at])
    found = {"worst": float(f"{excess[worst] + 0.0:.6g}"), "limit": asked[worst].key}
    return {"answer": answer, "over": over, "open": open_} | found


def _margin(
    one: Criterion, own: Sequence[Mapping[str, Any]], margins: Mapping[str, float]
) -> float | None:
    """Return a criterion's margin: the given one, or the smallest that was judged by."""
    given = margins.get(one.key, margins.get(one.metric))
    if given is not None:
        return given
    judged = (each["values"].get(one.key, {}).get("margin") for each in own)
    return min(
        (margin for margin in judged if margin is not None and margin >= 1 / LARGEST), default=None
    )
