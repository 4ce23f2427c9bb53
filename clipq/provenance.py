"""Hashes and versions: what a reader needs in order to believe a result."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = [
    "canonical_json",
    "digest",
    "git_commit",
    "package_versions",
    "repository_top",
    "sha256_file",
]

_PACKAGES = (
    "clipq",
    "netcal",
    "numpy",
    "open_clip_torch",
    "pillow",
    "pytest",
    "pytest-xdist",
    "safetensors",
    "scikit-learn",
    "scipy",
    "torch",
    "torch-uncertainty",
    "torchmetrics",
    "torchvision",
    "timm",
)


def canonical_json(value: object) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def digest(value: object) -> str:
    """Return the sha256 (hex) of `value`'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def package_versions(packages: Iterable[str] = _PACKAGES) -> Mapping[str, str]:
    """Return the installed versions of what can move a result, and Python's own."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_commit(folder: Path) -> dict[str, str | bool]:
    """Return the checked-out commit of the repository around `folder`; {} where there is none.

    Keys: ``sha``, ``date`` (of the commit, ISO 8601), ``subject``, ``branch`` ("" where detached)
    and ``dirty`` (whether a tracked file differs from it).
    """
    described = _git(folder, "log", "-1", "--format=%H%x00%cI%x00%s")
    if described is None:
        return {}
    sha, date, subject = described.split("\0", 2)
    branch = _git(folder, "symbolic-ref", "--short", "--quiet", "HEAD") or ""
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"sha": sha, "date": date, "subject": subject, "branch": branch, "dirty": bool(changes)}


def repository_top(folder: Path) -> Path | None:
    """Return the top folder of the repository around `folder`; None where there is none."""
    upwards = _git(folder, "rev-parse", "--show-cdup")
    return None if upwards is None else (folder / upwards).resolve()


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), "-c", "i18n.logOutputEncoding=UTF-8", *arguments]
    try:
        done = subprocess.run(
            # A subject or a branch's name may be any bytes: one that is no text loses no report.
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or no answer: the run is recorded without its commit
    return done.stdout.strip() if done.returncode == 0 else None
