"""A small project with everything a gate needs, laid out in an empty folder.

An installed clipq holds its models, images and baselines as package data, in a folder ``demo``; a
checkout has the same files in ``fixtures`` and ``baselines``. They are only ever read there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import clipq
from clipq.cli.onboarding.demo_files import MARGINS, MARK, MODELS, PROBES, SETTINGS
from clipq.errors import ClipqError, SettingsError
from clipq.files import replace_atomically, write_atomically
from clipq.settings import Settings, load_settings

__all__ = ["Origin", "lay_out", "origin", "untouched"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the files of the demonstration are read.

    Args:
        world: holds ``models`` and ``data``.
        baselines: holds FP32's stored values.
    """

    world: Path
    baselines: Path


def origin() -> Origin:
    """Return where this installation has the files of the demonstration.

    Raises:
        ClipqError: it has none.

    >>> (origin().world / "models" / "vit-clean").is_dir()
    True
    """
    package = Path(clipq.__file__).resolve().parent
    installed, checkout = package / "demo", package.parent
    for found in (
        Origin(installed, installed / "baselines"),
        Origin(checkout / "fixtures", checkout / "baselines"),
    ):
        if (found.world / "models" / MODELS[0]).is_dir():
            return found
    raise ClipqError(
        f"this installation lacks the models and images of the demonstration: {installed}",
        hint="pip install --force-reinstall --no-deps pytest-clipq",
    )


def lay_out(folder: Path, told: Callable[[str], None] = lambda line: None) -> Settings:
    """Write the project into a new or empty folder, or what an interrupted attempt left out.

    What is there already stays as it is. Each file is whole or absent.

    Args:
        folder: is made where it does not exist.
        told: takes a line for every part that is written.

    Returns:
        The settings of the project.

    Raises:
        SettingsError: the folder holds something else, or is none.
        ClipqError: this installation lacks the files, or the folder cannot be written to.
    """
    source = origin()
    _refuse_others(folder)
    for name, text in (("clipq.toml", SETTINGS), ("baselines/margins.toml", MARGINS)):
        if not (folder / name).exists():
            write_atomically(folder / name, text.encode())
            told(name)
    parts = [f"models/{name}" for name in MODELS] + [f"data/{name}" for name in PROBES]
    for part in parts:
        if _copied(source.world / part, folder / part):
            told(part)
    settings = load_settings(folder / "clipq.toml")
    for model in MODELS:
        if _baseline(source.baselines, settings, model):
            told(f"baselines/{model}.json")
    return settings


def untouched(settings: Settings) -> bool:
    """Return whether a project still judges by what the demonstration wrote."""
    written = ((settings.path, SETTINGS), (settings.margins, MARGINS))
    return all(path.is_file() and path.read_bytes() == text.encode() for path, text in written)


def _refuse_others(folder: Path) -> None:
    hint = "name a new or empty folder: clipq demo FOLDER"
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise SettingsError(f"{folder} is no folder", hint=hint)
    first = folder / "clipq.toml"
    if first.is_file():
        with first.open("rb") as stream:
            if stream.readline().rstrip() == MARK.encode():
                return
    held = sorted(path.name for path in folder.iterdir())
    if held:
        shown = ", ".join(held[:3]) + (", ..." if len(held) > 3 else "")
        raise SettingsError(
            f"{folder} is not empty and holds no project of `clipq demo`: {shown}", hint=hint
        )


def _copied(source: Path, target: Path) -> bool:
    """Copy the files of a folder that are not there yet; return whether there were any."""
    absent = False
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        to = target / path.relative_to(source)
        if not to.exists():
            absent = True
            replace_atomically(to, partial(_copy, path))
    return absent


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _baseline(stored: Path, settings: Settings, model: str) -> bool:
    """Store FP32's values of what the project asks for, where it has none; return whether.

    The stored ones are of more probes and metrics; what the project does not measure would be
    reported as vanished.
    """
    from clipq.evaluation.plan import plan
    from clipq.gating.baseline import columns_path, json_path, load_baseline, save_baseline

    paths = json_path(settings.baselines, model), columns_path(settings.baselines, model)
    sources = {one.name: str(one.source) for one in settings.models}
    if model not in sources or all(path.exists() for path in paths):
        return False
    whole = load_baseline(stored, model)
    if whole is None:
        raise ClipqError(
            f"this installation lacks the baseline {model} of the demonstration: {stored}",
            hint="pip install --force-reinstall --no-deps pytest-clipq",
        )
    asked = {case.key for case in plan(settings) if case.model == model}
    probes = {probe.name for probe in settings.probes}
    narrow = replace(
        whole,
        source=sources[model],
        values={key: value for key, value in whole.values.items() if key in asked},
        probes={name: value for name, value in whole.probes.items() if name in probes},
        predictions={name: found for name, found in whole.predictions.items() if name in probes},
        pooled={},
    )
    save_baseline(settings.baselines, narrow)
    return True
