"""Makes artifacts by recipes: here, or as `python -m clipq.evaluation.artifact_maker` elsewhere.

Tools that quantize and export patch the libraries of the process they run in, so that a gate, which
measures in its own, has them run in another.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.errors import ArtifactError, ClipqError
from clipq.evaluation.cache import Cache
from clipq.evaluation.identity import model_identity, prompts_identity
from clipq.evaluation.inputs import Inputs
from clipq.evaluation.plan import load_plugins
from clipq.exports import Manifest, make, recipes
from clipq.provenance import digest, package_versions
from clipq.settings import Settings, load_settings
from clipq.terminal import say

if TYPE_CHECKING:
    from clipq.models import LoadedModel

__all__ = ["make_apart", "make_here", "recipe_key"]

_MARK = "clipq-problem: "


def recipe_key(recipe: str, inputs: Inputs, loaded: LoadedModel, *, batch: int) -> str:
    """Return what identifies what a recipe makes of a model with some calibration data.

    Raises:
        UnknownNameError: no such recipe.
    """
    chosen = recipes.get(recipe)
    return digest(
        {
            "recipe": [recipe, chosen.version],
            "packages": dict(package_versions(("torch", "open_clip_torch", *chosen.packages))),
            "batch": batch,
            "model": model_identity(loaded),
            "calibration": inputs.quantizers_fingerprint,
            "prompts": prompts_identity(inputs.calibration_prompts),
        }
    )


def make_here(settings: Settings, model: str, recipe: str, folder: Path, *, batch: int) -> Manifest:
    """Make an artifact of one of the settings' models, with their calibration data.

    Args:
        settings: models and the calibration split.
        model: name of one.
        recipe: registered name.
        folder: is made; may exist where it is empty.
        batch: the only one that graphs are to take; 0 for any.

    Raises:
        ClipqError: the model or the split cannot be used, or the recipe fails.
    """
    import torch

    from clipq.evaluation.calibration_data import calibration_data
    from clipq.evaluation.encode import pin_threads
    from clipq.models import load_declared

    pin_threads(settings.threads)
    loaded = load_declared(settings.model(model), root=settings.root)
    inputs = Inputs(settings, Cache(settings.cache))
    data = calibration_data(inputs, loaded, batch_size=settings.batch_size)
    images, tokens = torch.cat(list(data.images())), torch.cat(list(data.texts()))
    return make(recipe, loaded.model, images, tokens, folder, batch=batch)


def make_apart(settings: Settings, model: str, recipe: str, folder: Path, *, batch: int) -> None:
    """Do what `make_here` does, in a process of its own.

    Raises:
        ArtifactError: it failed.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "clipq.evaluation.artifact_maker"),
            *(str(settings.path), model, recipe, str(folder), str(batch)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": str(settings.threads)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        marked = [line.removeprefix(_MARK) for line in said if line.startswith(_MARK)]
        raise ArtifactError(
            f"recipe {recipe!r} could not make an artifact of {model!r}: {(marked or said)[-1]}",
            hint=f"clipq artifact quantize {model} --recipe {recipe} --output FOLDER shows more",
        )


def _main(arguments: list[str]) -> int:
    path, model, recipe, folder, batch = arguments
    settings: Any = load_settings(Path(path))
    try:
        load_plugins(settings)  # which may bring the recipe
        make_here(settings, model, recipe, Path(folder), batch=int(batch))
    except ClipqError as error:
        say(f"{_MARK}{error.problem}", error=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
