"""Which layers make a case fail, and the fewest to keep in float so that it passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from clipq.cases import Case
from clipq.evaluation.mixture_evaluator import MixtureEvaluator
from clipq.gating.session import Gate
from clipq.gating.verdict import Judgement
from clipq.quant import QuantizerSpec
from clipq.records import CaseResult
from clipq.verdicts import Verdict

if TYPE_CHECKING:
    from clipq.quant.mixture import Distortion

__all__ = ["GOOD", "Blame", "Search", "UnitBlame", "fewest", "with_excluded"]

GOOD = (Verdict.PASS, Verdict.IMPROVED)
_PAIRED = 8  # units whose pairs are all tried


@dataclass(frozen=True, slots=True)
class UnitBlame:
    """What one layer, or one block of layers, contributes.

    Args:
        name: of the layer or block.
        layers: in it.
        alone: loss where it alone is quantized, in the metric's unit.
        rest: loss where everything but it is quantized; it contributes what that lacks to the loss
            of the whole.
        share: of the quantized multiply-accumulates, 0 to 1.
        distortion: of its worst layer, by SQNR in the quantized model.
    """

    name: str
    layers: tuple[str, ...]
    alone: float
    rest: float
    share: float
    distortion: Distortion


@dataclass(frozen=True, slots=True)
class Search:
    """The fewest units to keep in float so that the case passes.

    Args:
        units: their names; None where it fails with all of them in float.
        proof: why no smaller set is expected.
        quantizer: the text of the quantizer that keeps them; None where its method cannot.
        verified: what the gate says of that quantizer, run from the start.
    """

    units: tuple[str, ...] | None
    proof: str
    quantizer: str | None = None
    verified: CaseResult | None = None

    @property
    def passes(self) -> bool:
        """Whether the gate passes the quantizer that was found."""
        return self.verified is not None and self.verified.verdict in GOOD


class Blame:
    """Takes one case apart.

    Args:
        gate: judges, with the same margins and corrections as a run.
        case: which.
        by: ``layer`` or ``block``.
        progress: called with what is about to be evaluated, how many are done and of how many.
    """

    def __init__(
        self,
        gate: Gate,
        case: Case,
        *,
        by: str = "layer",
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.gate, self.case = gate, case
        self._evaluator = MixtureEvaluator(gate.evaluator, case.candidate)
        self._progress = progress or (lambda what, done, total: None)
        mixture = self._evaluator.mixture
        self.units: dict[str, tuple[str, ...]] = (
            mixture.blocks() if by == "block" else {name: (name,) for name in mixture.layers}
        )
        self._judged: dict[frozenset[str], Judgement] = {}

    def whole(self) -> Judgement:
        """Return the judgement with everything quantized."""
        return self.judge(())

    def judge(self, units: Sequence[str]) -> Judgement:
        """Return the judgement with these units in float."""
        floats = frozenset(layer for unit in units for layer in self.units[unit])
        if floats not in self._judged:
            tables = self._evaluator.tables(floats, self.case.probe)
            self._judged[floats] = self.gate.judge(self.case, tables)
        return self._judged[floats]

    def rank(self) -> list[UnitBlame]:
        """Return every unit, the largest contribution first."""
        total = 2 * len(self.units)
        alone, rest = {}, {}
        for done, name in enumerate(self.units):
            self._progress(f"all but {name}", done, total)
            rest[name] = _loss(self.judge([name]))
        for done, name in enumerate(self.units):
            self._progress(f"{name} alone", len(self.units) + done, total)
            alone[name] = _loss(self.judge([other for other in self.units if other != name]))
        self._progress("distortions", total, total)
        mixture = self._evaluator.mixture
        distortions, macs = mixture.distortions(), mixture.macs()
        everything = sum(macs.values()) or 1
        found = [
            UnitBlame(
                name,
                layers,
                alone[name],
                rest[name],
                sum(macs[layer] for layer in layers) / everything,
                min((distortions[layer] for layer in layers), key=lambda d: _last(d.total)),
            )
            for name, layers in self.units.items()
        ]
        return sorted(found, key=lambda unit: (_last(unit.rest), -_last(unit.alone, -math.inf)))

    def search(self, ranked: Sequence[UnitBlame]) -> Search:
        """Return the fewest units to keep in float, verified by the gate itself.

        The set is found on the model as it was rounded; a method that rounds otherwise once layers
        are excluded is run again with them excluded, and where that fails the next units of the
        ranking are added.
        """
        order = [unit.name for unit in ranked]
        tried = 0

        def passes(units: Sequence[str]) -> bool:
            nonlocal tried
            self._progress(f"{len(units)} in float", tried, 0)
            tried += 1
            return self.judge(units).verdict in GOOD

        found, proof = fewest(order, passes)
        if found is None:
            return Search(None, proof)
        left = [name for name in order if name not in found]
        while True:
            verified = self._verify(found)
            if verified is None:
                return Search(tuple(found), proof)
            text, result = verified
            if result.verdict in (*GOOD, Verdict.ERROR) or not left:
                return Search(tuple(found), proof, text, result)
            found = [*found, left.pop(0)]
            proof = "with fewer, the method rounds the other layers so that the case fails"

    def _verify(self, units: Sequence[str]) -> tuple[str, CaseResult] | None:
        """Judge the quantizer that excludes the units' layers, from the start."""
        layers = [layer for unit in units for layer in self.units[unit]]
        spec = with_excluded(QuantizerSpec.parse(self.case.quantizer), layers)
        self._progress(f"verifying {spec}", 0, 0)
        cell = replace(self.case.cell, quantizer=str(spec))
        result = self.gate.unexcused(cell.case(self.case.metric))
        if result.verdict is Verdict.ERROR and "no option 'exclude'" in result.reason:
            return None
        return str(spec), result


