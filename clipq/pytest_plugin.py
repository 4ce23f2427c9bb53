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
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clipq.errors import ClipqError, SettingsError
from clipq.pytest_collector import KERNEL_PROPERTY, PROPERTY, RunCollector, result_of
from clipq.records import Verdict
from clipq.settings import POLICIES, PROFILES, Settings, find_settings, load_settings

if TYPE_CHECKING:
    from clipq.evaluation.plan import Case, Selection
    from clipq.gating.session import Gate

__all__ = ["Matrix"]

_KEY = pytest.StashKey["Matrix"]()
_SELECTORS = ("model", "quantizer", "probe", "metric")
_PARAMETERS = ("clipq_case", "clipq_kernel_check")
_PATHS = ("baselines", "margins", "waivers", "cache", "report")


class Matrix:
    """Settings, profile, command-line selection and the cases that follow from them."""

    def __init__(
        self,
        settings: Settings,
        selection: Selection,
        profile: str,
        kernels: tuple[str, ...] = (),
    ) -> None:
        self.settings = settings
        self.selection = selection
        self.profile = profile
        self.kernels = kernels

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """The selected cases, sorted; with the whole matrix, also the vanished ones.

        None where kernels alone were selected.
        """
        if self.kernels and not self.selection:
            return ()
        from clipq.evaluation.plan import plan
        from clipq.gating.margins import load_margins
        from clipq.gating.session import vanished_cases
        from clipq.gating.waivers import load_waivers

        load_waivers(self.settings.waivers)  # a malformed file fails before anything is measured
        cases = plan(self.settings, self.selection, profile=self.profile)
        if self.selection:
            return cases
        load_margins(self.settings.margins).check_against(self.everything)
        return cases + vanished_cases(self.settings, self.everything)

    @cached_property
    def everything(self) -> tuple[Case, ...]:
        """Every case of the whole matrix, whatever was selected."""
        from clipq.evaluation.plan import plan

        return plan(self.settings)

    def planned(self, parameter: str) -> bool:
        """Whether anything was planned for a parameter of tests."""
        return bool(self.cases if parameter == "clipq_case" else self.kernel_checks)

    @cached_property
    def by_id(self) -> dict[str, Case]:
        return {case.id: case for case in self.cases}

    @cached_property
    def kernel_checks(self) -> dict[str, tuple[str, str]]:
        """The planned (kernel, check) by id; none where cases alone were selected."""
        from clipq.kernels.spec import CHECKS, matching

        globs = self.kernels or (() if self.selection else self.settings.kernels)
        return {f"{name}/{check}": (name, check) for name in matching(globs) for check in CHECKS}


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
        "--clipq-policy", choices=POLICIES, help="which verdicts block: release is stricter than ci"
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
    try:
        matrix = _matrix(config)
    except ClipqError as error:
        raise pytest.UsageError(str(error)) from None
    if matrix is None:
        return
    config.stash[_KEY] = matrix
    if hasattr(config, "workerinput"):
        # BLAS libraries read these when they load, which is after this point.
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(matrix.settings.threads)
    else:
        config.pluginmanager.register(RunCollector(config, matrix), "clipq-collector")


def _matrix(config: pytest.Config) -> Matrix | None:
    given = config.getoption("--clipq-config")
    path = Path(config.invocation_params.dir, given) if given else find_settings(config.rootpath)
    if path is None:
        return None
    from clipq.evaluation.plan import Selection, load_plugins

    settings = load_settings(path)
    overrides: dict[str, Any] = {
        name: Path(config.invocation_params.dir, config.getoption(f"--clipq-{name}"))
        for name in _PATHS
        if config.getoption(f"--clipq-{name}")
    }
    waivers = overrides.get("waivers")
    if waivers is not None and not waivers.is_file():
        raise SettingsError(
            f"--clipq-waivers {waivers} is no file",
            hint="name the file of waivers, or leave it out",
        )
    if config.getoption("--clipq-record"):
        overrides["history"] = replace(settings.history, record=True)
    if config.getoption("--clipq-policy"):
        overrides["policy"] = config.getoption("--clipq-policy")
    settings = replace(settings, **overrides)
    load_plugins(settings)
    chosen = {f"{name}s": tuple(config.getoption(f"--clipq-{name}")) for name in _SELECTORS}
    kernels = tuple(config.getoption("--clipq-kernel"))
    return Matrix(settings, Selection(**chosen), config.getoption("--clipq-profile"), kernels)


