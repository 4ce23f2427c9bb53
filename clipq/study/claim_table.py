"""The claims table: C1 to C10 of each model and overall, answered from stored results.

Overall, a claim of a mean is *reproduced* where it is of every model that it is about, and *not
reproduced* where it is not of one, at the error rate divided by the number of models. A claim that
something exists, or never does, is asked of all models' options together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clipq.study.calibration_claims import calibration_claims
from clipq.study.claim_rules import Answer, Finding, Option, decide
from clipq.study.detection_claims import detection_claims
from clipq.study.effects import TAIL, mean_of
from clipq.study.measurements import Measurements
from clipq.study.robustness_claims import robustness_claims
from clipq.study.spectrum_claims import spectrum_claims
from clipq.study.statements import Lacking, Statement, View

__all__ = ["ClaimRow", "ClaimTable", "answer_claims"]


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One claim of one model, answered.

    Args:
        statement: what is claimed.
        model: of which; "" for all of them.
        finding: the answer.
        about: whether the claim is about this model.
        adjusted_p: the p-value times the number of rows of models: corrected for the whole table.
    """

    statement: Statement
    model: str
    finding: Finding
    about: bool = True
    adjusted_p: float | None = None

    @property
    def name(self) -> str:
        """The claim with its part."""
        part = self.statement.part
        return f"{self.statement.claim} {part}" if part else self.statement.claim


@dataclass(frozen=True, slots=True)
class ClaimTable:
    """All claims, answered.

    Args:
        rows: overall rows first, then each model's, in the order of the claims.
        biases: FP32's mean confidence - accuracy by model, with its interval; None if unknown.
        towers: which quantized towers were looked at.
    """

    rows: tuple[ClaimRow, ...]
    biases: dict[str, tuple[float, float, float] | None]
    towers: str

    @property
    def looks(self) -> int:
        """How many effects of options were looked at, over all rows of models."""
        return sum(row.finding.looks for row in self.rows if row.model)

    @property
    def asked(self) -> int:
        """How many rows of models there are that an answer could be looked for in."""
        return sum(bool(row.model and row.finding.looks) for row in self.rows)


def answer_claims(measurements: Measurements, *, towers: str = "vision") -> ClaimTable:
    """Answer C1 to C10.

    Args:
        measurements: of stored results.
        towers: which quantized towers claims are about, where they do not say: ``vision``, as in
            the study, or ``both``.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> from clipq.records import CaseResult, RunRecord
    >>> from clipq.study.gathering import gather
    >>> from clipq.verdicts import Verdict
    >>> estimate = Estimate(loss=0.6, standard_error=0.01)
    >>> case = CaseResult(Case.parse("vit/rtn:w4a4@vision/id.top1"), Verdict.FAIL, samples=500,
    ...                   baseline=0.9, observed=0.3, estimate=estimate,
    ...                   evidence={"probes": {"id": {"role": "in-distribution"}}})
    >>> table = answer_claims(gather([RunRecord("ci", 1, (case,))]))
    >>> {row.name: row.finding.answer.value for row in table.rows if row.model}["C7"]
    'reproduced'
    """
    views = [View(measurements, model, towers) for model in measurements.models]
    statements = [
        *calibration_claims(),
        *detection_claims(),
        *robustness_claims(measurements),
        *spectrum_claims(),
    ]
    statements.sort(key=lambda statement: int(re.sub(r"\D", "", statement.claim)))
    overall, single = [], []
    for statement in statements:
        asked = {view.model: statement.options(view) for view in views}
        rows = [_row(statement, model, options) for model, options in asked.items()]
        single += rows
        overall.append(_overall(statement, asked, rows))
    count = sum(bool(row.finding.looks) for row in single)
    single = [_adjusted(row, count) for row in single]
    biases = {
        view.model: None if view.bias is None else (view.bias.value, *view.bias.interval())
        for view in views
    }
    return ClaimTable((*overall, *single), biases, towers)


def _row(statement: Statement, model: str, options: list[Option] | Lacking) -> ClaimRow:
    if isinstance(options, Lacking):
        finding = Finding(Answer.UNDECIDED, reason=options.reason)
        return ClaimRow(statement, model, finding, about=options.about)
    return ClaimRow(statement, model, decide(statement.rule, options))


def _overall(
    statement: Statement, asked: dict[str, list[Option] | Lacking], rows: Sequence[ClaimRow]
) -> ClaimRow:
    known = {model: found for model, found in asked.items() if not isinstance(found, Lacking)}
    about = [row for row in rows if row.about]
    if not known:
        reasons = list(dict.fromkeys(row.finding.reason for row in about or rows))
        reason = reasons[0] if len(reasons) == 1 else "no model has what it needs"
        return ClaimRow(statement, "", Finding(Answer.UNDECIDED, reason=reason), bool(about))
    if statement.rule in ("exists", "never"):
        pooled = [
            replace(option, name=f"{model}: {option.name}")
            for model, options in known.items()
            for option in options
        ]
        return ClaimRow(statement, "", decide(statement.rule, pooled))
    means = [option for options in known.values() if (option := _mean_option(options))]
    shown = decide(statement.rule, means)
    answers = {
        tail: [decide(statement.rule, options, tail=tail).answer for options in known.values()]
        for tail in (TAIL, TAIL / len(known))
    }
    if len(known) == len(about) and set(answers[TAIL]) == {Answer.REPRODUCED}:
        answer = Answer.REPRODUCED
    elif Answer.NOT_REPRODUCED in answers[TAIL / len(known)]:
        answer = Answer.NOT_REPRODUCED
    else:
        answer = Answer.UNDECIDED
    looks = sum(row.finding.looks for row in rows)
    counted = [row.finding.answer.value for row in about]
    said = ", ".join(f"{counted.count(a)} {a}" for a in dict.fromkeys(counted))
    finding = replace(shown, answer=answer, looks=looks, p_value=None, reason=f"models: {said}")
    return ClaimRow(statement, "", finding)


def _mean_option(options: Sequence[Option]) -> Option | None:
    left_out = set(decide("mean", options).left_out)
    usable = [option for option in options if option.name not in left_out]
    if not usable:
        return None
    parts = []
    for index, part in enumerate(usable[0].parts):
        series = mean_of([option.parts[index].series for option in usable])
        if series is None:
            return None
        parts.append(replace(part, series=series))
    return Option("", tuple(parts))


def _adjusted(row: ClaimRow, count: int) -> ClaimRow:
    p_value = row.finding.p_value
    return row if p_value is None else replace(row, adjusted_p=min(1.0, count * p_value))
