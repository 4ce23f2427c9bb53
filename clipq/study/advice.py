"""Which configurations of a model meet given margins, and which nothing else beats: how surely.

Every loss is known with an error: theta = d + s Z + u T, with the sampling error s and, of K seeds,
u = S / sqrt K with Student's t of K - 1 degrees of freedom: the terms of the interval in
`clipq.study.effects`. Losses are drawn from that, all of a model's configurations together, and
each draw is judged as if it were the truth:

- it *meets* the margins where no loss exceeds its own;
- it is on a *front* where no other configuration costs as little and loses as little, and less of
  one of the two. There is a front of each criterion, and one of all criteria together.

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
    cost: str = "weight-bits",
    margins: Mapping[str, float] | None = None,
    draws: int = _DRAWS,
) -> dict[str, Any]:
    """Return what is known of every configuration under margins, as plain data.

    Matched noise is nothing that could be chosen, and is left out.

    Args:
        configurations: of the document: ``model``, ``costs``, ``values`` and so on.
        asked: what must not be lost. Of a model, those that any configuration of it has.
        cost: of `clipq.study.configuration_costs.COSTS`.
        margins: by key or by metric, in place of those that the results were judged by.
        draws: how many; probabilities have a standard error of 0.5 / sqrt(draws) at most.
    """
    chosen: dict[str, list[int]] = {}
    for place, each in enumerate(configurations):
        if each["method"] != "noise":
            chosen.setdefault(each["model"], []).append(place)
    models = {}
    for model, places in chosen.items():
        own = [configurations[place] for place in places]
        measured = [one for one in asked if any(one.key in each["values"] for each in own)]
        rows = _advised(own, measured, cost, margins or {}, draws)
        named = [{"configuration": place} | row for place, row in zip(places, rows, strict=True)]
        models[model] = {"criteria": [one.key for one in measured], "configurations": named}
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
    margins: Mapping[str, float],
    draws: int,
) -> list[dict[str, Any]]:
    """Return a row per configuration of one model."""
    rows: list[dict[str, Any]] = []
    known, costs, limits = [], [], []
    for each in own:
        losses = [one.loss(each["values"].get(one.key, {})) for one in asked]
        allowed = [_margin(one, each["values"].get(one.key, {}), margins) for one in asked]
        lacks = [
            one.key
            for one, loss, limit in zip(asked, losses, allowed, strict=True)
            if loss is None or limit is None
        ]
        row: dict[str, Any] = {"answer": "unknown", "meets": None, "lacks": lacks}
        row |= {"over": [], "open": [], "front": None, "fronts": {}}
        rows.append(row)
        effects = [loss for loss in losses if loss is not None]
        bounds = [limit for limit in allowed if limit is not None]
        if lacks or not asked:
            continue
        row |= _answer(asked, effects, bounds)
        known.append((row, effects))
        limits.append(bounds)
        costs.append(each["costs"].get(cost))
    if not known:
        return rows
    losses_drawn = Losses([effects for _, effects in known], seed=_SEED)
    allowed_losses = np.array(limits)

    def within(drawn: np.ndarray) -> np.ndarray:
        return np.asarray((drawn <= allowed_losses).all(axis=2))

    met = losses_drawn.share(within, draws)
    for (row, _), share in zip(known, met, strict=True):
        row["meets"] = share
        if row["answer"] == "unknown":
            row["answer"] = "probably" if share >= 0.5 else "hardly"
    _on_fronts([(row, effects, price) for (row, effects), price in zip(known, costs, strict=True)],
               asked, draws)  # fmt: skip
    return rows


def _on_fronts(
    rows: Sequence[tuple[dict[str, Any], list[Effect], float | None]],
    asked: Sequence[Criterion],
    draws: int,
) -> None:
    """Write into rows how probably each is on the fronts; those of no known cost are on none."""
    priced = [(row, effects, price) for row, effects, price in rows if price is not None]
    if not priced:
        return
    costs = np.array([price for _, _, price in priced])
    losses = Losses([effects for _, effects, _ in priced], seed=_SEED)
    joint = losses.share(lambda drawn: joint_front(costs, drawn), draws)
    for (row, _, _), share in zip(priced, joint, strict=True):
        row["front"] = share
    for index, one in enumerate(asked):
        shares = losses.share(partial(_front_of, costs, index), draws)
        for (row, _, _), share in zip(priced, shares, strict=True):
            row["fronts"][one.key] = share


def _front_of(costs: np.ndarray, criterion: int, drawn: np.ndarray) -> np.ndarray:
    return front(costs, drawn[:, :, criterion])


def _answer(
    asked: Sequence[Criterion], losses: Sequence[Effect], limits: Sequence[float]
) -> dict[str, Any]:
    """Return the answer where it is sure, and which criteria are surely over, or open."""
    over, open_ = [], []
    for one, loss, limit in zip(asked, losses, limits, strict=True):
        if loss.interval(TAIL / len(asked))[0] > limit:
            over.append(one.key)
        elif loss.interval()[1] > limit:
            open_.append(one.key)
    answer = "surely not" if over else "unknown" if open_ else "surely"
    return {"answer": answer, "over": over, "open": open_}


def _margin(one: Criterion, value: Mapping[str, Any], margins: Mapping[str, float]) -> float | None:
    given = margins.get(one.key, margins.get(one.metric))
    return value.get("margin") if given is None else given