def pytest_report_header(config: pytest.Config) -> str | None:
    matrix = config.stash.get(_KEY, None)
    if matrix is None:
        return None
    return (
        f"clipq: {matrix.settings.path}, policy {matrix.settings.policy}, profile {matrix.profile}"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    wanted = [name for name in _PARAMETERS if name in metafunc.fixturenames]
    if not wanted:
        return
    matrix = metafunc.config.stash.get(_KEY, None)
    # A CollectError is shown as its message alone, without a traceback.
    if matrix is None:
        raise pytest.Collector.CollectError(
            f"clipq: no clipq.toml found at or above {metafunc.config.rootpath}\n"
            "  fix: create one, or pass --clipq-config FILE"
        )
    try:
        if "clipq_case" in wanted:
            metafunc.parametrize("clipq_case", matrix.cases, ids=list(matrix.by_id))
        if "clipq_kernel_check" in wanted:
            checks = matrix.kernel_checks
            metafunc.parametrize("clipq_kernel_check", list(checks.values()), ids=list(checks))
    except ClipqError as error:
        raise pytest.Collector.CollectError(f"clipq: {error}") from None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is clipq's; a test for which nothing was planned is deselected, not skipped."""
    matrix = config.stash.get(_KEY, None)
    nothing = []
    for item in items:
        for name in _PARAMETERS:
            if name not in getattr(item, "fixturenames", ()):
                continue
            item.add_marker("clipq")
            if matrix is not None and not matrix.planned(name):
                nothing.append(item)
    if nothing:
        config.hook.pytest_deselected(items=nothing)
        items[:] = [item for item in items if item not in nothing]


@pytest.fixture(scope="session")
def _clipq_session(pytestconfig: pytest.Config) -> Gate:
    """One gate per process."""
    from clipq.evaluation.evaluator import Evaluator
    from clipq.gating.session import Gate

    matrix = pytestconfig.stash[_KEY]
    worker = getattr(pytestconfig, "workerinput", {}).get("workerid", "gw0")
    evaluator = Evaluator(matrix.settings, worker=int(worker.removeprefix("gw")))
    return Gate(matrix.settings, evaluator, cases=len(matrix.cases))


@pytest.fixture
def clipq_gate(request: pytest.FixtureRequest, _clipq_session: Gate) -> Callable[[Case], None]:
    """Judge a case: fails the test where the verdict blocks under the policy."""

    def check(case: Case) -> None:
        result = _clipq_session.check(case)
        # One JSON text: anything else is lost or mangled on the way from an xdist worker.
        request.node.user_properties.append((PROPERTY, result.to_json()))
        if result.verdict.blocks(_clipq_session.settings.policy):
            from clipq.report.text import explain

            pytest.fail(explain(result), pytrace=False)

    return check


@pytest.fixture
def clipq_conformance(request: pytest.FixtureRequest) -> Callable[[tuple[str, str]], None]:
    """Run a check of a kernel: fails where the kernel breaks its spec, skips with the reason."""

    def check(planned: tuple[str, str]) -> None:
        from clipq.testing.kernels import judge

        result = judge(*planned)
        request.node.user_properties.append((KERNEL_PROPERTY, result.to_json()))
        if result.outcome == "fail":
            pytest.fail(f"{result.id}: {result.reason}", pytrace=False)
        if result.outcome == "not-run":
            pytest.skip(result.reason)

    return check


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Show verdicts instead of bare outcomes; the clipq report explains them."""
    if getattr(report, "when", "") != "call":
        return None
    result = result_of(report)
    if result is None or result.verdict is Verdict.PASS:
        return None
    letter = "F" if report.failed else {"improved": "+", "waived": "w"}.get(result.verdict, "?")
    return result.verdict.value, letter, result.verdict.value.upper()
