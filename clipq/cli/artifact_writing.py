"""What `clipq artifact export` and `quantize` share: where they write, and the table."""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.artifact_settings import LARGEST_BATCH
from clipq.cli.context import settings_of
from clipq.errors import ArtifactError, SettingsError
from clipq.settings import Settings
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.exports import Manifest

__all__ = ["add_writing_options", "table_text", "write_artifact"]

_NAME = re.compile(r"\A[a-z][a-z0-9_-]*\Z")


def add_writing_options(action: argparse.ArgumentParser) -> None:
    """Give a command the options of where and how an artifact is written."""
    action.add_argument("model", metavar="MODEL", help="name of a model in clipq.toml")
    action.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="is made; a new one or empty"
    )
    action.add_argument(
        "--batch",
        type=int,
        default=0,
        metavar="N",
        help="the only batch that the graphs take; default: any",
    )
    action.add_argument(
        "--name", metavar="NAME", help="of the artifact, in case ids; default: the recipe's"
    )
    action.add_argument(
        "--force", action="store_true", help="replace the artifact that FOLDER holds"
    )
    action.add_argument("--quiet", action="store_true", help="do not say what is being done")


def write_artifact(options: argparse.Namespace, recipe: str) -> int:
    """Make an artifact as the options say, and print its table for clipq.toml; return 0.

    Raises:
        ClipqError: the folder, the model or the recipe cannot be used.
    """
    from clipq.evaluation.plan import load_plugins
    from clipq.exports import recipes
    from clipq.exports.making import refuse_missing

    settings = settings_of(options)
    load_plugins(settings)  # which may bring the recipe
    settings.model(options.model)  # refused before anything is imported or read
    chosen = recipes.get(recipe)
    refuse_missing(recipe, chosen)
    name = options.name or recipe
    if not _NAME.match(name):
        raise SettingsError(
            f"--name {name}", hint="lower-case letters, digits, '-' and '_', a letter first"
        )
    if not 0 <= options.batch <= LARGEST_BATCH:
        hint = f"0 for any, or a number up to {LARGEST_BATCH}"
        raise SettingsError(f"--batch {options.batch}", hint=hint)
    _check_folder(options.output, force=options.force)
    if chosen.broken and not options.quiet:
        say(f"clipq: {recipe} is broken on purpose: {chosen.broken}", error=True)
    if not options.quiet:
        say(f"clipq: making {recipe} of {options.model}, in {options.output} ...", error=True)
    started = time.monotonic()
    manifest = _made(settings, options, recipe)
    if not options.quiet:
        took = time.monotonic() - started
        sizes = {each: (options.output / each).stat().st_size for each in manifest.files}
        say(f"clipq: {_sizes(sizes)}; {took:.0f} s", error=True)
        say("clipq: paste this into clipq.toml, then run `clipq artifact check`:", error=True)
    emit(table_text(manifest, options.output, settings, model=options.model, name=name))
    return 0


def table_text(
    manifest: Manifest, folder: Path, settings: Settings, *, model: str, name: str
) -> str:
    """Return an `[[artifacts]]` table, its paths relative to the settings file."""
    relative = Path(os.path.relpath(folder.resolve(), settings.root.resolve()))
    table: dict[str, Any] = {"name": name, "model": model, **manifest.settings(relative)}
    return "\n".join(
        ["[[artifacts]]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    )


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(part)}' for key, part in value.items())} }}"
    return json.dumps(value)  # of texts and whole numbers, JSON is TOML


def _sizes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items())


def _check_folder(folder: Path, *, force: bool) -> None:
    """Refuse a folder whose files would be lost, before anything takes its time."""
    from clipq.exports import MANIFEST

    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is a file", hint="name a folder with --output")
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(
            f"{folder} holds files that clipq did not write",
            hint="name another with --output, or empty it first",
        )
    if not force:
        raise ArtifactError(
            f"{folder} holds an artifact already", hint="--force replaces it, or name another"
        )


def _made(settings: Settings, options: argparse.Namespace, recipe: str) -> Manifest:
    """Make the artifact; one that is replaced stays until the new one is whole."""
    from clipq.evaluation.artifact_maker import make_here
    from clipq.exports import MANIFEST, Manifest

    folder: Path = options.output
    if not (folder / MANIFEST).is_file():
        return make_here(settings, options.model, recipe, folder, batch=options.batch)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
        new = Path(place) / "new"
        manifest = make_here(settings, options.model, recipe, new, batch=options.batch)
        for name in Manifest.names(folder):
            (folder / name).unlink(missing_ok=True)
        for name in (*manifest.files, MANIFEST):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).replace(folder / name)
    return manifest
