"""The ladder of a loss: how much of what an artifact loses is export, quantization, or its runtime.

    export      what the float graphs lose against FP32 in torch (the candidate NAME-float)
    simulated   what the quantizer that simulates the artifact loses, in torch
    rest        what neither explains: the artifact's loss less both. With both rungs, that is the
                simulation gap: runtime, tool, and whatever the simulation does not know of

All three losses are paired with the same FP32 predictions of the same samples, and each has its own
interval. The rest is a difference of point values; a record holds no predictions, so that nobody
can say from it how sure the rest is. What can be said is whether it is more than the intervals of
all its parts together; a rest that is not may be nothing. Losses of churn do not add up: two
candidates may change equally many answers, and others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipq.cases import Candidate
from clipq.records import CaseResult, RunRecord

__all__ = ["Ladder", "Step", "ladders"]


@dataclass(frozen=True, slots=True)
class Step:
    """What one metric of an artifact loses on each rung.

    Args:
        case: of the artifact; its loss is known.
        export: the same case of the float graphs; None where they are no rung.
        simulated: the same case of the simulation; likewise.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> from clipq.verdicts import Verdict
    >>> def lost(loss):
    ...     estimate = Estimate(loss=loss, margin=0.02)
    ...     return CaseResult(Case.parse("vit/ort/id.ece"), Verdict.PASS, estimate=estimate)
    >>> step = Step(lost(0.025), export=lost(0.001), simulated=lost(0.004))
    >>> round(step.rest, 6), round(step.margins, 6)
    (0.02, 1.0)
    """

    case: CaseResult
    export: CaseResult | None = None
    simulated: CaseResult | None = None

    @property
    def rest(self) -> float:
        """The artifact's loss less what its rungs lose, in the metric's unit."""
        known = (rung for rung in (self.export, self.simulated) if rung is not None)
        return _loss(self.case) - sum(map(_loss, known))

    @property
    def beyond_intervals(self) -> bool:
        """Whether the rest is more than the intervals of its parts together could make it."""
        low = high = 0.0
        for sign, part in ((1.0, self.case), (-1.0, self.export), (-1.0, self.simulated)):
            if part is None:
                continue
            if part.estimate.low is None or part.estimate.high is None:
                return False
            ends = sign * part.estimate.low, sign * part.estimate.high
            low, high = low + min(ends), high + max(ends)
        return low > 0.0 or high < 0.0

    @property
    def margins(self) -> float:
        """The size of the rest in margins; NaN where the margin is 0 or unknown."""
        margin = self.case.estimate.margin
        return abs(self.rest / margin) if margin else math.nan


@dataclass(frozen=True, slots=True)
class Ladder:
    """How the losses of one artifact come about.

    Args:
        candidate: the artifact.
        export: the float graphs' candidate; None where it is not in the run.
        simulated: the simulation; likewise.
        steps: one per metric that all rungs have: rests beyond the intervals first, then by size in
            margins.
        missing: a sentence for each rung that is not there, and for metrics that are left out.

    >>> Ladder(Candidate("vit", "ort"), Candidate("vit", "ort-float")).rest_is
    'quantization, runtime and tool'
    """

    candidate: Candidate
    export: Candidate | None = None
    simulated: Candidate | None = None
    steps: tuple[Step, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def rest_is(self) -> str:
        """What the rest holds, in words."""
        if self.export and self.simulated:
            return "simulation gap"
        if self.export:
            return "quantization, runtime and tool"
        return "export, runtime and tool" if self.simulated else "everything"

    def to_plain(self) -> dict[str, Any]:
        """Return the ladder as strict-JSON values; cases by their ids."""
        return {
            "key": str(self.candidate),
            "export": str(self.export) if self.export else None,
            "simulated": str(self.simulated) if self.simulated else None,
            "rest_is": self.rest_is,
            "missing": list(self.missing),
            "steps": [
                {
                    "case": step.case.id,
                    "export": step.export.id if step.export else None,
                    "simulated": step.simulated.id if step.simulated else None,
                    "rest": step.rest,
                    "beyond_intervals": step.beyond_intervals,
                }
                for step in self.steps
            ],
        }


def ladders(record: RunRecord) -> tuple[Ladder, ...]:
    """Return the ladder of each artifact of a run but of float graphs, by candidate.

    Metrics that are judged by a limit have none: there is no loss against FP32 to take apart.

    >>> ladders(RunRecord("ci", 0, ()))
    ()
    """
    artifacts = record.evidence().get("artifacts", {})
    candidates = {str(case.case.candidate): case.case.candidate for case in record.cases}
    losses: dict[Candidate, dict[str, CaseResult]] = {}
    for case in record.cases:
        if case.estimate.loss is not None and case.baseline is not None:
            losses.setdefault(case.case.candidate, {})[case.case.key] = case
    found = []
    for name, candidate in candidates.items():
        if (entry := artifacts.get(name)) is None:
            continue
        base = entry.get("part_of") or candidate.quantizer
        if candidate.quantizer != f"{base}-float":
            exported = Candidate(candidate.model, f"{base}-float")
            # Another artifact may be called as its float graphs are.
            other = artifacts.get(str(exported), {"part_of": base}).get("part_of") != base
            found.append(_ladder(candidate, exported, entry, losses, skip=other))
    return tuple(found)


def _ladder(
    candidate: Candidate,
    exported: Candidate,
    entry: Mapping[str, Any],
    losses: Mapping[Candidate, Mapping[str, CaseResult]],
    *,
    skip: bool,
) -> Ladder:
    named = entry.get("simulation", "")
    simulated = Candidate(candidate.model, named) if named else None
    missing = []
    export = exported if exported in losses and not skip else None
    if export is None:
        missing.append(f"no {exported} in this run: what export loses is in the rest")
    if simulated is None:
        missing.append(_no_simulation(entry))
    elif simulated not in losses:
        missing.append(f"no {simulated} in this run: what quantization loses is in the rest")
        simulated = None
    steps, left_out = [], 0
    rungs = [losses[one] for one in (export, simulated) if one is not None]
    for key, case in losses.get(candidate, {}).items() if rungs else ():
        if any(key not in rung for rung in rungs):
            left_out += 1
            continue
        steps.append(
            Step(
                case,
                losses[export][key] if export else None,
                losses[simulated][key] if simulated else None,
            )
        )
    if left_out:
        missing.append(f"{left_out} of its metrics are left out: a rung has no loss there")
    return Ladder(candidate, export, simulated, _largest_first(steps), tuple(missing))


def _no_simulation(entry: Mapping[str, Any]) -> str:
    declared = entry.get("format", "")
    where = " in the vision tower alone" if entry.get("towers") == "vision" else ""
    why = (
        f"no quantizer of the matrix has its format {declared}{where}"
        if declared
        else "it has no format"
    )
    return f"no simulation ({why}): what quantization loses is in the rest"


def _largest_first(steps: Sequence[Step]) -> tuple[Step, ...]:
    def order(step: Step) -> tuple[bool, bool, float, str]:
        unknown = math.isnan(step.margins)
        size = 0.0 if unknown else -step.margins
        return not step.beyond_intervals, unknown, size, step.case.id

    return tuple(sorted(steps, key=order))


def _loss(case: CaseResult) -> float:
    return case.estimate.loss or 0.0
