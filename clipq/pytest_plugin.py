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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clipq.errors import ClipqError
from clipq.pytest_asked import ASKED, COLLECTOR, INTERRUPTS, Asked, shared
from clipq.pytest_collector import RunCollector, result_of
from clipq.pytest_conclusion import Conclusion
from clipq.pytest_fixtures import clipq_conformance, clipq_gate, clipq_session
from clipq.pytest_interrupts import Interrupts
from clipq.pytest_items import CASE, CHECK, PARAMETERS, Collecting
from clipq.pytest_workers import WorkerWatch
from clipq.settings import PATHS, PROFILES, SELECTORS, find_settings
from clipq.terminal import printable
from clipq.verdicts import Verdict

if TYPE_CHECKING:
    from clipq.gating.matrix import Matrix

__all__ = ["clipq_conformance", "clipq_gate", "clipq_session"]

_COLLECTING = pytest.StashKey[Collecting]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("clipq", "clipq: reliability regression of quantized CLIP models")
    group.addoption("--clipq-config", metavar="FILE", help="settings; default: nearest clipq.toml")
    for name in SELECTORS:
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
    for name in PATHS:
        group.addoption(
            f"--clipq-{name}", metavar="PATH", help=f"instead of `{name}` in clipq.toml"
        )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clipq: a case of the reliability matrix")
    path = _settings_path(config)
    if path is None:
        return
    asked = config.stash[ASKED] = Asked(config, path)
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
    if config.pluginmanager.register(collector, COLLECTOR) is None:
        raise pytest.UsageError(
            f"-p no:{COLLECTOR} would let failures pass unnoticed\n"
            "  fix: leave it out; -p no:clipq.pytest_plugin turns off clipq as a whole"
        )
    workers = WorkerWatch(lambda why: interrupts.stop(why))
    interrupts = config.stash[INTERRUPTS] = Interrupts(workers.end)
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
    asked = config.stash.get(ASKED, None)
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
    asked = metafunc.config.stash.get(ASKED, None)
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
        collector = config.pluginmanager.get_plugin(COLLECTOR)
        if collector is not None and not config.pluginmanager.has_plugin("dsession"):
            collector.add(collected)
    elif folder := shared(config):
        collected.write(folder / f"{worker['workerid']}.collected")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is clipq's; a test for which nothing was planned is deselected, not skipped."""
    asked = config.stash.get(ASKED, None)
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


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Show verdicts instead of bare outcomes; the clipq report explains them."""
    if getattr(report, "when", "") != "call":
        return None
    result = result_of(report)
    if result is None or result.verdict is Verdict.PASS:
        return None
    letter = "F" if report.failed else {"improved": "+", "waived": "w"}.get(result.verdict, "?")
    return result.verdict.value, letter, result.verdict.value.upper()
