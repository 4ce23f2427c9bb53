"""Every kind of statistic, once: the columns that it needs, and how it is computed on resamples.

Metrics declare a kind (`clipq.metrics.Statistic`), `clipq.stats` computes it on arrays, and
`clipq.evaluation.resampling` joins both: all three read this table.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of statistic.

    Args:
        columns: what it reads of each sample, by what the column stands for.
        family: kinds that are computed together, or in one way: ``values``, a statistic of one
            value a sample; ``ranking`` of scores against those in distribution, ``reversed`` with
            out-of-distribution as the positive class, ``threshold`` at one point of the ranking;
            ``binned``, ``smooth`` and ``selective`` of confidence and correctness; ``groups``
            between the table's groups; ``point``, one number for the whole probe, of which nothing
            can be resampled.
        counts: whether it moves in steps of one sample, so that no change is not certainty.
    """

    columns: tuple[str, ...]
    family: str
    counts: bool = True


_ANSWER = ("confidence", "correct")
KINDS: dict[str, Kind] = {
    "mean": Kind(("value",), "values", counts=False),
    "mean-share": Kind(("value",), "values"),
    "mean-gap": Kind(_ANSWER, "values"),
    "share": Kind(("value",), "values"),
    "skewness": Kind(("value",), "values"),
    "ece": Kind(_ANSWER, "binned"),
    "ace": Kind(_ANSWER, "binned"),
    "mce": Kind(_ANSWER, "binned"),
    "smooth-ece": Kind(_ANSWER, "smooth"),
    "aurc": Kind(_ANSWER, "selective"),
    "augrc": Kind(_ANSWER, "selective"),
    "coverage": Kind(_ANSWER, "selective"),
    "auroc": Kind(("score",), "ranking"),
    "aupr": Kind(("score",), "ranking"),
    "fpr95": Kind(("score",), "threshold"),
    "aupr-out": Kind(("score",), "reversed"),
    "group-min": Kind(("correct",), "groups"),
    "group-range": Kind(("correct",), "groups"),
    "group-std": Kind(("correct",), "groups"),
    "group-ece-range": Kind(_ANSWER, "groups"),
    "group-tpr-range": Kind(("correct", "label"), "groups"),
    "relative-gap": Kind(("correct",), "groups"),
    "added-vulnerability": Kind(("correct", "fp32_correct"), "groups"),
    "corruption-error": Kind(("correct", "fp32_correct"), "groups"),
    "point": Kind((), "point", counts=False),
}
