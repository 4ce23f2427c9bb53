"""What clipq is installed as, what the wheel holds; no page installs a stranger's package."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import tomllib
import zlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
from hatchling.builders.wheel import WheelBuilder
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

import clipq
from clipq.cli.onboarding import installation
from clipq.cli.onboarding.demo_files import MODELS, PROBES
from clipq.cli.onboarding.health import Context, Finding, State, examine
from clipq.dependencies import installed
from clipq.provenance import DISTRIBUTION, package_versions

REPOSITORY = Path(__file__).parents[3]

# -- no page installs what an index calls clipq -------------------------------------------------

TEXTS = (".py", ".md", ".toml", ".yml", ".yaml", ".ini", ".txt", ".js", ".html", ".sh", "")
OLD = re.compile(
    r"""
    # after a word that installs, on the same line: no path, no part of another name
    \b(?:install|add|require)\b(?!\ clipq\ as\b)
        [^\n|;&`#.]*? (?<![\w./-]) clipq (?![\w/.:-])
    | (?:\buvx|\bpipx\ run|--with|--from) [ =]+ ['"]? clipq (?![\w/.:-])
    | (?<![\w./-]) clipq \[ [a-z,]+ \]                     # with an extra
    | (?<![\w./-]) clipq \ ? (?: [=~!]= | [<>]=? \ ?\d | @\ ?(?:git|http|file) )     # a requirement
    """,
    re.VERBOSE,
)
NAMED = re.compile(r"pip uninstall clipq, then pip install --force-reinstall")  # the cure itself


def _texts() -> list[Path]:
    folders = ("clipq", "docs", "benchmarks", "tools", "fixtures", "reliability_tests")
    found = [
        path for name in (*folders, ".github", ".ci") for path in (REPOSITORY / name).rglob("*")
    ]
    found += REPOSITORY.iterdir()
    return [
        path
        for path in sorted(found)
        if path.is_file() and path.suffix in TEXTS and path.name not in ("LICENSE", ".git")
        if path != Path(__file__)
    ]


def _old_lines(text: str) -> list[str]:
    return [
        line for line in text.splitlines() if "clipq" in line and OLD.search(NAMED.sub("", line))
    ]


def test_no_file_installs_the_package_that_an_index_calls_clipq():
    texts = _texts()
    assert len(texts) > 500
    assert {"README.md", "action.yml", ".pre-commit-hooks.yaml", "release.yml"} <= {
        path.name for path in texts
    }
    found = {path: _old_lines(path.read_text(encoding="utf-8")) for path in texts}
    assert not {str(path): lines for path, lines in found.items() if lines}


@pytest.mark.parametrize(
    "line",
    [
        "pip install clipq",
        "      run: pip install --upgrade clipq",
        "python -m pip install -q torch clipq",
        "pip install 'clipq[attacks]'",
        'hint="pip install clipq[postgresql]"',
        "uv add clipq",
        "uv pip install clipq==0.1.0",
        "poetry add clipq",
        "uvx clipq gate",
        "uvx --from clipq clipq gate",
        "pipx run clipq gate",
        "clipq==0.1.0",
        "  - clipq>=0.1",
        'dependencies = ["clipq ~= 0.1"]',
        "clipq @ git+ssh://example.org/clipq",
    ],
)
def test_a_line_that_would_is_noticed(line):
    assert _old_lines(line) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "pip install pytest-clipq",
        "pip install 'pytest-clipq[attacks]'",
        "pip install -e ../clipq",
        "uvx --from pytest-clipq clipq gate",
        "pip install pytest-clipq && clipq demo",
        "- run: pip install pytest-clipq  # then clipq gate",
        "[clipq]",
        "Commands(settings)[clipq.toml]",
    ],
)
def test_a_line_that_would_not_is_left_alone(line):
    assert not _old_lines(line)


# -- the wheel ----------------------------------------------------------------------------------

MIB = 2**20


@pytest.fixture(scope="module")
def wheel() -> dict[str, Path]:
    """Where every file of the wheel would come from, by its path in there."""
    builder = WheelBuilder(str(REPOSITORY))
    return {
        PurePosixPath(file.distribution_path).as_posix(): Path(file.path)
        for file in builder.recurse_included_files()
    }


def test_the_wheel_holds_the_package_and_all_that_it_reads(wheel):
    package = REPOSITORY / "clipq"
    ours = {
        path.relative_to(REPOSITORY).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours <= wheel.keys()
    assert {"clipq/py.typed", "clipq/suite/pytest.ini", "clipq/web/report/page.html"} <= ours
    assert all(name.startswith("clipq/") for name in wheel)


def test_the_wheel_holds_the_demonstration_and_no_more_of_the_embedded_world(wheel):
    for part in (f"models/{name}" for name in MODELS):
        for path in (REPOSITORY / "fixtures" / part).iterdir():
            assert wheel[f"clipq/demo/{part}/{path.name}"] == path
    held = {tuple(name.split("/")[2:4]) for name in wheel if name.startswith("clipq/demo/")}
    assert held == {
        *(("models", name) for name in MODELS),
        *(("data", name) for name in PROBES),
        *(("baselines", f"{name}.{end}") for name in MODELS for end in ("json", "safetensors")),
    }


def test_the_wheel_has_at_most_20_mib(wheel):
    size = sum(len(zlib.compress(path.read_bytes(), 6)) + 250 for path in wheel.values())
    assert 10 * MIB < size < 20 * MIB


def test_version_and_licence_come_from_tag_and_file(tmp_path):
    def version() -> str:
        metadata = ProjectMetadata(str(tmp_path), PluginManager())
        assert metadata.core.license_files == ["LICENSE"]
        assert metadata.core.name == DISTRIBUTION
        return metadata.version

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "tag.gpgSign=false")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tmp_path)
    assert version() == "0.0.0"  # an archive without git
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    assert re.fullmatch(r"0\.0\.1\.dev1\+g\w+", version())
    git("tag", "v0.2.0")
    assert version() == "0.2.0"
    git("commit", "--allow-empty", "-m", "second")
    assert re.fullmatch(r"0\.2\.1\.dev1\+g\w+", version())


# -- what asks for the distribution by its name -------------------------------------------------


def test_versions_and_code_identity_ask_for_the_distribution():
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["name"]
    assert declared == DISTRIBUTION == installed.IN_ENVIRONMENT["clipq"] == "pytest-clipq"
    assert clipq.__version__ == package_versions(("clipq",))["clipq"] != "not installed"
    assert clipq.__version__ == package_versions((DISTRIBUTION,))[DISTRIBUTION]


def _named(monkeypatch: pytest.MonkeyPatch, files: list[str] | None) -> dict[str, Finding]:
    def distribution(name: str) -> SimpleNamespace:
        if files is None:
            raise PackageNotFoundError(name)
        return SimpleNamespace(version="1.3", files=list(map(PurePosixPath, files)))

    monkeypatch.setattr(installation, "distribution", distribution)
    (check,) = (one for one in installation.EXAMINATIONS if one.name == "name")
    found = examine((check,), Context(None, {}, datetime.date(2026, 6, 1)))
    return {one.name: one for one in found}


def test_the_doctor_names_the_distribution(monkeypatch):
    assert {name: one.state for name, one in _named(monkeypatch, None).items()} == {
        DISTRIBUTION: State.OK
    }


@pytest.mark.parametrize(
    ("files", "state"),
    [
        (["clipq/__init__.py", "clipq-1.3.dist-info/METADATA"], State.PROBLEM),
        (["something/else.py"], State.WARNING),
        ([], State.WARNING),
    ],
)
def test_the_doctor_names_a_stranger_of_the_same_name(monkeypatch, files, state):
    stranger = _named(monkeypatch, files)["clipq of the index"]
    assert stranger.state is state
    assert stranger.text.startswith("1.3, another project's package")
    assert stranger.fix.startswith("pip uninstall clipq, then pip install")


def test_the_doctor_says_that_a_folder_on_the_path_is_no_installation(monkeypatch, capsys):
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    for asked in ("version", "metadata", "requires"):
        monkeypatch.setattr(installation, asked, absent)
    found = examine(installation.EXAMINATIONS[:3], Context(None, {}, datetime.date(2026, 6, 1)))
    first = next(iter(found))
    assert (first.name, first.state) == (DISTRIBUTION, State.PROBLEM)
    assert "pip install pytest-clipq" in first.fix
    assert not [one for one in found if "PackageNotFoundError" in one.text]
