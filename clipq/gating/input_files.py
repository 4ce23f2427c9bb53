"""The files by which a run is planned and judged, with their hashes."""

from __future__ import annotations

from pathlib import Path

from clipq.provenance import sha256_file
from clipq.settings import Settings, load_settings

__all__ = ["input_files"]


def input_files(settings: Settings) -> dict[str, dict[str, str]]:
    """Return settings, margins and waivers, each with its ``file`` and ``sha256``.

    The hash is empty where there is no such file. Where other margins or waivers are in force than
    the settings file names, theirs is given as ``instead_of``. Paths are relative to the settings.

    Raises:
        SettingsError: the settings file is gone.

    >>> found = input_files(load_settings(Path("clipq.toml")))
    >>> found["margins"]["file"], len(found["margins"]["sha256"]), sorted(found)
    ('baselines/margins.toml', 64, ['margins', 'settings', 'waivers'])
    """
    declared = load_settings(settings.path)
    found = {"settings": _entry(settings, settings.path)}
    for kind in ("margins", "waivers"):
        path, usual = getattr(settings, kind), getattr(declared, kind)
        found[kind] = _entry(settings, path)
        if path.resolve() != usual.resolve():
            found[kind]["instead_of"] = _shown(settings, usual)
    return found


def _entry(settings: Settings, path: Path) -> dict[str, str]:
    return {
        "file": _shown(settings, path),
        "sha256": sha256_file(path) if path.is_file() else "",
    }


def _shown(settings: Settings, path: Path) -> str:
    path, root = path.resolve(), settings.root.resolve()
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
