"""Three answers to a claim: reproduced, not reproduced, undecided.

A claim is about *parts*: an effect, the direction it should have, and the smallest effect that is
worth the name, its *margin*. With one-sided error rates of 2.5 %, a part is

- sure, where its interval lies in the claimed direction from the claim's threshold;
- surely not, where the interval ends before threshold + margin: the effect is in the other
  direction, or too small to be meant;
- open otherwise.

Parts that must hold together are each tested at the full rate (an intersection-union test; Berger
1982). How a claim over several *options* (configurations, probes) is read is its rule:

| rule | reproduced | not reproduced |
|---|---|---|
| `mean` | all parts of the options' mean are sure | a part of it is surely not |
| `exists` | one option is sure in all parts, corrected | every option surely lacks a part |
| `never` | every option surely lacks a part | one option is sure in all parts, corrected |
| `near` | the mean lies within the margin on both sides | it lies outside |
| `at-least` | the mean lies above minus the margin | it lies below 0 |

*Corrected* is for how many options were looked at, by Holm's method, of which only the first step
matters to whether there is any. The best of many options looks better than it is: for `exists` and
`never`, the interval shown is therefore the best option's at 2.5 % over the number of options, and
holds for all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from clipq.errors import listed
from clipq.study.effects import TAIL, Effect, Series, mean_of, summarise

__all__ = ["RULES", "Answer", "Finding", "Option", "Part", "decide"]

RULES = ("mean", "exists", "never", "near", "at-least")


class Answer(StrEnum):
    """What stored results say of a claim.

    >>> [answer.value for answer in Answer]
    ['reproduced', 'not reproduced', 'undecided']
    """

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Part:
    """One effect of a claim.

    Args:
        name: what is measured, for readers.
        series: by seed.
        sign: 1 where the claim says that it is above the threshold, -1 where below.
        threshold: what it is compared with; in the effect's own direction.
        margin: the smallest distance from it that is worth the name.
    """

    name: str
    series: Series
    sign: int = 1
    threshold: float = 0.0
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Option:
    """What may make a claim true: a configuration, by name, and the parts that must hold."""

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer and what it rests on.

    Args:
        answer: of the rule.
        parts: names, effects and intervals that are shown.
        p_value: of the answer's opposite where one was given; of the claim's, where undecided.
        looks: how many options were looked at.
        option: which of them is shown; "" for their mean.
        reason: why it is undecided, if that is not the interval.
        left_out: options that one seed alone was measured of, so that nothing is known of others.
        cases: what the answer rests on.
    """

    answer: Answer
    parts: tuple[tuple[str, Effect, tuple[float, float]], ...] = ()
    p_value: float | None = None
    looks: int = 0
    option: str = ""
    reason: str = ""
    left_out: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()


def decide(rule: str, options: Sequence[Option], *, tail: float = TAIL) -> Finding:
    """Answer a claim.

    Args:
        rule: one of `RULES`.
        options: with equal parts each.
        tail: one-sided error rate.

    >>> from clipq.study.effects import Point
    >>> def change(value):
    ...     series = Series({0: Point(value, 0.004)})
    ...     return Option(f"rtn, {value:+}", (Part("ECE", series, sign=-1, margin=0.005),))
    >>> [decide("mean", [change(x)]).answer.value for x in (-0.02, 0.02, -0.006)]
    ['reproduced', 'not reproduced', 'undecided']
    >>> found = decide("exists", [change(0.02), change(-0.01), change(0.0)])
    >>> found.answer.value, found.option, round(found.p_value, 4)  # 3 x 0.0062
    ('reproduced', 'rtn, -0.01', 0.0186)
    """
    known = [None not in _effects(option) for option in options]
    usable = [option for option, whole in zip(options, known, strict=True) if whole]
    left_out = tuple(option.name for option, whole in zip(options, known, strict=True) if not whole)
    if not usable:
        lacking = f"needs two seeds or more of {listed(left_out)}" if options else "needs options"
        return Finding(Answer.UNDECIDED, reason=lacking, left_out=left_out)
    found = (_searched if rule in ("exists", "never") else _averaged)(rule, usable, tail)
    cases = [case for option in usable for part in option.parts for case in part.series.cases]
    return replace(found, left_out=left_out, cases=tuple(dict.fromkeys(cases)))


def _averaged(rule: str, options: Sequence[Option], tail: float) -> Finding:
    parts = [
        (part, summarise(mean_of([option.parts[index].series for option in options])))
        for index, part in enumerate(options[0].parts)
    ]
    known = [(part, effect) for part, effect in parts if effect is not None]
    if len(known) < len(parts):
        reason = "fewer than two seeds are common to all configurations"
        return Finding(Answer.UNDECIDED, looks=len(options), reason=reason)
    shown = tuple((part.name, effect, effect.interval(tail)) for part, effect in known)
    if rule == "near":
        part, effect = known[0]
        within = max(effect.p_below(part.margin), effect.p_above(-part.margin))
        outside = 2 * min(effect.p_above(part.margin), effect.p_below(-part.margin))
        return _finding(within, outside, tail, shown, len(options))
    if rule == "at-least":
        part, effect = known[0]
        sure, wrong = effect.p_above(-part.margin), effect.p_below(0.0)
        if wrong <= tail:
            sure = 1.0
        return _finding(sure, wrong, tail, shown, len(options))
    sure = max(_sure(part, effect) for part, effect in known)
    wrong = min(1.0, len(known) * min(_surely_not(part, effect) for part, effect in known))
    return _finding(sure, wrong, tail, shown, len(options))


def _searched(rule: str, options: Sequence[Option], tail: float) -> Finding:
    count = len(options)
    rows = [
        [(part, effect) for part, effect in zip(option.parts, _effects(option), strict=True)]
        for option in options
    ]
    sure = [max(_sure(p, e) for p, e in row if e is not None) for row in rows]
    none = [
        min(1.0, len(row) * min(_surely_not(p, e) for p, e in row if e is not None)) for row in rows
    ]
    best = min(range(count), key=lambda index: (sure[index], index))
    shown = tuple((p.name, e, e.interval(tail / count)) for p, e in rows[best] if e is not None)
    exists, nowhere = min(1.0, count * sure[best]), max(none)
    found = _finding(exists, nowhere, tail, shown, count)
    answer = found.answer
    if rule == "never" and answer is not Answer.UNDECIDED:
        turned = (Answer.NOT_REPRODUCED, Answer.REPRODUCED)
        answer = turned[answer is Answer.NOT_REPRODUCED]
    p_value = found.p_value if answer is not Answer.UNDECIDED or rule == "exists" else nowhere
    return Finding(answer, shown, p_value, count, options[best].name)


def _finding(
    sure: float,
    wrong: float,
    tail: float,
    shown: tuple[tuple[str, Effect, tuple[float, float]], ...],
    looks: int,
) -> Finding:
    if sure <= tail:
        return Finding(Answer.REPRODUCED, shown, sure, looks)
    if wrong <= tail:
        return Finding(Answer.NOT_REPRODUCED, shown, wrong, looks)
    return Finding(Answer.UNDECIDED, shown, sure, looks)


def _effects(option: Option) -> list[Effect | None]:
    return [summarise(part.series) for part in option.parts]


def _sure(part: Part, effect: Effect) -> float:
    """Return the p-value against "the part does not hold"."""
    return effect.flipped(part.sign).p_above(part.sign * part.threshold)


def _surely_not(part: Part, effect: Effect) -> float:
    """Return the p-value against "the part holds, by its margin at least"."""
    return effect.flipped(part.sign).p_below(part.sign * part.threshold + part.margin)
