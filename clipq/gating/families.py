"""The cases of each release candidate: judged together, because the candidate is what is released.

What `Families` answers for a case follows from its candidate's cells alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from clipq.cases import Candidate, Case, Cell
from clipq.gating.board import CellBoard
from clipq.gating.decision import decide
from clipq.records import CaseResult
from clipq.settings import StatisticsSettings

__all__ = ["Families", "sizes"]


class Families:
    """Verdicts of planned cases: the first that is asked for judges its whole candidate.

    Args:
        statistics: error rates and correction.
        planned: every case that this run measures.
        whole: cases of each candidate were nothing left out; what is missing from `planned` counts
            as cases that might have failed.
        board: where the processes of one run leave what they measured.

    >>> from clipq.estimate import Estimate
    >>> from clipq.verdicts import Verdict
    >>> p_values = {"ece": 0.0001, "top1": 0.03}
    >>> cases = [Case.parse(f"vit/rtn:w4/id.{name}") for name in p_values]
    >>> def measure(case):
    ...     estimate = Estimate(loss=0.1, high=0.2, p_value=p_values[case.metric], margin=0.1)
    ...     return CaseResult(case, Verdict.PASS, baseline=0.9, estimate=estimate)
    >>> families = Families(StatisticsSettings(), cases)
    >>> [families.verdict(case, measure, None).verdict.value for case in cases]
    ['fail', 'suspect']
    """

    def __init__(
        self,
        statistics: StatisticsSettings,
        planned: Iterable[Case] = (),
        *,
        whole: Mapping[Candidate, int] | None = None,
        board: CellBoard | None = None,
    ) -> None:
        self.statistics = statistics
        self._planned: dict[Candidate, dict[Cell, list[Case]]] = {}
        for case in dict.fromkeys(planned):
            self._planned.setdefault(case.candidate, {}).setdefault(case.cell, []).append(case)
        self._whole = whole or {}
        self._board = board or CellBoard()
        self._decided: dict[Candidate, dict[Case, CaseResult]] = {}

    def verdict(
        self,
        case: Case,
        measure: Callable[[Case], CaseResult],
        lost: Callable[[Case, str], CaseResult],
    ) -> CaseResult:
        """Return the result of a case, decided together with the others of its candidate.

        A case that was not planned is judged by itself.

        Args:
            case: which.
            measure: returns a result without regard to others.
            lost: returns it, and is told why, where processes ended before they had measured it.
        """
        candidate = case.candidate
        cells, whole = self._planned.get(candidate, {}), self._whole.get(candidate, 0)
        if case not in cells.get(case.cell, ()):
            (alone,) = decide([measure(case)], self.statistics, whole=whole)
            return alone
        if candidate not in self._decided:
            measured = self._board.results(
                list(cells),
                lambda cell: tuple(map(measure, cells[cell])),
                lambda cell, why: tuple(lost(case, why) for case in cells[cell]),
            )
            together = decide(measured, self.statistics, whole=whole)
            self._decided[candidate] = {result.case: result for result in together}
        return self._decided[candidate][case]


def sizes(cases: Iterable[Case]) -> Counter[Candidate]:
    """Return how many cases each candidate has.

    >>> sizes([Case.parse("vit/rtn:w4/id.ece"), Case.parse("vit/rtn:w4/id.nll")])
    Counter({Candidate(model='vit', quantizer='rtn:w4'): 2})
    """
    return Counter(case.candidate for case in cases)
