"""What the documentation shows, runs; what it links to, exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from clipq.settings import load_settings

REPOSITORY = Path(__file__).parents[3]
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "name"), [("README.md", "halved"), ("docs/quantizers.md", "bf16")]
)
def test_the_documented_quantizer_runs_and_passes(project, page, name):
    source = next(b for b in blocks(REPOSITORY / page, "python") if "register" in b)
    (project.root / "mine.py").write_text(source)
    project.settings(quantizers=(name,), extra='plugins = ["mine"]')
    done = project.pytest("-n0")
    assert done.returncode == 0, done.stdout
    assert f"vit-clean  {name}" in done.stdout


def test_the_documented_settings_are_valid(tmp_path):
    (tmp_path / "clipq.toml").write_text(blocks(REPOSITORY / "docs" / "settings.md", "toml")[0])
    assert len(load_settings(tmp_path / "clipq.toml").probes) == 5


def test_the_documented_margins_are_valid(tmp_path):
    from clipq.gate.margins import load_margins

    (tmp_path / "m.toml").write_text(blocks(REPOSITORY / "docs" / "margins.md", "toml")[0])
    assert len(load_margins(tmp_path / "m.toml").rules) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_inside_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_begins_with_the_two_commands():
    first = blocks(REPOSITORY / "README.md", "")[0]
    assert "pip install tox && tox run -e gate" in first
    assert "tox run -e tests" in first


def test_constraints_pin_exactly():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert all("==" in line for line in lines if line and not line.startswith("#"))
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    for requirement in declared["dependencies"]:
        name = re.split(r"[\[>=]", requirement)[0].lower().replace("_", "-")
        assert name in pinned, name
