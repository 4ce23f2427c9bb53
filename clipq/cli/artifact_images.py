"""`clipq artifact images`: what a model is shown, as files, to be encoded where clipq is not."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipq.artifact_settings import LAYOUTS, PIXELS
from clipq.cli.context import settings_of
from clipq.cli.progress import watching
from clipq.errors import SettingsError
from clipq.settings import Settings
from clipq.terminal import say

__all__ = ["declare", "run"]

_DESCRIPTION = """\
Write the exact inputs of a model: the preprocessed images of each probe with their sample ids, the
tokens of class prompts and captions, and manifest.json, which says shapes, layout, mean, deviation,
hashes and how features come back. For a phone, an engine or a runtime that clipq does not know:
features that it makes of these files are gated with runtime = 'features'.

Adversarial images are none of them: they are made against each candidate. Files are written a
quarter of a gibibyte at a time; a command that was interrupted goes on where it was.
"""
_EPILOG = """\
  clipq artifact images vit-clean --output inputs/
  clipq artifact images --probe id --probe calibration --pixels bytes --layout NHWC --output in/
  clipq artifact images --format png --output pictures/
"""


def declare(actions: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq artifact images` to the command line."""
    images = actions.add_parser(
        "images",
        help="write preprocessed images and tokens, to be encoded on another device",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    images.add_argument(
        "model", nargs="?", metavar="MODEL", help="whose inputs; default: the only model"
    )
    images.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to")
    images.add_argument(
        "--probe", action="append", metavar="PROBE", help="only this one (repeatable)"
    )
    images.add_argument(
        "--format", choices=("npz", "safetensors", "png"), default="npz", help="default: npz"
    )
    images.add_argument(
        "--pixels",
        choices=PIXELS,
        help="normalised by mean and deviation, unit (0 to 1) or bytes (0 to 255, uint8); default: "
        "normalised, of png bytes",
    )
    images.add_argument("--layout", choices=LAYOUTS, help="default: NCHW, of png NHWC")
    images.add_argument(
        "--force", action="store_true", help="write into a folder that holds something else"
    )
    images.add_argument("--quiet", action="store_true", help="no progress")
    images.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Write the files.

    Raises:
        ClipqError: an unknown name, a folder that holds something else, or data that are damaged.
    """
    settings = settings_of(options)
    model = _model(settings, options.model)
    from clipq.evaluation.cache import Cache
    from clipq.evaluation.image_export import MANIFEST, Form, ImageExport, exportable
    from clipq.evaluation.inputs import Inputs
    from clipq.evaluation.plan import load_plugins
    from clipq.models import load_declared

    picture = options.format == "png"
    pixels = options.pixels or ("bytes" if picture else "normalised")
    layout = options.layout or ("NHWC" if picture else "NCHW")
    form = Form(options.format, pixels, layout)
    load_plugins(settings)
    with watching(options, unit="image") as watch:
        inputs = Inputs(settings, Cache(settings.cache), progress=watch)
        probes, left = exportable(inputs, options.probe or ())
        loaded = load_declared(settings.model(model), root=settings.root)
        export = ImageExport(inputs, loaded, model, options.output, form=form, progress=watch)
        said = export.write(probes, force=options.force)
    for name in probes:
        held = said["probes"][name]
        say(f"{name}: {held['samples']:,} images in {_files(len(held['shards']))}")
    for name, why in left.items():
        say(f"{name}: not written: {why}")
    say(f"{said['text']['shape'][0]:,} texts in text/")
    say(f"written: {options.output / MANIFEST}, which says how features come back")
    return 0


def _model(settings: Settings, named: str | None) -> str:
    if named:
        return settings.model(named).name
    names = [model.name for model in settings.models]
    if len(names) == 1:
        return names[0]
    raise SettingsError(
        f"{settings.path} declares {len(names)} models, and each is shown its own images",
        hint=f"name one of them: {', '.join(names)}",
    )


def _files(count: int) -> str:
    return f"{count:,} file" + ("" if count == 1 else "s")
