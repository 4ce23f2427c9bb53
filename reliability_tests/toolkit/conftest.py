"""A small project around one embedded model, for tests that run the real thing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

# What the tests here share; importlib mode puts no folder of tests on the path.
sys.path.insert(0, str(Path(__file__).parent))

from warm_process import WarmProcess, outside_of_tests

REPOSITORY = Path(__file__).parents[2]
SETTINGS = """\
[clipq]
cache = "{cache}"

[matrix]
quantizers = {quantizers}
metrics = {metrics}

[[models]]
name = "vit-clean"
source = "local-dir:{fixtures}/models/vit-clean"

[[probes]]
name = "id"
role = "in-distribution"
source = "webdataset:{data}/shapes"
group = "colour"

[[probes]]
name = "calibration"
role = "calibration"
source = "webdataset:{data}/shapes"
split = "calibration"

[[probes]]
name = "digits"
role = "ood"
source = "webdataset:{data}/digits"
"""
MARGINS = """\
[[margin]]
formats = "*"
[margin.metrics]
"*" = 0.05
nll = 0.2
effective-rank = 5.0
sqnr = 5.0
"""


@dataclass
class Project:
    """A project folder and the commands a user would run in it."""

    root: Path
    cache: Path
    warm: WarmProcess

    def settings(
        self,
        *,
        quantizers: tuple[str, ...] = ("rtn:w8", "rtn:w8a8"),
        metrics: tuple[str, ...] = ("top1", "ece", "auroc-mcm"),
        data: Path = REPOSITORY / "fixtures" / "data",
        fixtures: Path = REPOSITORY / "fixtures",
        extra: str = "",
        after: str = "",
    ) -> Path:
        path = self.root / "clipq.toml"
        text = SETTINGS.format(
            cache=self.cache,
            quantizers=list(quantizers),
            metrics=list(metrics),
            fixtures=fixtures,
            data=data,
        )
        path.write_text(text.replace("[clipq]\n", f"[clipq]\n{extra}\n") + after)
        return path

    def use_reviewed_baseline(
        self, *, probes: tuple[str, ...] = ("id", "digits"), metrics: tuple[str, ...] = ()
    ) -> None:
        """Take the repository's margins, and its baseline of these probes and metrics, or all."""
        stored = json.loads((REPOSITORY / "baselines" / "vit-clean.json").read_text())
        stored["metrics"] = {
            key: value
            for key, value in stored["metrics"].items()
            if key.partition(".")[0] in probes and (not metrics or key.partition(".")[2] in metrics)
        }
        folder = self.root / "baselines"
        (folder / "vit-clean.json").write_text(json.dumps(stored, indent=2))
        margins = (REPOSITORY / "baselines" / "margins.toml").read_text()
        (folder / "margins.toml").write_text(margins.partition("[[expected-failure]]")[0])

    def run(self, *command: str, timeout: int = 240) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, as a user would; never from this repository's root."""
        environment = outside_of_tests(os.environ)
        environment["PYTHONPATH"] = str(self.root)
        return self.warm.run(command, cwd=self.root, environment=environment, timeout=timeout)

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("pytest", "-p", "no:cacheprovider", "test_gate.py", *arguments)

    def clipq(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("clipq", *arguments)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for every project of every worker: what is equal is encoded once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-cache"
    folder.mkdir(exist_ok=True)
    # What recipes make takes half a minute each, and is the same for the embedded matrix.
    made = REPOSITORY / ".clipq" / "cache" / "artifacts"
    made.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (folder / "artifacts").symlink_to(made)
    return folder


@pytest.fixture(scope="session")
def warm_process() -> Iterator[WarmProcess]:
    """What a project's commands are forked from."""
    process = WarmProcess()
    yield process
    process.close()


@pytest.fixture
def project(tmp_path: Path, shared_cache: Path, warm_process: WarmProcess) -> Project:
    """A project with settings, margins, this repository's baseline and a two-line test."""
    made = Project(tmp_path, shared_cache, warm_process)
    made.settings()
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "margins.toml").write_text(MARGINS)
    for name in ("vit-clean.json", "vit-clean.safetensors"):
        shutil.copy(REPOSITORY / "baselines" / name, tmp_path / "baselines")
    (tmp_path / "test_gate.py").write_text(
        "def test_reliability(clipq_case, clipq_gate):\n    clipq_gate(clipq_case)\n"
    )
    keep = _only_measured(tmp_path / "baselines" / "vit-clean.json")
    keep(("top1", "ece", "auroc-mcm"), ("id", "digits"))
    return made


def _only_measured(path: Path) -> Callable[[tuple[str, ...], tuple[str, ...]], None]:
    """Narrow a baseline to what the small matrix measures; the rest would be `vanished`."""

    def keep(metrics: tuple[str, ...], probes: tuple[str, ...]) -> None:
        document = json.loads(path.read_text())
        document["metrics"] = {
            key: value
            for key, value in document["metrics"].items()
            if key.partition(".")[2] in metrics and key.partition(".")[0] in probes
        }
        path.write_text(json.dumps(document, indent=2))

    return keep
