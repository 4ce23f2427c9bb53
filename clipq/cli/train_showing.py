"""`clipq train show`: what a trained quantizer is, and how its loss went."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from clipq.cli.progress import duration
from clipq.errors import QuantizerError
from clipq.history.sparkline import sparkline
from clipq.terminal import emit, one_line, say

if TYPE_CHECKING:
    from clipq.evaluation.trained_folder import TrainedFolder
    from clipq.evaluation.training_unit import TrainingUnit

__all__ = ["show_trained"]

_MOST_ROWS = 25


def show_trained(options: argparse.Namespace, folder: Path) -> int:
    """Print what a folder holds; return 0.

    Raises:
        QuantizerError: it holds no training, or a damaged one.
    """
    from clipq.evaluation.trained_folder import TrainedFolder
    from clipq.evaluation.trained_manifest import TRAINED
    from clipq.evaluation.training_unit import UNIT, TrainingUnit

    if (folder / TRAINED).is_file():
        found = TrainedFolder.read(folder)
        plain: dict[str, Any] = {"state": "finished", **asdict(found.manifest)}
        text = "\n".join(_of_folder(found))
    elif (folder / UNIT).is_file():
        unit = TrainingUnit.read(folder)
        plain = {"state": "not finished", "unit": asdict(unit)}
        rows = [*_of_unit(unit), ("state", f"not finished: clipq train resume {folder}")]
        text = tabulate(rows, tablefmt="plain")
    else:
        raise QuantizerError(
            f"{folder} holds no training", hint="name a folder that `clipq train` wrote"
        )
    if options.json:
        emit(json.dumps(plain, indent=1, allow_nan=False))
    else:
        say(text)
    return 0


def _of_unit(unit: TrainingUnit) -> Iterator[tuple[str, str]]:
    yield "quantizer", unit.quantizer
    yield "of model", f"{unit.model}, weights {unit.parent.get('weights_sha256', '')[:16]}"
    yield "recipe", ", ".join(f"{name}={value}" for name, value in unit.recipe.items())
    yield "data", ", ".join(f"{name} {value[:16]}" for name, value in unit.data.items())
    yield "code", ", ".join(f"{name} {str(value)[:16]}" for name, value in unit.code.items())
    yield "machine", ", ".join(f"{name} {value}" for name, value in unit.machine.items())


def _of_folder(found: TrainedFolder) -> Iterator[str]:
    manifest = found.manifest
    state = f"{manifest.state_sha256[:16]}, {found.bytes:,} bytes"
    rows = [
        *_of_unit(manifest.unit),
        ("pairs", f"{manifest.pairs:,} of {manifest.proxy}, and {manifest.held_out:,} held out"),
        ("steps", f"{manifest.steps:,} in {duration(manifest.seconds)}"),
        ("kept", manifest.why),
        ("state", state),
        ("versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
    ]
    yield tabulate([(name, one_line(text)) for name, text in rows], tablefmt="plain")
    if not manifest.losses:
        return
    curve = [look.held_out.get("total") for look in manifest.losses]
    yield f"\nheld-out loss {sparkline(curve)}"
    every = max(1, -(-len(manifest.losses) // _MOST_ROWS))
    parts = sorted({name for look in manifest.losses for name in look.held_out} - {"total"})
    shown = [
        (
            look.step,
            *(_number(look.train.get(name)) for name in ("total",)),
            *(_number(look.held_out.get(name)) for name in ("total", *parts)),
            "kept" if look.step == manifest.best_step else "",
        )
        for place, look in enumerate(manifest.losses)
        if place % every == 0 or look.step in (manifest.best_step, manifest.steps)
    ]
    headers = ("step", "training", "held out", *parts, "")
    yield tabulate(shown, headers, disable_numparse=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
