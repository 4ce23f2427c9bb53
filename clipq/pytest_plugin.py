"""The pytest plugin: cases as parameters, a gate as a fixture, verdicts as outcomes.

Active wherever a `clipq.toml` (or `[tool.clipq]`) is found; `-p no:clipq.pytest_plugin` turns it
off. A test that takes `clipq_case` is parametrized with the matrix:

    def test_reliability(clipq_case, clipq_gate):
        clipq_gate(clipq_case)

One that takes `clipq_kernel_check` is parametrized with the conformance checks of the kernels that
`[matrix] kernels` names:

    def test_kernel(clipq_kernel_check, clipq_conformance):
        clipq_conformance(clipq_kernel_check)

Loading this module imports no torch; collecting the matrix does not either.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clipq.errors import ClipqError
from clipq.pytest_collector import (
    KERNEL_PROPERTY,
    PROPERTY,
    REFUSED,
    SHARED,
    RunCollector,
    result_of,
)
from clipq.pytest_conclusion import Conclusion
from clipq.pytest_interrupts import Interrupts
from clipq.pytest_items import CASE, CHECK, PARAMETERS, Collecting, case_of, check_of
from clipq.pytest_workers import WorkerWatch
from clipq.settings import PROFILES, Settings, find_settings, load_settings
from clipq.terminal import printable
from clipq.verdicts import Verdict

if TYPE_CHECKING:
    from clipq.cases import Candidate, Case
    from clipq.gating.board import CellBoard
    from clipq.gating.matrix import Matrix
    from clipq.gating.session import Gate

__all__ = ["Asked"]

_KEY = pytest.StashKey["Asked"]()
_COLLECTING = pytest.StashKey[Collecting]()
_INTERRUPTS = pytest.StashKey[Interrupts]()
_COLLECTOR = "clipq-collector"
_STALLED = 70  # exit code of a worker that ends itself
_SELECTORS = ("model", "quantizer", "probe", "metric")
_PATHS = ("baselines", "margins", "waivers", "cache", "report")


class Asked:
    """What a command line asks for.

    Settings and users' plugins are read when a test that takes a case or a kernel check is
    collected: a settings file that is not finished stops no other test.
    """

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.config = config
        self.path = path

    @cached_property
    def settings(self) -> Settings:
        """The settings file with what the command line says instead.

        Raises:
            SettingsError: the file is malformed.
        """
        option, folder = self.config.getoption, self.config.invocation_params.dir
        overrides: dict[str, Any] = {
            name: Path(folder, option(f"--clipq-{name}"))
            for name in _PATHS
            if option(f"--clipq-{name}")
        }
        settings = load_settings(self.path)
        if option("--clipq-record"):
            overrides["history"] = replace(settings.history, record=True)
        if option("--clipq-policy"):
            settings = settings.under(option("--clipq-policy"))
        return replace(settings, **overrides)

    @cached_property
    def matrix(self) -> Matrix:
        """The matrix of this run, users' plugins loaded.

        Raises:
            SettingsError: the settings are malformed, or a plugin cannot be imported.
        """
        from clipq.evaluation.plan import Selection, load_plugins
        from clipq.gating.matrix import Matrix

        option, settings = self.config.getoption, self.settings
        load_plugins(settings)
        chosen = {f"{name}s": tuple(option(f"--clipq-{name}")) for name in _SELECTORS}
        return Matrix(
            settings,
            Selection(**chosen),
            profile=option("--clipq-profile"),
            kernels=tuple(option("--clipq-kernel")),
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("clipq", "clipq: reliability regression of quantized CLIP models")
    group.addoption("--clipq-config", metavar="FILE", help="settings; default: nearest clipq.toml")
    for name in _SELECTORS:
        group.addoption(
            f"--clipq-{name}",
            action="append",
            default=[],
            metavar="GLOB",
            help=f"only these {name}s (repeatable)",
        )
    group.addoption(
        "--clipq-kernel",
        action="append",
        default=[],
        metavar="GLOB",
        help="check only these kernels, and no case unless one is selected too (repeatable)",
    )
    group.addoption(
        "--clipq-policy", metavar="NAME", help="which verdicts block: release is stricter than ci"
    )
    group.addoption(
        "--clipq-profile",
        choices=PROFILES,
        default="default",
        help="which part of the matrix: [profiles] in clipq.toml says what each takes",
    )
    group.addoption(
        "--clipq-record",
        action="store_true",
        help="record the run in the history store when it ends; [history] in clipq.toml or the "
        "environment variable CLIPQ_STORE says which",
    )
    for name in _PATHS:
        group.addoption(
            f"--clipq-{name}", metavar="PATH", help=f"instead of `{name}` in clipq.toml"
        )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clipq: a case of the reliability matrix")
    path = _settings_path(config)
    if path is None:
        return
    asked = config.stash[_KEY] = Asked(config, path)
    config.stash[_COLLECTING] = Collecting()
    if hasattr(config, "workerinput"):
        # BLAS libraries read these when they load, which is after this point.
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(_threads(asked))
    else:
        _control(config, asked)


def _control(config: pytest.Config, asked: Asked) -> None:
    """Register what the controlling process has beside its workers.

    Raises:
        pytest.UsageError: it was asked to go without what notices that something is missing.
    """
    collector = RunCollector(config, asked)
    if config.pluginmanager.register(collector, _COLLECTOR) is None:
        raise pytest.UsageError(
            f"-p no:{_COLLECTOR} would let failures pass unnoticed\n"
            "  fix: leave it out; -p no:clipq.pytest_plugin turns off clipq as a whole"
        )
    workers = WorkerWatch(lambda why: interrupts.stop(why))
    interrupts = config.stash[_INTERRUPTS] = Interrupts(workers.end)
    # Without names: nothing of a run works without them, so nothing can leave them out.
    config.pluginmanager.register(interrupts)
    config.pluginmanager.register(workers)
    config.pluginmanager.register(Conclusion(config, collector, interrupts, workers))


def _settings_path(config: pytest.Config) -> Path | None:
    """Return the settings file; None where there is none.

    Raises:
        pytest.UsageError: a file that an option names is not there.
    """
    folder = config.invocation_params.dir
    given, waivers = config.getoption("--clipq-config"), config.getoption("--clipq-waivers")
    path = Path(folder, given) if given else find_settings(config.rootpath)
    for option, named in (("--clipq-config", given), ("--clipq-waivers", waivers)):
        if named and not Path(folder, named).is_file():
            raise pytest.UsageError(
                f"{option} {Path(folder, named)} is no file\n  fix: name a file, or leave it out"
            )
    return path


def _threads(asked: Asked) -> int:
    try:
        return asked.settings.threads
    except ClipqError:
        return 1  # a test that takes a case will say why


def pytest_report_header(config: pytest.Config) -> str | None:
    asked = config.stash.get(_KEY, None)
    if asked is None:
        return None
    try:
        policy = asked.settings.policy
    except ClipqError:
        return f"clipq: {asked.path} cannot be used; a test that takes a case will say why"
    return f"clipq: {asked.path}, policy {policy}, profile {config.getoption('--clipq-profile')}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    wanted = [name for name in PARAMETERS if name in metafunc.fixturenames]
    if not wanted:
        return
    asked = metafunc.config.stash.get(_KEY, None)
    # A CollectError is shown as its message alone, without a traceback.
    if asked is None:
        raise pytest.Collector.CollectError(
            f"clipq: no clipq.toml found at or above {metafunc.config.rootpath}\n"
            "  fix: create one, or pass --clipq-config FILE"
        )
    try:
        matrix = asked.matrix
        if CASE in wanted:
            metafunc.parametrize(CASE, matrix.cases, ids=list(matrix.by_id))
        if CHECK in wanted:
            checks = matrix.kernel_checks
            metafunc.parametrize(CHECK, list(checks.values()), ids=list(checks))
    except ClipqError as error:
        raise pytest.Collector.CollectError(printable(f"clipq: {error}")) from None


def pytest_itemcollected(item: pytest.Item) -> None:
    collecting = item.config.stash.get(_COLLECTING, None)
    if collecting is not None:
        collecting.saw(item)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    collecting = items[0].config.stash.get(_COLLECTING, None) if items else None
    if collecting is not None:
        collecting.deselected(items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell the controller what is to be run: before xdist tells it that collection is over."""
    config = session.config
    collecting = config.stash.get(_COLLECTING, None)
    if collecting is None:
        return
    collected = collecting.finished(session.items)
    worker = getattr(config, "workerinput", None)
    if worker is None:
        collector = config.pluginmanager.get_plugin(_COLLECTOR)
        if collector is not None and not config.pluginmanager.has_plugin("dsession"):
            collector.add(collected)
    elif folder := _shared(config):
        collected.write(folder / f"{worker['workerid']}.collected")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is clipq's; a test for which nothing was planned is deselected, not skipped."""
    asked = config.stash.get(_KEY, None)
    nothing = []
    for item in items:
        for name in PARAMETERS:
            if name not in getattr(item, "fixturenames", ()):
                continue
            item.add_marker("clipq")
            if asked is not None and not _planned(asked.matrix, name):
                nothing.append(item)
    if nothing:
        config.hook.pytest_deselected(items=nothing)
        items[:] = [item for item in items if item not in nothing]


