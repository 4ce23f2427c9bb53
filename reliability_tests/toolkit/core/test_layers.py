"""Imports point down only, and the light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import clipq

PACKAGE = Path(clipq.__file__).parent
CORE = (
    *("errors", "files", "provenance", "record_types", "records", "registry"),
    *("settings", "settings_reader"),
)
BELOW = {
    "core": set(),
    "quant": {"core"},
    "models": {"core"},
    "data": {"core"},
    "metrics": {"core"},
    "stats": {"core"},
    "kernels": {"core"},
    "evaluation": {"core", "quant", "models", "data", "metrics", "stats", "kernels"},
    "gate": {"core", "quant", "metrics", "stats", "evaluation"},
    "web": set(),
    "report": {"core", "web"},
    "history": {"core", "metrics", "stats", "evaluation", "gate", "report", "web"},
}
EDGE = (
    *("cli", "suite", "testing", "__init__", "__main__"),
    *("pytest_plugin", "pytest_collector", "pytest_progress"),
)


def layer(module: str) -> str:
    part = module.split(".")[1] if "." in module else "__init__"
    if part in CORE:
        return "core"
    return "edge" if part in EDGE else part


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.split(".")[0] == "clipq"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_a_module_imports_only_from_its_own_layer_and_below(path):
    module = ".".join(("clipq", *path.relative_to(PACKAGE).with_suffix("").parts))
    own = layer(module)
    if own == "edge":
        return
    for target in imports(path):
        assert layer(target) in BELOW[own] | {own}, f"{module} imports {target}"


@pytest.mark.parametrize(
    "code",
    [
        "import clipq",
        "import clipq.report.text, clipq.report.markdown, clipq.report.junit, clipq.report.html, "
        "clipq.report.annotations, clipq.report.comparison, clipq.report.card",
        "import clipq.history.store, clipq.history.comparison, clipq.history.pairs, "
        "clipq.history.site, clipq.history.keep",
        "import clipq.gate.session, clipq.gate.margins, clipq.gate.baseline",
        "from clipq.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from clipq.cli import main; main(['list', 'cases'])",
        "import pytest; pytest.main(['reliability_tests/test_reliability.py', '--collect-only', "
        "'-q', '-p', 'no:cacheprovider'])",
    ],
)
def test_no_torch_is_imported_before_something_is_encoded(code):
    check = "import sys; bad = {'torch', 'netcal', 'open_clip'} & set(sys.modules); assert not bad"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}, bad"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_package_raises_and_never_asserts():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Assert)], path
