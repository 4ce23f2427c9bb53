"""Which commit of the project is checked out, and where that cannot be known, why.

Git is asked through commands whose output is made for programs, with nothing of the caller's
environment or configuration that would change the answer: a hook's ``GIT_DIR`` names the repository
that is being pushed, ``log.showSignature`` puts a sentence before the commit, a file monitor or an
alias runs a program.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Checkout", "checked_out", "git_commit", "repository_top"]

_SECONDS = 60
# Of git's variables those that bound where it looks and say which owners it trusts; the rest would
# have it look elsewhere, or write what is no answer.
_KEPT = (
    "GIT_CEILING_DIRECTORIES",
    "GIT_CONFIG",  # _GLOBAL, _SYSTEM, _COUNT ...
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "GIT_EXEC_PATH",
)
_SETTINGS = {
    "color.ui": "false",
    "core.fsmonitor": "false",
    "core.quotePath": "false",
    "i18n.logOutputEncoding": "UTF-8",
    "log.showSignature": "false",
}


@dataclass(frozen=True, slots=True)
class Checkout:
    """The state of a repository's files.

    Args:
        commit: as `git_commit` returns it; {} where it is unknown.
        problem: a sentence on what is unknown, and why; "" where nothing is.
    """

    commit: Mapping[str, str | bool] = field(default_factory=dict)
    problem: str = ""


class _GitError(Exception):
    """Git gave no answer; the message says why."""


def checked_out(folder: Path) -> Checkout:
    """Return the checked-out commit of the repository around `folder`, or why it is unknown.

    A state of the files that cannot be told counts as changed: nothing says that they are the
    commit's.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as empty:
    ...     found = checked_out(Path(empty))
    >>> found.commit, found.problem.startswith("the commit is unknown: ")
    ({}, True)
    """
    try:
        _git(folder, "rev-parse", "--git-dir")
        sha = _head(folder)
        described = _git(folder, "rev-list", "--max-count=1", "--format=format:%cI%x00%s", sha)
    except _GitError as error:
        return Checkout(problem=f"the commit is unknown: {error}")
    date, _, subject = described.partition("\n")[2].partition("\0")
    try:
        branch = _git(folder, "symbolic-ref", "--short", "--quiet", "HEAD")
    except _GitError:
        branch = ""  # detached
    commit: dict[str, str | bool] = {
        "sha": sha, "date": date, "subject": subject.strip(), "branch": branch,
    }  # fmt: skip
    try:
        return Checkout(commit | {"dirty": _differs(folder)})
    except _GitError as error:
        why = f"whether files differ from the commit is unknown, and taken for granted: {error}"
        return Checkout(commit | {"dirty": True}, why)


def git_commit(folder: Path) -> dict[str, str | bool]:
    """Return the checked-out commit of the repository around `folder`; {} where it is unknown.

    Keys: ``sha``, ``date`` (of the commit, ISO 8601), ``subject``, ``branch`` ("" where detached)
    and ``dirty`` (whether a tracked file differs from it).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as empty:
    ...     git_commit(Path(empty))
    {}
    """
    return dict(checked_out(folder).commit)


def repository_top(folder: Path) -> Path | None:
    """Return the top folder of the repository around `folder`; None where there is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as empty:
    ...     print(repository_top(Path(empty)))
    None
    """
    try:
        upwards = _git(folder, "rev-parse", "--show-cdup")
    except _GitError:
        return None
    return (folder / upwards).resolve()


def _head(folder: Path) -> str:
    try:
        return _git(folder, "rev-parse", "--verify", "--end-of-options", "HEAD^{commit}")
    except _GitError as error:
        if "single revision" in str(error) or "unknown revision" in str(error):
            raise _GitError("the repository has no commit yet") from None
        raise


def _differs(folder: Path) -> bool:
    changed = _git(
        folder, "status", "--porcelain=v2", "-z", "--untracked-files=no", "--ignore-submodules=none"
    )
    if changed:
        return True
    # `git update-index --assume-unchanged` keeps changes of a file from being seen.
    listed = _git(folder, "ls-files", "-v", "-z", "--", ":/")
    unseen = [entry[2:] for entry in listed.split("\0") if entry[:1].islower()]
    if unseen:
        raise _GitError(f"git was told to assume {len(unseen)} unchanged, first {unseen[0]!r}")
    return False


def _git(folder: Path, *arguments: str) -> str:
    """Return what git answers.

    Raises:
        _GitError: there is no git, no repository that it trusts, or no answer.
    """
    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    command = ["git", "--no-pager", "--no-replace-objects", *settings, "-C", str(folder)]
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, stdin=subprocess.DEVNULL,
            env=_environment(), timeout=_SECONDS,
            # A subject or a branch's name may be any bytes: one that is no text loses no report.
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except FileNotFoundError:
        raise _GitError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise _GitError(f"git gave no answer within {_SECONDS} s") from None
    except (OSError, ValueError) as error:
        raise _GitError(f"git cannot be run: {error}") from None
    if done.returncode:
        raise _GitError(_reason(done.stderr, folder))
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(_KEPT)
    }
    # No locks beside a commit that is being made, no question, no download of a partial clone.
    fixed = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}
    return kept | fixed | {"LC_ALL": "C", "LANGUAGE": ""}


def _reason(complaint: str, folder: Path) -> str:
    if "not a git repository" in complaint:
        return f"{folder} lies in no git repository"
    if "dubious ownership" in complaint:
        return (
            f"git does not trust the repository around {folder}, which belongs to another user "
            "(git config --global --add safe.directory PATH trusts it)"
        )
    lines = [line for line in complaint.splitlines() if line.strip()] or ["git failed"]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines)[0].strip()[:300]
