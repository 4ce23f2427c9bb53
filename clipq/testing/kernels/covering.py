"""Pairwise covering designs: few cases in which any two factors meet in all their levels.

Most faults of software show where two conditions meet (Kuhn, Wallace and Gallo 2004, "Software
fault interactions and implications for software testing"): cases that cover all pairs of levels
find them at a small part of the price of all combinations. Cases are drawn greedily, as in AETG
(Cohen, Dalal, Fredman and Patton 1997), without chance: a design is the same in every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

__all__ = ["all_combinations", "covering"]

_Level = tuple[int, int]  # a factor's place, and a level's in it


def covering(factors: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return cases, one level of each factor, such that every two levels of two factors meet.

    Args:
        factors: levels by the name of their factor; at least one each.

    >>> cases = covering({"rows": (1, 64), "bias": (False, True), "dims": (2, 3)})
    >>> len(cases), cases[0]
    (4, {'rows': 1, 'bias': False, 'dims': 2})
    """
    sizes = [len(levels) for levels in factors.values()]
    if len(sizes) < 2:
        return all_combinations(factors)
    open_pairs = {
        ((one, first), (other, second))
        for one, other in combinations(range(len(sizes)), 2)
        for first, second in product(range(sizes[one]), range(sizes[other]))
    }
    # Factors of many levels first: theirs are the pairs that decide how many cases there are.
    order = sorted(range(len(sizes)), key=lambda factor: (-sizes[factor], factor))
    uses: dict[_Level, int] = {}
    cases = []
    while open_pairs:
        chosen = dict(min(open_pairs))
        for factor in order:
            if factor not in chosen:
                chosen[factor] = max(
                    range(sizes[factor]),
                    key=lambda level, factor=factor: (  # type: ignore[misc]
                        _closed((factor, level), chosen, open_pairs),
                        -uses.get((factor, level), 0),
                        -level,
                    ),
                )
        places = sorted(chosen.items())
        open_pairs.difference_update(combinations(places, 2))
        for place in places:
            uses[place] = uses.get(place, 0) + 1
        cases.append({name: factors[name][chosen[factor]] for factor, name in enumerate(factors)})
    return cases


def all_combinations(factors: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of levels.

    >>> all_combinations({"bias": (False, True), "dims": (2,)})
    [{'bias': False, 'dims': 2}, {'bias': True, 'dims': 2}]
    """
    return [dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())]


def _closed(
    place: _Level, chosen: Mapping[int, int], open_pairs: set[tuple[_Level, _Level]]
) -> int:
    """Return how many open pairs a level makes with those that are chosen."""
    return sum(((min(place, other), max(place, other)) in open_pairs) for other in chosen.items())
