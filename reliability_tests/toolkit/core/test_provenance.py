"""What a record says of the commit it was made from, whatever that commit holds."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from clipq.provenance import git_commit


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


def test_there_is_no_commit_outside_of_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) == {}
