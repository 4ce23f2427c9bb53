"""What a record says of the commit it was made from, and why where it cannot tell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from clipq.checkout import checked_out, git_commit, repository_top


@pytest.fixture
def repository(tmp_path: Path):
    """Makes a git repository of one commit whose message is the given bytes."""

    def make(message: bytes, *settings: str) -> Path:
        (tmp_path / "message").write_bytes(message)
        given = ["user.name=n", "user.email=e@example.org", *settings]
        options = [word for setting in given for word in ("-c", setting)]
        for command in (
            ["init", "-q"],
            ["add", "message"],
            ["commit", "-q", "-F", "message"],
        ):
            subprocess.run(
                ["git", *options, *command], cwd=tmp_path, check=True, capture_output=True
            )
        return tmp_path

    return make


def test_a_subject_is_read_whatever_encoding_git_prints_logs_in(repository):
    root = repository("café".encode())
    subprocess.run(["git", "config", "i18n.logOutputEncoding", "ISO-8859-1"], cwd=root, check=True)
    assert git_commit(root)["subject"] == "café"


def test_a_subject_in_another_encoding_is_read_as_its_commit_says(repository):
    root = repository("café".encode("latin-1"), "i18n.commitEncoding=ISO-8859-1")
    assert git_commit(root)["subject"] == "café"


def test_a_subject_that_is_no_text_is_recorded_with_replacements(repository):
    found = git_commit(repository(b"caf\xe9", "i18n.commitEncoding=x-unknown"))
    assert found["subject"] == "caf\N{REPLACEMENT CHARACTER}"
    assert len(found["sha"]) == 40


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", *arguments]
    return subprocess.run(
        command, cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No repository around the test's folder, and no configuration of whoever runs it."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    return tmp_path


def test_no_repository_no_git_and_no_commit_are_told_apart(alone, monkeypatch):
    assert git_commit(alone) == {}
    assert checked_out(alone).problem == (
        f"the commit is unknown: {alone} lies in no git repository"
    )
    git(alone, "init", "-q")
    assert "the repository has no commit yet" in checked_out(alone).problem
    (alone / ".git" / "HEAD").write_text("nonsense")
    assert "no git repository" in checked_out(alone).problem
    assert "cannot be run" in checked_out(alone / "a\0b").problem
    monkeypatch.setenv("PATH", str(alone))
    assert checked_out(alone).problem == "the commit is unknown: git is not installed"


def test_a_repository_of_another_owner_is_named_as_such(repository, alone, monkeypatch):
    root = repository(b"one")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setattr("clipq.checkout._KEPT", ("GIT_TEST", "GIT_CEILING", "GIT_CONFIG"))
    found = checked_out(root)
    assert found.commit == {}
    assert "belongs to another user (git config --global --add safe.directory" in found.problem


def test_no_configuration_changes_the_answer(repository, alone, monkeypatch):
    root = repository(b"one")
    sha = git(root, "rev-parse", "HEAD")
    expected = git_commit(root)
    assert (expected["sha"], expected["subject"], expected["dirty"]) == (sha, "one", False)
    marker = root / "ran"
    for name, value in {
        "log.showSignature": "true", "log.decorate": "full", "log.date": "relative",
        "color.ui": "always", "color.status": "always", "alias.rev-parse": "!echo wrong",
        "alias.status": f"!touch {marker}", "core.fsmonitor": f"touch {marker}; false",
        "status.short": "true", "status.branch": "true", "status.showStash": "true",
        "format.pretty": "oneline", "core.pager": f"touch {marker}", "pager.status": "true",
        "core.abbrev": "4", "status.showUntrackedFiles": "all",
    }.items():  # fmt: skip
        git(root, "config", name, value)
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("GIT_TRACE", "2")
    monkeypatch.setenv("GIT_PAGER", f"touch {marker}")
    assert git_commit(root) == expected
    assert not marker.exists()


def test_a_hook_s_environment_does_not_lead_to_another_repository(repository, alone, monkeypatch):
    root = repository(b"one")
    other = alone / "other"
    other.mkdir()
    git(other, "init", "-q")
    expected = git_commit(root)
    for name in ("GIT_DIR", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    assert git_commit(root) == expected
    assert repository_top(root) == root.resolve()


def test_detached_shallow_and_linked_checkouts_have_their_commit(repository, alone):
    root = repository(b"one")
    git(root, "checkout", "-q", "-b", "topic")
    assert git_commit(root)["branch"] == "topic"
    sha = git(root, "rev-parse", "HEAD")
    git(root, "worktree", "add", "-q", "--detach", str(alone / "linked"))
    git(alone, "clone", "-q", "--depth", "1", f"file://{root}", "shallow")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q", f"file://{root}", "sub")
    for folder in ("linked", "shallow", "sub"):
        found = checked_out(alone / folder)
        assert (found.commit["sha"], found.commit["dirty"], found.problem) == (sha, False, "")
    assert git_commit(alone / "linked")["branch"] == ""
    (root / "sub" / "message").write_text("changed below")
    git(root, "commit", "-qm", "with a submodule", "--", ".gitmodules", "sub")
    git(root, "config", "diff.ignoreSubmodules", "all")
    assert git_commit(root)["dirty"] is True


def test_files_that_may_differ_count_as_changed_and_it_is_said_why(repository, alone):
    root = repository(b"one")
    (root / "untracked").write_text("x")
    assert checked_out(root).commit["dirty"] is False
    git(root, "update-index", "--assume-unchanged", "message")
    (root / "message").write_text("two")
    found = checked_out(root)
    assert found.commit["dirty"] is True
    assert "told to assume 1 unchanged, first 'message'" in found.problem
    git(root, "update-index", "--no-assume-unchanged", "message")
    assert checked_out(root).commit["dirty"] is True
    (root / ".git" / "index").write_bytes(b"damaged")
    found = checked_out(root)
    assert found.commit["dirty"] is True
    assert found.problem.startswith("whether files differ from the commit is unknown")
