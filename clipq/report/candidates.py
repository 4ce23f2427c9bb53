"""One plain line per release candidate: may it ship, what does it cost, what is not decided.

vit-clean/rtn:w8a8: passes ci; top-1 -0.1 points, 9 % of answers change, ECE unchanged;
103 of 106 decided; not decided: 1 beyond the margin, 2 under-powered
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipq.cases import Candidate
from clipq.records import CaseResult, RunRecord
from clipq.report.artifact_facts import artifact_remarks
from clipq.report.tuning_text import tuning_of
from clipq.report.undecided import Undecided, undecided
from clipq.verdicts import Verdict

__all__ = ["CandidateLine", "candidate_lines"]

_WORST_FIRST = (Verdict.FAIL, *(v for v in reversed(Verdict) if v is not Verdict.FAIL))
_DECIDED = (Verdict.PASS, Verdict.IMPROVED, Verdict.WAIVED, Verdict.FAIL)
_WHOLE = 0.995  # of the multiply-adds: what is left rounds to less than a percent
_OF_OTHERS = {"models", "quantizers", "kernels", "of", "kernel-checks-of", "complete"}
"""What a run's selection may say without that a candidate in it lacks a case."""


@dataclass(frozen=True, slots=True)
class CandidateLine:
    """What a reader must know of one candidate.

    Args:
        candidate: the model and quantizer.
        policy: name of the run's.
        cases: how many were reported.
        complete: whether these are all that it has in the everyday gate or the whole matrix.
        decided: of them, those that passed, failed or were waived.
        blocking: cases that block under the policy, by verdict.
        waived: how many were.
        undecided: by reason, how many were not.
        cost: what it changes on in-distribution images, in words.
        remarks: how its logit scale was tuned; what is not known of the quantizer, what it leaves
            in float, what it declares; what was found in an artifact.

    >>> str(CandidateLine(Candidate("vit", "rtn:w4"), policy="ci", cases=9, decided=9,
    ...                   blocking={"fail": 2}, cost=("top-1 -3.1 points",)))
    'vit/rtn:w4: blocked by 2 fail; top-1 -3.1 points; 9 of 9 decided'
    """

    candidate: Candidate
    policy: str
    cases: int
    complete: bool = True
    decided: int = 0
    blocking: Mapping[str, int] = field(default_factory=dict)
    waived: int = 0
    undecided: Mapping[str, int] = field(default_factory=dict)
    cost: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def blocked(self) -> bool:
        """Whether a case of it blocks."""
        return bool(self.blocking)

    @property
    def text(self) -> str:
        """The line without the candidate's name."""
        state = f"blocked by {_listed(self.blocking)}" if self.blocked else f"passes {self.policy}"
        if not self.complete and not self.blocked:
            state += " as far as measured"
        decided = f"{self.decided:,} of {self.cases:,} decided"
        if self.waived:
            decided += f", {self.waived:,} of them waived"
        parts = [state, ", ".join(self.cost), decided]
        if self.undecided:
            parts.append(f"not decided: {_listed(self.undecided)}")
        parts += self.remarks
        return "; ".join(part for part in parts if part)

    def __str__(self) -> str:
        return f"{self.candidate}: {self.text}"


def candidate_lines(record: RunRecord) -> tuple[CandidateLine, ...]:
    """Return one line per candidate: blocked ones first, of each kind the worst first.

    >>> from clipq.cases import Case
    >>> verdicts = {"vit/rtn:w8/id.ece": Verdict.PASS, "vit/rtn:w4/id.ece": Verdict.FAIL}
    >>> cases = [CaseResult(Case.parse(text), verdict) for text, verdict in verdicts.items()]
    >>> for line in candidate_lines(RunRecord("ci", 2, tuple(cases))):
    ...     print(line)
    vit/rtn:w4: blocked by 1 fail; 1 of 1 decided
    vit/rtn:w8: passes ci; 1 of 1 decided
    """
    members: dict[Candidate, list[CaseResult]] = {}
    for case in record.cases:
        members.setdefault(case.case.candidate, []).append(case)
    evidence = record.evidence()
    lines = [
        (_worst(cases, record), _line(candidate, cases, record, evidence))
        for candidate, cases in members.items()
    ]
    lines.sort(key=lambda pair: (not pair[1].blocked, -pair[0], pair[1].candidate))
    return tuple(line for _, line in lines)