def _planned(matrix: Matrix, parameter: str) -> bool:
    """Return whether anything was planned for a parameter of tests."""
    return bool(matrix.cases if parameter == CASE else matrix.kernel_checks)


@pytest.fixture(scope="session")
def _clipq_session(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Gate:
    """One gate per process."""
    from clipq.evaluation.evaluator import Evaluator
    from clipq.gating.board import CellBoard
    from clipq.gating.families import Families
    from clipq.gating.session import Gate
    from clipq.gating.stall import StallWatch

    _refuse_uncollected(pytestconfig)
    matrix = pytestconfig.stash[_KEY].matrix
    worker = getattr(pytestconfig, "workerinput", {}).get("workerid", "gw0")
    board = CellBoard(_shared(pytestconfig))
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
    if worker is None and not config.pluginmanager.has_plugin(_COLLECTOR):
        pytest.exit(f"the plugin {_COLLECTOR} was taken away: nothing is judged", returncode=2)
    if worker is not None and SHARED not in worker:
        pytest.exit("the controller does not collect what clipq judges", returncode=2)


def _give_up(config: pytest.Config, board: CellBoard, candidate: Candidate, why: str) -> None:
    """End what hangs: the worker, whose other cases go to another, or else the run."""
    interrupts = config.stash.get(_INTERRUPTS, None)
    if interrupts is None:
        board.give_up(candidate, why)
        os._exit(_STALLED)
    interrupts.stop(f"{candidate}: {why}")


def _shared(config: pytest.Config) -> Path | None:
    """Return the folder that the workers of this run share; None for a single process."""
    folder = getattr(config, "workerinput", {}).get(SHARED)
    # A worker on another machine does not see it, and measures by itself.
    return Path(folder) if folder and Path(folder).is_dir() else None


@pytest.fixture
def clipq_gate(request: pytest.FixtureRequest, _clipq_session: Gate) -> Callable[[Case], None]:
    """Judge the test's case: fails the test where the verdict blocks under the policy."""

    def check(case: Case) -> None:
        _refuse_other(request.node, case, case_of(request.node))
        result = _clipq_session.check(case)
        # One JSON text: anything else is lost or mangled on the way from an xdist worker.
        request.node.user_properties.append((PROPERTY, result.to_json()))
        if _clipq_session.settings.rule.blocks(result.verdict):
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
            pytest.fail(printable(f"{result.id}: {result.reason}"), pytrace=False)
        if result.outcome == "not-run":
            pytest.skip(printable(result.reason))

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


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Show verdicts instead of bare outcomes; the clipq report explains them."""
    if getattr(report, "when", "") != "call":
        return None
    result = result_of(report)
    if result is None or result.verdict is Verdict.PASS:
        return None
    letter = "F" if report.failed else {"improved": "+", "waived": "w"}.get(result.verdict, "?")
    return result.verdict.value, letter, result.verdict.value.upper()
