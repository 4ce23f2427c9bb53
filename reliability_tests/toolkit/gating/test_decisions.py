"""A candidate is judged by its own cases, all of them, and by nothing else."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import made_result
from warm_process import outside_of_tests

from clipq.cases import Candidate, Case, Cell
from clipq.gating.board import CellBoard
from clipq.gating.decision import decide, verdict_of
from clipq.gating.families import Families, sizes
from clipq.records import CaseResult
from clipq.settings import CORRECTIONS, StatisticsSettings
from clipq.verdicts import POLICIES, Verdict

SETTINGS = StatisticsSettings()
CERTAINTY = [Verdict.PASS, Verdict.IMPROVED, Verdict.INCONCLUSIVE, Verdict.SUSPECT, Verdict.FAIL]


def result(name, p_value, *, high=0.05, margin=0.02, loss=0.03, **more):
    return made_result(
        *("m", "q", "p", name, Verdict.PASS),
        **{"p_value": p_value, "high": high, "margin": margin, "loss": loss, "samples": 1000}
        | {"standard_error": 0.01, "baseline": 0.9} | more,
    )  # fmt: skip


def verdicts(results, settings=SETTINGS, **more):
    return [found.verdict for found in decide(results, settings, **more)]


def test_a_failure_is_corrected_for_the_cases_of_its_candidate():
    cases = [result("clear", 1e-9), result("late", 0.012), result("good", 0.9, high=0.01),
             result("point", None)]  # fmt: skip
    clear, late, good, point = decide(cases, SETTINGS)
    # Of the two p-values up to 1/2, doubled: 1e-9 x 2 x 2, then 0.012 x 2 x 1 = 0.024 <= 0.025.
    assert (clear.verdict, late.verdict, good.verdict) == (Verdict.FAIL, Verdict.FAIL, Verdict.PASS)
    assert late.estimate.adjusted_p == pytest.approx(0.024)
    assert (point.verdict, point.estimate.adjusted_p) == (Verdict.PASS, None)


def test_what_is_probably_worse_but_not_surely_is_suspect():
    level = SETTINGS.suspicion
    cases = [result("a", level * 0.99), result("b", level), *[result("c", 1.0)] * 98]
    assert verdicts(cases)[:2] == [Verdict.SUSPECT, Verdict.INCONCLUSIVE]
    assert POLICIES["ci"].blocks(Verdict.SUSPECT)


def test_a_negative_margin_that_is_met_is_a_pass_and_no_improvement():
    met = result("a", 0.99, margin=-0.01, high=-0.0105, loss=-0.011)
    assert verdicts([met]) == [Verdict.PASS]
    assert verdicts([result("a", 0.99, margin=0.01, high=-0.0105)]) == [Verdict.IMPROVED]
    assert verdicts([result("a", 0.99, margin=0.0, high=-0.001)]) == [Verdict.IMPROVED]


def test_a_loss_at_the_margin_is_not_answered_with_a_number_of_samples():
    (near,) = decide([result("a", 0.45, loss=0.0199, margin=0.02)], SETTINGS)
    (far,) = decide([result("a", 0.45, loss=0.0, margin=0.02)], SETTINGS)
    assert near.estimate.samples_needed is None
    assert far.estimate.samples_needed == pytest.approx(1000 * (1.08 * 3.605 / 2) ** 2, rel=0.01)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.integers(0, 300),
    st.sampled_from(CORRECTIONS),
    st.data(),
)
def test_a_part_is_never_judged_more_surely_than_the_whole(p_values, more, correction, data):
    settings = replace(SETTINGS, correction=correction)
    everything = [result(str(i), p) for i, p in enumerate(p_values)]
    whole = len(everything) + more
    kept = data.draw(st.sets(st.sampled_from(range(len(everything))), min_size=1))
    part = decide([everything[i] for i in sorted(kept)], settings, whole=whole)
    together = {one.metric: one for one in decide(everything, settings, whole=whole)}
    for one in part:
        assert one.estimate.adjusted_p >= together[one.metric].estimate.adjusted_p - 1e-12
        assert CERTAINTY.index(one.verdict) <= CERTAINTY.index(together[one.metric].verdict)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.sampled_from(CORRECTIONS))
def test_what_failed_blocks_again_when_it_is_run_alone(p_values, correction):
    settings = replace(SETTINGS, correction=correction)
    everything = decide([result(str(i), p) for i, p in enumerate(p_values)], settings)
    failed = [one for one in everything if one.verdict is Verdict.FAIL]
    again = decide(failed, settings, whole=len(everything))
    blocks = POLICIES["ci"].blocks
    assert all(blocks(one.verdict) for one in again if one.estimate.p_value < settings.suspicion)
    if correction in ("holm", "none"):  # the others' p-values do not help a case to fail
        assert [one.verdict for one in again] == [Verdict.FAIL] * len(failed)


def test_nothing_that_is_not_a_number_passes_or_fails():
    nan = float("nan")
    estimate = result("a", 0.5).estimate
    for broken in ({"high": nan}, {"margin": nan}, {"high": None}, {"margin": None}):
        assert verdict_of(replace(estimate, **broken), SETTINGS) is Verdict.INCONCLUSIVE


def test_what_could_not_be_judged_counts_as_what_might_have_failed():
    broken = [CaseResult(Case.parse(f"m/q/p.{i}"), Verdict.ERROR) for i in range(99)]
    alone, beside = (
        verdicts([result("a", 0.002), *others], whole=100)[0] for others in ([], broken)
    )
    assert alone is beside is Verdict.SUSPECT
    compared = [CaseResult(Case.parse(f"m/q/p.{i}"), Verdict.PASS) for i in range(99)]
    assert verdicts([result("a", 0.002), *compared], whole=100)[0] is Verdict.FAIL


def test_a_loss_that_is_known_exactly_may_lie_on_its_margin():
    exact = result("a", 1.0, loss=0.0, high=0.0, margin=0.0, standard_error=0.0)
    assert verdicts([exact]) == [Verdict.PASS]
    assert verdicts([result("a", 1.0, loss=0.0, high=0.0, margin=0.0)]) == [Verdict.INCONCLUSIVE]


def test_without_suspicion_there_are_failures_alone():
    settings = replace(SETTINGS, suspicion=0.0)
    cases = [result("a", 1e-9), result("b", 0.02), result("c", 0.021)]
    assert verdicts(cases, settings, whole=100) == [Verdict.FAIL, *[Verdict.INCONCLUSIVE] * 2]


# -- families -------------------------------------------------------------------------------------


def planned(*quantizers, metrics=("ece", "top1", "nll")):
    return [
        Cell("m", quantizer, probe).case(metric)
        for quantizer in quantizers
        for probe in ("id", "far")
        for metric in metrics
    ]


class Measuring:
    """Measures cases with given p-values, and remembers which."""

    def __init__(self, **p_values):
        self.p_values, self.measured = p_values, []

    def __call__(self, case):
        self.measured.append(case)
        made = result(case.metric, self.p_values.get(case.metric, 0.9))
        return replace(made, case=case)

    def lost(self, case, why):
        return CaseResult(case, Verdict.ERROR, reason=f"lost: {why}")


def judged(quantizers, measure, **more):
    families = Families(SETTINGS, planned(*quantizers), **more)
    return {case: families.verdict(case, measure, measure.lost) for case in planned(*quantizers)}


def test_a_verdict_is_the_same_alone_and_beside_59_others():
    measure = Measuring(ece=0.001, top1=0.0011, nll=0.02)
    alone = judged(["q0"], measure)
    beside = judged([f"q{i}" for i in range(60)], measure)
    assert {beside[case] == found for case, found in alone.items()} == {True}
    assert {found.verdict for found in alone.values()} == {Verdict.FAIL, Verdict.SUSPECT}


def test_the_first_case_asked_for_measures_each_of_its_candidate_once():
    measure, cases = Measuring(), planned("q0", "q1")
    families = Families(SETTINGS, cases)
    families.verdict(cases[0], measure, measure.lost)
    assert measure.measured == planned("q0")
    for case in cases:
        families.verdict(case, measure, measure.lost)
    assert measure.measured == cases


def test_what_was_left_out_counts_as_what_might_have_failed():
    measure, cases = Measuring(ece=0.004), planned("q", metrics=["ece"])
    whole = sizes(planned("q", metrics=list(map(str, range(50)))))
    assert whole == {Candidate("m", "q"): 100}
    for size, verdict in ((None, Verdict.FAIL), (whole, Verdict.SUSPECT)):
        families = Families(SETTINGS, cases, whole=size)
        assert families.verdict(cases[0], measure, measure.lost).verdict is verdict


def test_a_case_that_was_not_planned_is_judged_by_itself():
    measure = Measuring(ece=0.01)
    other = Case.parse("m/other/id.ece")
    found = Families(SETTINGS, planned("q")).verdict(other, measure, measure.lost)
    assert found.verdict is Verdict.FAIL
    assert measure.measured == [other]


# -- processes ------------------------------------------------------------------------------------


def test_processes_share_what_one_of_them_measured(tmp_path):
    first, second = Measuring(ece=0.001), Measuring(ece=0.5)
    assert judged(["q"], first, board=CellBoard(tmp_path)) == judged(
        ["q"], second, board=CellBoard(tmp_path)
    )
    assert not second.measured


def test_a_cell_that_another_is_at_work_on_is_left_to_it(tmp_path):
    """While one process is in the first cell, the other takes the second, and both see both."""
    order = []

    class Interrupted(Measuring):
        def __call__(self, case):
            if not self.measured:  # another process arrives in the middle of the first cell
                other = Measuring()
                board = CellBoard(tmp_path)
                cells = [Cell("m", "q", "far")]
                board.results(cells, lambda cell: tuple(map(other, planned("q")[3:])), None)
                order.extend(other.measured)
            return super().__call__(case)

    measure = Interrupted()
    found = judged(["q"], measure, board=CellBoard(tmp_path))
    assert {case.probe for case in order} == {"far"}
    assert {case.probe for case in measure.measured} == {"id"}
    assert len(found) == 6


def test_a_cell_in_which_processes_end_is_given_up_and_others_are_not(tmp_path, warm_process):
    (tmp_path / "ends_in_a_cell.py").write_text(
        "import os, sys\nfrom pathlib import Path\nfrom clipq.cases import Cell\n"
        "from clipq.gating.board import CellBoard\nboard = CellBoard(Path(sys.argv[1]))\n"
        "board.results([Cell('m', 'q', 'id')], lambda cell: os._exit(7), None)\n"
    )
    command = ("ends_in_a_cell", str(tmp_path))
    environment = outside_of_tests(os.environ)
    for _ in range(2):  # processes that end in the middle of a cell
        done = warm_process.run(command, cwd=tmp_path, environment=environment, timeout=60)
        assert done.returncode == 7, done.stderr
    families = Families(SETTINGS, planned("q"), board=CellBoard(tmp_path))
    measure = Measuring()
    found = [families.verdict(case, measure, measure.lost) for case in planned("q")]
    assert [one.verdict is Verdict.ERROR for one in found] == [True] * 3 + [False] * 3
    assert found[0].reason.startswith("lost: ")


def test_a_process_that_raises_and_lives_has_not_ended(tmp_path):
    class Broken(Measuring):
        def __call__(self, case):
            raise RuntimeError("boom")

    for _ in range(3):
        with pytest.raises(RuntimeError, match="boom"):
            judged(["q"], Broken(), board=CellBoard(tmp_path))
    assert not any(
        found.reason for found in judged(["q"], Measuring(), board=CellBoard(tmp_path)).values()
    )
