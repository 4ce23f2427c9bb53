"""What is installed: packages that are known by their versions, and files that belong to them."""

from __future__ import annotations

import re
import site
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from clipq.provenance import DISTRIBUTION

__all__ = ["IN_ENVIRONMENT", "is_installed", "versions_behind"]

IN_ENVIRONMENT = {
    "clipq": DISTRIBUTION,
    "open_clip": "open-clip-torch",
    "PIL": "pillow",
    "timm": "timm",
    "torch": "torch",
    "torchvision": "torchvision",
}
"""Packages whose versions are part of every result's key, and what they are distributed as."""


def is_installed(path: Path) -> bool:
    """Return whether a file belongs to Python, to clipq or to an installed package.

    >>> import numpy
    >>> is_installed(Path(numpy.__file__)), is_installed(Path("quantizers.py"))
    (True, False)
    """
    resolved = path.resolve()
    return any(resolved.is_relative_to(folder) for folder in _folders())


def versions_behind(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of the distributions that top-level packages are of, and of theirs.

    What a distribution requires is followed, for that may be what does the work. Those that every
    result's environment names already are left out.

    Args:
        packages: names that are imported; one of no distribution is left out.

    >>> sorted(versions_behind(["scipy", "torch", "no_such_package"]))
    ['numpy', 'scipy']
    """
    providers = _providers()
    waiting = [name for package in packages for name in providers.get(package, ())]
    found: dict[str, str] = {}
    while waiting:
        name = _plain(waiting.pop())
        if name in found or name in IN_ENVIRONMENT.values():
            continue
        try:
            one = distribution(name)
        except PackageNotFoundError:
            continue  # required of another platform, or by an extra that is not asked for
        found[name] = one.version
        waiting += [_plain(text) for text in one.requires or () if "extra ==" not in text]
    return dict(sorted(found.items()))


def _plain(requirement: str) -> str:
    """Return the normalised name at the beginning of a requirement (PEP 503)."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


@cache
def _providers() -> dict[str, list[str]]:
    return {name: list(of) for name, of in packages_distributions().items()}


@cache
def _folders() -> tuple[Path, ...]:
    """Return where packages are installed, and where Python's own modules and clipq's lie."""
    paths = sysconfig.get_paths()
    listed = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    listed += [*site.getsitepackages(), site.getusersitepackages(), str(Path(__file__).parents[1])]
    listed += [
        entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")
    ]
    return tuple({Path(folder).resolve() for folder in listed})