def _line(
    candidate: Candidate,
    cases: Sequence[CaseResult],
    record: RunRecord,
    evidence: Mapping[str, Mapping[str, Any]],
) -> CandidateLine:
    reasons = Counter(why.value for case in cases if (why := undecided(case)) is not None)
    decided = sum(case.verdict in _DECIDED for case in cases)
    unjudged = len(cases) - decided - reasons.total()
    if unjudged:
        reasons["not judged"] = unjudged
    order = [*(why.value for why in Undecided), "not judged"]
    rule = record.rule
    blocking = Counter(case.verdict for case in cases if rule.blocks(case.verdict))
    return CandidateLine(
        candidate,
        policy=record.policy,
        cases=len(cases),
        complete=_complete(candidate, record),
        decided=decided,
        blocking={
            verdict.value: blocking[verdict] for verdict in _WORST_FIRST if blocking[verdict]
        },
        waived=sum(case.verdict is Verdict.WAIVED for case in cases),
        undecided={why: reasons[why] for why in order if reasons[why]},
        cost=_cost(cases, evidence.get("probes", {})),
        remarks=_known(candidate, evidence),
    )


def _known(candidate: Candidate, evidence: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return what a reader must know of how a candidate was made."""
    name = str(candidate)
    tuned = tuple(filter(None, (tuning_of(candidate, evidence),)))
    artifact = evidence.get("artifacts", {}).get(name)
    if artifact is not None:
        return (*tuned, *artifact_remarks(artifact))
    return (*tuned, *_remarks(evidence.get("quantizers", {}).get(name)))


def _remarks(quantizer: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return what a reader must know of how a candidate was quantized; nothing where all is well.

    A record without evidence of a candidate, of one that failed to be made, says nothing.
    """
    if not quantizer or "share" not in quantizer:
        return ()
    share, found = quantizer["share"], []
    if share is None:
        found.append("coverage: not reported")
    elif share < _WHOLE:
        found.append(f"{100 * (1 - share):.3g} % of weight multiply-adds left in float")
    declared = quantizer.get("exceptions", {})
    found += [f"declares {kind}: {reason}" for kind, reason in declared.items()]
    return tuple(found)


def _complete(candidate: Candidate, record: RunRecord) -> bool:
    """Whether a run left out no case of a candidate that its profile takes."""
    if record.unreported:
        return False
    narrowed = set(record.selection) - _OF_OTHERS
    if record.selection.get("profile") == ["default"]:
        narrowed.discard("profile")
    return not narrowed or str(candidate) in record.selection.get("complete", ())


def _worst(cases: Sequence[CaseResult], record: RunRecord) -> float:
    """Return by how many margins the worst case of those that matter most loses."""
    rule = record.rule
    blocking = [case for case in cases if rule.blocks(case.verdict)]
    open_ = [case for case in cases if undecided(case) is not None]
    return max(case.severity for case in blocking or open_ or cases)


def _cost(cases: Sequence[CaseResult], probes: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return accuracy, answers changed and calibration on in-distribution images, as known.

    Without such a probe, on the first one that has labels.
    """
    labelled = [case.probe for case in cases if case.metric == "top1"]
    known = [probe for probe, seen in probes.items() if seen.get("role") == "in-distribution"]
    probe = next(iter(known or labelled), None)
    found = {case.metric: case for case in cases if case.probe == probe}
    parts = [
        describe(found[metric])
        for metric, describe in (("top1", _accuracy), ("flip-rate", _flips), ("ece", _calibration))
        if metric in found
    ]
    return tuple(part for part in parts if part)


def _accuracy(case: CaseResult) -> str:
    return _change(case, "top-1", lambda loss: f"{_signed(-100 * loss, 1)} points")


def _calibration(case: CaseResult) -> str:
    return _change(case, "ECE", lambda loss: _signed(loss, 3))


def _change(case: CaseResult, name: str, shown: Callable[[float], str]) -> str:
    loss = case.estimate.loss
    if loss is None:
        return ""
    return f"{name} {'unchanged' if _unchanged(case) else shown(loss)}"


def _flips(case: CaseResult) -> str:
    if case.observed is None:
        return ""
    percent = 100 * case.observed
    share = f"{percent:.0f}" if percent >= 9.95 else f"{percent:.2g}"
    return f"{share} % of answers change" if percent else "no answer changes"


def _unchanged(case: CaseResult) -> bool:
    """Whether the loss may be nothing, and is surely less than the margin either way."""
    estimate = case.estimate
    if estimate.low is None or estimate.high is None or estimate.margin is None:
        return estimate.loss == 0.0
    within = -estimate.margin < estimate.low and estimate.high < estimate.margin
    return within and estimate.low <= 0.0 <= estimate.high


def _signed(value: float, decimals: int) -> str:
    """Return a change with its sign, and with more decimals where these would show none."""
    shown = f"{value:+.{decimals}f}"
    return shown if float(shown) or not value else f"{value:+.1g}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
