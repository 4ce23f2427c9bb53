"""Hashes and versions: what a reader needs in order to believe a result."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clipq.files import open_plain

__all__ = [
    "DISTRIBUTION",
    "canonical_json",
    "digest",
    "package_versions",
    "sha256_file",
]

DISTRIBUTION = "pytest-clipq"
"""What clipq is installed as; the package index knows somebody else's package by the name clipq."""
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
    """Return the sha256 (hex) of a plain file's bytes, read in blocks."""
    with open_plain(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def package_versions(packages: Iterable[str] = _PACKAGES) -> Mapping[str, str]:
    """Return the installed versions of what can move a result, and Python's own.

    Args:
        packages: names of distributions; ``clipq`` is this one, whatever it is distributed as.

    >>> sorted(package_versions(["clipq", "no-such-package"]))
    ['clipq', 'no-such-package', 'python']
    """
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = _installed(DISTRIBUTION if name == "clipq" else name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def _installed(distribution: str) -> str:
    """Return a version, read once: each time is a file to be parsed, and keys ask hundreds."""
    return version(distribution)
