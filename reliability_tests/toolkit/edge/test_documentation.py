"""What the README promises first; every page's code blocks are run by toolkit/docs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def blocks(page: Path, language: str) -> list[str]:
    fence = rf"^ *```{language}(?: [^\n]*)?\n(.*?)^ *```"
    return re.findall(fence, page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_quantizer_of_the_readme_runs_and_passes(project):
    source = next(b for b in blocks(REPOSITORY / "README.md", "python") if "register" in b)
    (project.root / "mine.py").write_text(source)
    project.settings(quantizers=("halved",), extra='plugins = ["mine"]')
    done = project.pytest("-n0")
    assert done.returncode == 0, done.stdout
    assert "vit-clean  halved" in done.stdout


def test_the_readme_begins_with_the_two_commands():
    first = blocks(REPOSITORY / "README.md", "bash")[0]
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
