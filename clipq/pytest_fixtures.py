"""The fixtures of the plugin: a gate for cases, conformance for kernels.

A test judges what it is parametrized with, and nothing else; and no test judges anything in a
session in which nobody would notice that a case was never reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from clipq.pytest_asked import ASKED, COLLECTOR, INTERRUPTS, SHARED, shared
from clipq.pytest_collector import KERNEL_PROPERTY, PROPERTY, REFUSED
from clipq.pytest_items import case_of, check_of

if TYPE_CHECKING:
    from clipq.cases import Candidate, Case
    from clipq.gating.board import CellBoard
    from clipq.gating.session import Gate

__all__ = ["clipq_conformance", "clipq_gate", "clipq_session"]

_STALLED = 70
"""Exit code of a worker that ends itself."""


@pytest.fixture(scope="session")
def clipq_session(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Gate:
    """One gate per process."""
    from clipq.evaluation.evaluator import Evaluator
    from clipq.gating.board import CellBoard
    from clipq.gating.families import Families
    from clipq.gating.session import Gate
    from clipq.gating.stall import StallWatch

    _refuse_uncollected(pytestconfig)
    matrix = pytestconfig.stash[ASKED].matrix
    worker = getattr(pytestconfig, "workerinput", {}).get("workerid", "gw0")
    board = CellBoard(shared(pytestconfig))
    limits = matrix.settings.limits
    stall = StallWatch(limits.stalled_seconds, partial(_give_up, pytestconfig, board))
    evaluator = Evaluator(
        matrix.settings, worker=int(worker.removeprefix("gw")), progress=stall.progressed
    )
    families = Families(
        matrix.settings.statistics,
        filter(None, map(case_of, request.session.items)),
        whole=matrix.whole,
        board=board,
    )
    return Gate(matrix.settings, evaluator, families=families, stall=stall)


def _refuse_uncollected(config: pytest.Config) -> None:
    """End a session in which nobody would notice that a case was never reported."""
    worker = getattr(config, "workerinput", None)
    if worker is None and not config.pluginmanager.has_plugin(COLLECTOR):
        pytest.exit(f"the plugin {COLLECTOR} was taken away: nothing is judged", returncode=2)
    if worker is not None and SHARED not in worker:
        pytest.exit("the controller does not collect what clipq judges", returncode=2)


def _give_up(config: pytest.Config, board: CellBoard, candidate: Candidate, why: str) -> None:
    """End what hangs: the worker, whose other cases go to another, or else the run."""
    interrupts = config.stash.get(INTERRUPTS, None)
    if interrupts is None:
        board.give_up(candidate, why)
        os._exit(_STALLED)
    interrupts.stop(f"{candidate}: {why}")


@pytest.fixture
def clipq_gate(request: pytest.FixtureRequest, clipq_session: Gate) -> Callable[[Case], None]:
    """Judge the test's case: fails the test where the verdict blocks under the policy."""

    def check(case: Case) -> None:
        _refuse_other(request.node, case, case_of(request.node))
        result = clipq_session.check(case)
        # One JSON text: anything else is lost or mangled on the way from an xdist worker.
        request.node.user_properties.append((PROPERTY, result.to_json()))
        if clipq_session.settings.rule.blocks(result.verdict):
            from clipq.report.text import explain

            pytest.fail(explain(result), pytrace=False)

    return check


@pytest.fixture
def clipq_conformance(request: pytest.FixtureRequest) -> Callable[[tuple[str, str]], None]:
    """Run the test's check of a kernel: fails where the kernel breaks its spec, skips if it can't.

    The reason is in the report.
    """
    _refuse_uncollected(request.config)

    def check(planned: tuple[str, str]) -> None:
        from clipq.testing.kernels import judge

        _refuse_other(request.node, planned, check_of(request.node))
        result = judge(*planned)
        request.node.user_properties.append((KERNEL_PROPERTY, result.to_json()))
        if result.outcome == "fail":
            pytest.fail(f"{result.id}: {result.reason}", pytrace=False)
        if result.outcome == "not-run":
            pytest.skip(result.reason)

    return check


def _refuse_other(node: pytest.Item, asked: object, own: object) -> None:
    """Refuse a verdict that this test was not planned to give; the run fails, come what may.

    A loop over cases inside of one test, for instance: its cases would be missed by nobody.
    """
    if asked == own:
        return
    name = "/".join(map(str, asked)) if isinstance(asked, tuple) else str(asked)
    sentence = f"{node.nodeid} judges {name}, which is not the case that it was planned for"
    node.user_properties.append((REFUSED, sentence))
    pytest.fail(
        f"{sentence}\n  fix: a test judges its own parameter: `clipq_gate(clipq_case)`",
        pytrace=False,
    )
