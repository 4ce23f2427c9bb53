"""What the documentation shows, runs; what it links to, exists."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import check_commands
from page_blocks import REPOSITORY, Block, blocks, pages
from page_session import LANGUAGES, PageSession, shell_lines

PAGES = pages()
MARKED = {
    # Blocks that do not simply run, on all pages. A new one is counted here or does not exist.
    "needs-cuda": 1,
    "parsed, gpu": 1,
    "parsed, installation": 3,
    "parsed, minutes": 18,
    "parsed, network": 0,
}


GENERATED = ("reference/cli.md", "reference/metrics.md", "reference/quantizers.md", "samples/")
"""What docs/hooks/ add when the site is built; test_docs_site.py looks whether they do."""


def _ids(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=_ids)
def test_every_code_block_of_a_page_does_what_it_shows(page: Path, session: PageSession) -> None:
    for block in blocks(page):
        session.run(block)
    session.finish()


def test_a_file_that_nothing_uses_is_run(session: PageSession) -> None:
    session.run(Block("page.md", 1, "python", "unused.py", "", "raise SystemExit(3)"))
    with pytest.raises(AssertionError, match="exits 3"):
        session.finish()


def test_blocks_that_do_not_run_are_counted() -> None:
    marks = Counter(block.mark for page in PAGES for block in blocks(page))
    unrun = {m: n for m, n in marks.items() if m == "needs-cuda" or m.startswith("parsed")}
    assert {mark: count for mark, count in MARKED.items() if count} == unrun


def test_every_block_has_a_language_with_a_rule() -> None:
    found = [b for page in PAGES for b in blocks(page) if b.language not in LANGUAGES]
    assert not found, [f"{b.where}: {b.language or 'none'}" for b in found]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- test: skip -->\n```python\n1\n```\n", "unknown mark 'skip'"),
        ("<!-- test: parsed -->\n```bash\nclipq gate\n```\n", "unknown mark 'parsed'"),
        ("<!-- test: needs-cuda -->\n\nnothing\n", "stands above no block"),
    ],
)
def test_a_block_cannot_be_hidden_by_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, complaint: str
) -> None:
    monkeypatch.setattr("page_blocks.REPOSITORY", tmp_path)
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        blocks(tmp_path / "page.md")


@pytest.mark.parametrize(
    ("language", "text", "error"),
    [
        ("rust", "fn main() {}", ValueError),
        ("", "clipq gate", ValueError),
        ("python", "1 / 0", ZeroDivisionError),
        ("python", "1 +", SyntaxError),
        ("bash", "clipq gat", AssertionError),
        ("bash", "false | true", AssertionError),
        ("toml", "[matrix]\nquantizer = []", Exception),
        ("toml", "[unknown]\nkey = 1", ValueError),
        ("yaml", "steps:\n  - run: clipq gate --polcy ci", ValueError),
        ("yaml", "a: b: c", yaml.YAMLError),
        ("json", "{", ValueError),
        ("json", '{"schema": "clipq-run/6", "cases": []}', Exception),
    ],
)
def test_a_wrong_block_is_noticed(
    session: PageSession, language: str, text: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        session.run(Block("page.md", 1, language, "", "", text))


def test_shown_output_is_compared_without_its_numbers(session: PageSession) -> None:
    session.run(Block("page.md", 1, "bash", "", "", "echo 'vit  0.93  in 4.2 s'"))
    session.run(Block("page.md", 2, "text", "", "output", "vit 0.71 in 12 s"))
    session.run(Block("page.md", 2, "text", "", "output", "vit 0.71 ..."))
    with pytest.raises(AssertionError, match="is not printed"):
        session.run(Block("page.md", 3, "text", "", "output", "resnet 0.71 in 12 s"))


def test_what_python_prints_is_compared_as_what_commands_print(session: PageSession) -> None:
    session.run(Block("page.md", 1, "python", "", "", "print('ece', 0.03)"))
    session.run(Block("page.md", 2, "text", "", "output", "ece 0.71"))
    with pytest.raises(AssertionError, match="is not printed"):
        session.run(Block("page.md", 3, "text", "", "output", "mce 0.71"))


@pytest.mark.parametrize(
    "command",
    ["clipq", "clipq gate --profile never", "clipq gate --modell x", "frobnicate --all",
     "clipq report a.json --format pdf", "clipq list metrics && clipq lst"],
)  # fmt: skip
def test_a_command_that_clipq_does_not_know_is_noticed(command: str) -> None:
    with pytest.raises(ValueError, match=r"clipq|program"):
        check_commands(command)


CI = [
    REPOSITORY / "action.yml",
    REPOSITORY / ".github" / "workflows" / "release.yml",
    *sorted((REPOSITORY / "docs" / "examples" / "ci").glob("*.yml")),
]


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name)
def test_a_ci_example_parses_and_calls_clipq_as_it_is(path: Path) -> None:
    scripts = list(shell_lines(yaml.safe_load(path.read_text())))
    assert sum(check_commands(script) for script in scripts) >= 1


def test_there_is_a_ci_example_of_each_kind() -> None:
    assert [path.name for path in CI[2:]] == ["github-workflow.yml", "gitlab-ci.yml"]


def _ci(name: str) -> dict[str, Any]:
    (path,) = (path for path in CI if path.name == name)
    read: dict[str, Any] = yaml.safe_load(path.read_text())
    return read


@pytest.mark.parametrize(
    "steps",
    [
        _ci("action.yml")["runs"]["steps"],
        _ci("github-workflow.yml")["jobs"]["nightly"]["steps"],
    ],
    ids=["action", "nightly"],
)
def test_a_github_cache_is_saved_after_a_failing_gate(steps: list[dict[str, Any]]) -> None:
    caches = [step for step in steps if step.get("uses", "").startswith("actions/cache")]
    restored, saved = caches
    assert restored["uses"].startswith("actions/cache/restore@")
    assert saved["uses"].startswith("actions/cache/save@")
    assert "always()" in saved["if"]
    assert saved["with"] == {key: restored["with"][key] for key in ("path", "key")}
    (gate,) = (step for step in steps if "clipq gate" in step.get("run", ""))
    assert steps.index(restored) < steps.index(gate) < steps.index(saved)


def test_a_gitlab_cache_is_saved_and_published_after_a_failing_gate() -> None:
    pipeline = _ci("gitlab-ci.yml")
    assert pipeline["default"]["cache"]["when"] == "always"
    assert pipeline["pages"]["rules"][0]["when"] == "always"
    assert pipeline["pages"]["needs"] == ["nightly"]


def _elsewhere() -> str:
    *_, last = blocks(REPOSITORY / "docs" / "ci.md")
    return last.text


@pytest.mark.parametrize("code", [0, 1, 3])
@pytest.mark.parametrize(
    ("script", "then"),
    [
        (_elsewhere(), "report .clipq/report/report.json --format markdown"),
        ("\n".join(_ci("gitlab-ci.yml")["nightly"]["script"]), "site --output public"),
    ],
    ids=["elsewhere", "gitlab"],
)
def test_a_ci_script_goes_on_after_a_failing_gate_and_exits_as_it_did(
    tmp_path: Path, script: str, then: str, code: int
) -> None:
    (tmp_path / "clipq").write_text(
        f'#!/bin/sh\necho "$@" >> called\ntest "$1" != gate || exit {code}\n'
    )
    (tmp_path / "clipq").chmod(0o755)
    (tmp_path / ".clipq" / "report").mkdir(parents=True)
    (tmp_path / ".clipq" / "report" / "junit.xml").write_text("<testsuites/>")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env={"PATH": path})
    assert done.returncode == code
    assert (tmp_path / "called").read_text().splitlines()[1:] == [then]


@pytest.mark.parametrize("page", [*PAGES, *sorted(REPOSITORY.glob("[A-Z]*.md"))], ids=_ids)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    docs = REPOSITORY / "docs"
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" in target:
            continue
        path = (page.parent / target).resolve()
        made = path.is_relative_to(docs) and path.relative_to(docs).as_posix().startswith(GENERATED)
        assert path.exists() or made, target
