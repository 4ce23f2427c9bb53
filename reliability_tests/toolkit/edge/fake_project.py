"""A project whose cases are judged by a stand-in: pytest's side of the gate, without a model."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SETTINGS = """\
[clipq]
cache = "cache"
report = "report"
{extra}
[matrix]
quantizers = ["rtn:w8", "rtn:w4"]
metrics = ["top1", "ece", "nll"]

[[models]]
name = "vit"
source = "local-dir:nowhere"

[[probes]]
name = "id"
role = "in-distribution"
source = "webdataset:nowhere"

[[probes]]
name = "calibration"
role = "calibration"
source = "webdataset:nowhere"
split = "calibration"
"""
MARGINS = """\
[[margin]]
formats = "*"
[margin.metrics]
"*" = 0.05
"""
JUDGE = """\
import pytest

from clipq.records import CaseResult
from clipq.verdicts import Verdict

VERDICTS = {verdicts}


class Judge:
    def __init__(self, settings):
        self.settings = settings

    def check(self, case):
        {body}
        verdict = VERDICTS.get(case.id, "pass")
        return CaseResult(case, Verdict(verdict), reason="" if verdict == "pass" else "a stand-in")


@pytest.fixture(scope="session")
def clipq_session(pytestconfig):
    from clipq.settings import load_settings

    settings = load_settings(pytestconfig.rootpath / "clipq.toml")
    policy = pytestconfig.getoption("--clipq-policy")
    return Judge(settings.under(policy) if policy else settings)

"""
TWO_LINES = "def test_reliability(clipq_case, clipq_gate):\n    clipq_gate(clipq_case)\n"
CASES = tuple(
    f"vit/rtn:{form}/id.{name}" for form in ("w4", "w8") for name in ("ece", "nll", "top1")
)


def write_project(
    root: Path,
    *,
    suite: str = TWO_LINES,
    conftest: str = "",
    verdicts: dict[str, str] | None = None,
    body: str = "pass",
    extra: str = "",
    after: str = "",
) -> Path:
    """Write a project of six cases.

    Args:
        root: of it.
        suite: its test module.
        conftest: what its conftest.py holds beside the stand-in.
        verdicts: of cases that do not pass, by id.
        body: statements that run before a case is judged.
        extra: more keys of ``[clipq]``.
        after: more tables of the settings.
    """
    (root / "baselines").mkdir(exist_ok=True)
    (root / "baselines" / "margins.toml").write_text(MARGINS)
    (root / "clipq.toml").write_text(SETTINGS.format(extra=extra) + after)
    judge = JUDGE.format(verdicts=verdicts or {}, body=textwrap.indent(body, " " * 8).strip())
    (root / "conftest.py").write_text(judge + conftest)
    (root / "test_gate.py").write_text(suite)
    (root / "pytest.ini").write_text("[pytest]\n")
    return root


def run_pytest(root: Path, *arguments: str) -> int:
    """Run pytest on a project in this process, without workers; return its exit code."""
    options = ["-n0", "-p", "no:cacheprovider", "--import-mode=importlib"]
    with at_home(root):
        return int(pytest.main([*options, *arguments]))


@contextmanager
def at_home(root: Path) -> Iterator[None]:
    """Work in a project's folder; forget its modules afterwards: others' have the same names."""
    there, known = Path.cwd(), set(sys.modules)
    os.chdir(root)
    try:
        yield
    finally:
        os.chdir(there)
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(root)):
                del sys.modules[name]


def read_report(root: Path) -> dict[str, Any]:
    """Return the record that a run left."""
    found: dict[str, Any] = json.loads((root / "report" / "report.json").read_text())
    return found