def fewest(
    order: Sequence[str], passes: Callable[[Sequence[str]], bool]
) -> tuple[list[str] | None, str]:
    """Return a smallest set of names that passes, and what is known of smaller ones.

    Single names are all tried; then pairs of the first eight; then the shortest beginning of
    `order` that passes is found by bisection, and whatever it can spare is taken out, last first.

    Args:
        order: names, the most promising first.
        passes: whether a set of them does; supposed to hold for every larger set.
    """
    if not passes(order):
        return None, "the case fails with all of these layers in float"
    if passes([]):
        return [], "the case passes as it is"
    for name in order:
        if passes([name]):
            return [name], "it cannot be fewer"
    likely = order[:_PAIRED]
    for pair in combinations(likely, 2):
        if passes(pair):
            return list(pair), "no single one is enough"
    low, high = 2, len(order)  # the first `low` fail, the first `high` pass
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(order[:middle]) else (middle, high)
    kept = list(order[:high])
    for name in reversed(order[:high]):
        fewer = [other for other in kept if other != name]
        if passes(fewer):
            kept = fewer
    return kept, (
        f"no single one is enough, no two of the first {len(likely)}, and none of these can be "
        "left out"
    )


def with_excluded(spec: QuantizerSpec, layers: Sequence[str]) -> QuantizerSpec:
    """Return the quantizer that also leaves these layers in float."""
    options = dict(spec.options)
    excluded = [*filter(None, options.get("exclude", "").split("+")), *layers]
    return replace(spec, options=(*_without(options, "exclude"), ("exclude", "+".join(excluded))))


def _without(options: Mapping[str, str], key: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in options.items() if name != key]


def _loss(judgement: Judgement) -> float:
    return math.nan if judgement.estimate.loss is None else judgement.estimate.loss


def _last(value: float, default: float = math.inf) -> float:
    """Return `value` for sorting; what is no number goes last."""
    return default if math.isnan(value) else value
