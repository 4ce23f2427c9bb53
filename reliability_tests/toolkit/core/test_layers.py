"""Imports point down only, and the light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import clipq

PACKAGE = Path(clipq.__file__).parent
CORE = (
    "artifact_settings",
    *("cases", "checkout", "cluster_names", "csv_cells", "errors", "estimate", "files", "globs"),
    *("provenance", "records"),
    *(
        "recorded_evidence",
        "redaction",
        "registry",
        "settings",
        "shapes",
        "statistic_kinds",
        "terminal",
        "training_settings",
        "verdicts",
    ),
)
BELOW = {
    "core": set(),
    "dependencies": {"core"},
    "quant": {"core", "dependencies"},
    "models": {"core"},
    "data": {"core", "dependencies"},
    "metrics": {"core"},
    "stats": {"core"},
    "kernels": {"core"},
    "runtimes": {"core", "dependencies"},
    "training": {"core"},
    "exports": {"core", "quant", "runtimes"},
    "evaluation": {
        *("core", "dependencies", "quant", "models", "data", "metrics", "stats", "kernels"),
        *("runtimes", "exports", "training"),
    },
    "gating": {"core", "quant", "metrics", "stats", "kernels", "evaluation"},
    "web": set(),
    "report": {"core", "web"},
    "study": {"core", "web", "report"},
    "history": {"core", "metrics", "stats", "evaluation", "gating", "report", "web"},
    "sweep": {"core", "quant", "data", "metrics", "evaluation", "gating"},
    "api": {
        *("core", "quant", "models", "data", "metrics", "stats", "evaluation", "gating"),
        *("report", "history", "training"),
    },
}
EDGE = (
    *("cli", "suite", "testing", "__init__", "__main__"),
    *("node_ids", "pytest_plugin", "pytest_collector", "pytest_conclusion", "pytest_interrupts"),
    *("pytest_asked", "pytest_fixtures", "pytest_items", "pytest_progress", "pytest_workers"),
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


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("clipq", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def test_no_two_modules_share_a_file_name():
    """Only a module of a command, which is named as the command is, may share another's name."""
    paths = [
        path
        for path in PACKAGE.rglob("*.py")
        if path.parent != PACKAGE / "cli" and not path.stem.startswith("__")
    ]
    times = Counter(path.stem for path in paths)
    assert [str(path.relative_to(PACKAGE)) for path in paths if times[path.stem] > 1] == []


def neighbours(modules: dict[str, Path]) -> dict[str, set[str]]:
    """What each module imports of the package, wherever in it; not what only type checkers read."""
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for statement in node.body
            for inner in ast.walk(statement)
        }
        names: set[str] = set()
        for node in ast.walk(tree):
            if node in for_types:
                continue
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                below = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= below if below <= modules.keys() else {*below, node.module}
        own_packages = {name for name in modules if module.startswith(f"{name}.")}
        found[module] = (names & modules.keys()) - own_packages
    return found


def circles(edges: dict[str, set[str]]) -> set[frozenset[str]]:
    """The sets of modules that reach each other: strongly connected, of more than one."""
    reached = {module: set(targets) for module, targets in edges.items()}
    for through in edges:
        for module in edges:
            if through in reached[module]:
                reached[module] |= reached[through]
    return {
        frozenset({module, *(m for m in reached[module] if module in reached[m])})
        for module in edges
        if module in reached[module]
    }


def test_no_modules_import_each_other_not_even_inside_a_function():
    modules = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    assert {tuple(sorted(circle)) for circle in circles(neighbours(modules))} == set()


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, set()),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, {frozenset("ab")}),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"d"}}, {frozenset("abc"), frozenset("d")}),
    ],
)
def test_circles_are_found(edges, expected):
    assert circles(edges) == expected


@pytest.mark.parametrize(
    "code",
    [
        "import clipq",
        "import clipq.report.text, clipq.report.markdown, clipq.report.junit, clipq.report.html, "
        "clipq.report.annotations, clipq.report.comparison_report, clipq.report.card, "
        "clipq.study.study_formats",
        "import clipq.history.store, clipq.history.comparison, clipq.history.pairs, "
        "clipq.history.site, clipq.history.keep",
        "import clipq.gating.session, clipq.gating.margins, clipq.gating.baseline",
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


def test_help_comes_before_numpy():
    code = (
        "import sys\nfrom clipq.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'numpy', 'scipy', 'pandas', 'sqlalchemy', 'PIL'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_the_package_raises_and_never_asserts():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Assert)], path


LONGEST_CLASS = 250


@pytest.mark.parametrize("room", ["evaluation", "gating", "api"])
def test_no_class_is_longer_than_a_reader_keeps_in_mind(room):
    lengths = {
        f"{path.stem}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in (PACKAGE / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    assert {name: count for name, count in lengths.items() if count > LONGEST_CLASS} == {}
