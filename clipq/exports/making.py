"""An artifact made of a model in memory, by a registered recipe."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.artifact_settings import LARGEST_BATCH
from clipq.errors import ArtifactError, ClipqError
from clipq.exports.manifest import MANIFEST, Manifest
from clipq.exports.recipes import Made, Recipe, recipes
from clipq.provenance import package_versions, sha256_file

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["make", "missing_packages", "refuse_missing"]

_MAKERS = ("clipq", "open_clip_torch", "timm", "torch")


def make(
    recipe: str, model: nn.Module, images: Tensor, tokens: Tensor, folder: Path, *, batch: int = 0
) -> Manifest:
    """Make an artifact of a model; `folder` has all files and their manifest, or is left alone.

    Args:
        recipe: registered name.
        model: an open_clip model, float32; it stays as it is.
        images: (N, 3, H, W) float32, normalised, to calibrate with.
        tokens: (M, L) int64, to calibrate with.
        folder: is made; may exist where it is empty.
        batch: the only one that graphs are to take; 0 for any.

    Raises:
        UnknownNameError: no such recipe.
        ArtifactError: a library is missing, the folder is not empty, or the library failed.

    >>> import torch
    >>> make("onnxruntime-flat", torch.nn.Linear(2, 2), torch.zeros(1), torch.zeros(1), Path("d"))
    Traceback (most recent call last):
    clipq.errors.UnknownNameError: unknown recipe 'onnxruntime-flat'
      fix: did you mean 'onnxruntime-float' or ...
    """
    chosen = recipes.get(recipe)
    refuse_missing(recipe, chosen)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(
            f"{folder} is not an empty folder", hint="name another, or empty it first"
        )
    if not 0 <= batch <= LARGEST_BATCH:
        hint = f"0 for any, or a number up to {LARGEST_BATCH}"
        raise ArtifactError(f"a batch of {batch}", hint=hint)
    from clipq.exports.tower_source import quiet_process, source_of, state_sha256

    with _new_folder(folder) as new, quiet_process():
        source = source_of(model, images, tokens, batch=batch)
        state = state_sha256(source.model)
        made = _write(recipe, chosen, source, new)
        manifest = Manifest(
            recipe=recipe,
            recipe_version=chosen.version,
            runtime=chosen.runtime,
            image=made.image,
            text=made.text,
            files=_hashes(new),
            state_sha256=state,
            logit_scale=_scale(model),
            logit_bias=_bias(model),
            format=chosen.format,
            precision=chosen.precision,
            batch=made.batch or batch,
            float_image=made.float_image,
            float_text=made.float_text,
            opset=made.opset,
            io=made.io,
            calibration={"images": len(images), "texts": len(tokens)} if chosen.format else {},
            packages=package_versions((*_MAKERS, *chosen.packages)),
        )
        manifest.write(new)
    return manifest


def missing_packages(recipe: Recipe) -> list[str]:
    """Return the distributions that a recipe needs and that are not installed.

    >>> missing_packages(Recipe("torch", lambda source, folder: Made("m.py:f"), packages=("no",)))
    ['no']
    """
    missing = []
    for name in recipe.packages:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    return missing


def refuse_missing(name: str, recipe: Recipe) -> None:
    """Refuse a recipe whose libraries are not installed.

    Raises:
        ArtifactError: one is missing; the message says how to get it.

    >>> refuse_missing("mine", Recipe("torch", lambda source, folder: Made("m.py:f")))
    """
    if missing := missing_packages(recipe):
        install = f"'pytest-clipq[{recipe.extra}]'" if recipe.extra else " ".join(missing)
        raise ArtifactError(
            f"recipe {name!r} needs {', '.join(missing)}, which is not installed",
            hint=f"pip install {install}",
        )


def _write(name: str, recipe: Recipe, source: Any, folder: Path) -> Made:
    try:
        made = recipe.write(source, folder)
    except ClipqError:
        raise
    except Exception as error:  # exporters and quantizers raise whatever their parts raise
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise ArtifactError(
            f"recipe {name!r} failed: {type(error).__name__}: {first}",
            hint="the chained traceback shows where; another recipe may know this architecture",
        ) from error
    named = (made.image.partition(".py:")[0] + ".py" if ".py:" in made.image else made.image,)
    wanted = (*named, made.text, made.float_image, made.float_text)
    absent = [each for each in wanted if each and not (folder / each).is_file()]
    if absent:
        raise ArtifactError(
            f"recipe {name!r} did not write {', '.join(absent)}",
            hint="correct the recipe: it names the files that it wrote",
        )
    return made


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder that becomes `folder` at the end, and is removed where there is no end."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise ArtifactError(
            f"{folder} cannot be made: {error.strerror or error}",
            hint="name a folder in a place that can be written",
        ) from error
    try:
        yield new
        new.chmod(0o755)
        try:
            new.replace(folder)
        except OSError as error:  # somebody else was faster, or the disk is not one's own
            raise ArtifactError(
                f"{folder} cannot be written: {error.strerror or error}",
                hint="name another folder, or empty it first",
            ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _hashes(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}


def _scale(model: Any) -> float:
    scale = getattr(model, "logit_scale", None)
    return 1.0 if scale is None else float(scale.detach().exp())


def _bias(model: Any) -> float:
    bias = getattr(model, "logit_bias", None)
    return 0.0 if bias is None else float(bias.detach())
