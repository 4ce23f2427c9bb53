"""Action, release workflow and hooks at the root keep GitHub's and pre-commit's rules."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import check_commands
from page_blocks import REPOSITORY

from clipq.cli.main import main

WORKFLOWS = (
    REPOSITORY / ".github" / "workflows" / "release.yml",
    REPOSITORY / "docs" / "examples" / "ci" / "github-workflow.yml",
)
ACTION = REPOSITORY / "action.yml"
STEP = {"name", "id", "if", "uses", "with", "run", "shell", "env", "working-directory"}
JOB = {"needs", "if", "runs-on", "permissions", "environment", "strategy", "steps"}
OURS = "./.github/actions/clipq"  # where docs/ci.md has action.yml copied to


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def steps(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "runs" in document:
        yield from document["runs"]["steps"]
    for job in document.get("jobs", {}).values():
        yield from job["steps"]


# -- what holds for all of them -----------------------------------------------------------------


@pytest.mark.parametrize("path", [ACTION, *WORKFLOWS], ids=lambda path: path.name)
def test_each_step_uses_an_action_or_runs_a_script(path):
    for step in steps(read(path)):
        assert ("uses" in step) != ("run" in step), step
        assert set(step) <= STEP, step
        assert "with" not in step or "uses" in step, step
        if path == ACTION and "run" in step:
            assert step["shell"] == "bash"  # a composite action has no default


@pytest.mark.parametrize("path", [ACTION, *WORKFLOWS], ids=lambda path: path.name)
def test_no_script_is_made_of_what_somebody_else_writes(path):
    for step in steps(read(path)):
        assert "${{" not in step.get("run", ""), "an expression in a script is a command"


def test_actions_are_pinned_by_commit_and_everywhere_to_the_same():
    pins: dict[str, set[str]] = {}
    for path in (ACTION, *WORKFLOWS):
        for used in re.findall(r"uses: (.+)", path.read_text(encoding="utf-8")):
            if used == OURS:
                continue
            pinned = re.fullmatch(r"([\w.-]+/[\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", used)
            assert pinned, used
            owner, name = pinned[1].split("/")[:2]
            pins.setdefault(f"{owner}/{name}", set()).add(f"{pinned[2]} {pinned[3]}")
    assert len(pins) >= 8
    assert {name: found for name, found in pins.items() if len(found) > 1} == {}


# -- the action ---------------------------------------------------------------------------------


def test_the_action_declares_what_it_uses_and_uses_what_it_declares():
    action = read(ACTION)
    assert set(action) == {"name", "description", "inputs", "outputs", "runs"}
    assert action["runs"]["using"] == "composite"
    for declared in (*action["inputs"].values(), *action["outputs"].values()):
        assert declared["description"]
    assert all(isinstance(one["default"], str) for one in action["inputs"].values())
    used = set(re.findall(r"inputs\.([\w-]+)", ACTION.read_text(encoding="utf-8")))
    assert used == set(action["inputs"])
    told = re.findall(r"^\| (`.+?`) \|", (REPOSITORY / "docs" / "ci.md").read_text(), re.MULTILINE)
    assert set(action["inputs"]) <= {
        name for cell in told for name in re.findall(r"`([\w-]+)`", cell)
    }


def test_an_example_gives_the_action_inputs_that_it_has():
    given = [step for step in steps(read(WORKFLOWS[1])) if step.get("uses") == OURS]
    assert len(given) == 2
    for step in given:
        assert set(step["with"]) <= set(read(ACTION)["inputs"])


@pytest.mark.parametrize("code", [0, 1])
def test_the_scripts_of_the_action_gate_and_report_whatever_the_gate_says(tmp_path, code):
    action = read(ACTION)
    project, programs = tmp_path / "my project", tmp_path / "bin"
    project.mkdir()
    programs.mkdir()
    for program in ("clipq", "pip", "gh"):
        (programs / program).write_text(
            f'#!/bin/sh\necho {program} "$@" >> {tmp_path}/called\n'
            f'case "$1" in gate|report) exit {code};; esac\n'
        )
        (programs / program).chmod(0o755)
    given = {name: one["default"] for name, one in action["inputs"].items()}
    given |= {"project": str(project), "policy": "release", "install": "pytest-clipq==0.1.0 mine"}
    values = {f"inputs.{name}": value for name, value in given.items()}
    values |= {"github.token": "t", "github.event.pull_request.number": "7"}

    def filled(text: str) -> str:
        return re.sub(r"\$\{\{ (.+?) \}\}", lambda match: values[match[1]], text)

    exits = []
    for step in action["runs"]["steps"]:
        if "run" in step:
            environment = {name: filled(value) for name, value in step.get("env", {}).items()}
            path = f"{programs}{os.pathsep}{os.environ['PATH']}"
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=filled(step.get("working-directory", str(tmp_path))),
                env=environment | {"PATH": path},
            )
            exits.append(done.returncode)
    assert exits == [0, code, 0, 0]
    place = "--cache .clipq/cache --report .clipq/report"
    assert (tmp_path / "called").read_text().splitlines() == [
        "pip install pytest-clipq==0.1.0 mine",
        f"clipq gate --policy release --profile default {place}",
        "clipq report .clipq/report/report.json --format github",
        "gh pr comment 7 --body-file .clipq/report/report.md --edit-last --create-if-none",
    ]


# -- the release --------------------------------------------------------------------------------


def test_a_release_is_built_once_tried_and_then_published_without_a_password():
    release = read(WORKFLOWS[0])
    assert release[True] == {"push": {"tags": ["v[0-9]*"]}}  # YAML 1.1 reads `on` as true
    jobs = release["jobs"]
    assert release["permissions"] == {}
    for job in jobs.values():
        assert set(job) <= JOB | {"timeout-minutes"}
        assert job["timeout-minutes"] <= 30
    order = ["build", "try", "publish", "announce"]
    assert list(jobs) == order
    assert [jobs[name].get("needs") for name in order] == [None, *order[:-1]]
    allowed = {name: job["permissions"] for name, job in jobs.items()}
    assert [name for name in order if "id-token" in allowed[name]] == ["publish"]
    assert [name for name in order if allowed[name].get("contents") == "write"] == ["announce"]
    assert jobs["publish"]["environment"] == "pypi"  # where the trusted publisher is declared
    assert "secrets." not in WORKFLOWS[0].read_text()
    used = [step.get("uses", "") for step in jobs["publish"]["steps"]]
    assert "run" not in {key for step in jobs["publish"]["steps"] for key in step}
    assert any(one.startswith("actions/attest-build-provenance@") for one in used)
    assert used[-1].startswith("pypa/gh-action-pypi-publish@")
    for name in ("try", "publish", "announce"):
        assert not any("checkout" in step.get("uses", "") for step in jobs[name]["steps"])


@pytest.mark.parametrize(("tag", "exits"), [("v0.2.0", 0), ("v0.2.1", 1), ("0.2.0rc1", 1)])
def test_files_of_another_version_than_the_tags_stop_a_release(tmp_path, tag, exits):
    scripts = [step.get("run", "") for step in read(WORKFLOWS[0])["jobs"]["build"]["steps"]]
    (check,) = (script for script in scripts if "GITHUB_REF_NAME" in script)
    (tmp_path / "dist").mkdir()
    for name in ("pytest_clipq-0.2.0-py3-none-any.whl", "pytest_clipq-0.2.0.tar.gz"):
        (tmp_path / "dist" / name).touch()
    environment = {"GITHUB_REF_NAME": tag, "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-e", "-c", check], cwd=tmp_path, env=environment)
    assert done.returncode == exits


def test_every_python_that_is_declared_tries_the_wheel():
    declared = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    pythons = re.findall(r"Python :: (3\.\d+)", declared)
    assert read(WORKFLOWS[0])["jobs"]["try"]["strategy"]["matrix"]["python"] == pythons


# -- the hooks ----------------------------------------------------------------------------------

HOOKS = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
HOOK = {
    *("id", "name", "description", "entry", "args", "language", "pass_filenames", "always_run"),
    *("files", "stages"),
}


def line(hook: dict[str, Any]) -> str:
    return " ".join([hook["entry"], *hook["args"]])


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_is_one_and_runs_a_command_of_clipq(hook):
    assert {"id", "name", "entry", "language"} <= set(hook) <= HOOK
    assert hook["language"] == "system"
    assert hook["pass_filenames"] is False
    assert ("files" in hook) != (hook.get("always_run") is True)
    assert check_commands(line(hook)) == 1
    page = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf-8")
    assert f"| `{hook['id']}` | `{line(hook).removesuffix(' --quiet')}` |" in page


@pytest.mark.parametrize(
    ("path", "hooks"),
    [
        ("clipq.toml", {"clipq-settings", "clipq-doctor"}),
        ("sub/pyproject.toml", {"clipq-settings", "clipq-doctor"}),
        ("baselines/vit.json", {"clipq-doctor"}),
        ("src/myclipq.toml", set()),
        ("README.md", set()),
    ],
)
def test_hooks_run_where_one_of_their_files_changes(path, hooks):
    assert {one["id"] for one in HOOKS if "files" in one and re.search(one["files"], path)} == hooks


def test_the_hooks_of_every_commit_pass_on_a_whole_project_and_fail_on_a_broken_one(
    project, monkeypatch, capsys
):
    monkeypatch.chdir(project.root)
    everyday = [hook["args"] for hook in HOOKS if "stages" not in hook]
    assert [main(arguments) for arguments in everyday] == [0, 0]
    (project.root / "baselines" / "margins.toml").write_text("[[margin]]\nformats = 8\n")
    assert [main(arguments) for arguments in everyday] == [0, 1]
    (project.root / "clipq.toml").write_text("[clipq]\npolcy = 'ci'\n")
    assert main(everyday[0]) == 2
