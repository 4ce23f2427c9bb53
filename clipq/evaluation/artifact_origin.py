"""What identifies an artifact's results before it is made or opened: alike on every machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from clipq.cases import Candidate
from clipq.errors import ArtifactError
from clipq.evaluation.artifacts import Artifacts
from clipq.evaluation.inputs import Inputs
from clipq.exports import recipes
from clipq.provenance import package_versions
from clipq.runtimes import runtimes
from clipq.settings import Settings

if TYPE_CHECKING:
    from clipq.models import LoadedModel

__all__ = ["artifact_origin"]

_FILES = ("image", "text", "head")


def artifact_origin(candidate: Candidate, settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Return what decides an artifact's results beside its model, its calibration data and probes.

    Files count by content, wherever they lie. What a recipe makes counts by what it is made of:
    the recipe, its runtime and their packages.

    Args:
        candidate: the artifact.
        settings: that declare it.
        inputs: of the same settings.

    Raises:
        ArtifactError: there is no such artifact, or a file of it is missing.

    >>> from pathlib import Path
    >>> from clipq.evaluation.cache import Cache
    >>> from clipq.settings import load_settings
    >>> settings = load_settings(Path("clipq.toml"))
    >>> inputs = Inputs(settings, Cache(settings.cache))
    >>> found = artifact_origin(Candidate("vit-clean", "ort-dynamic"), settings, inputs)
    >>> found["recipe"], found["batch"]
    ('onnxruntime-dynamic', '64')
    """
    declared = settings.artifact(candidate)
    if declared is None:
        raise ArtifactError(f"{candidate} is no artifact", hint="[[artifacts]] declares them")
    said = {name: str(value) for name, value in asdict(declared).items()}
    if declared.recipe:
        recipe, runtime = recipes.get(declared.recipe), runtimes.get(declared.runtime)
        packages = ("torch", "open_clip_torch", *recipe.packages, *runtime.packages)
        versions = {"recipe_version": recipe.version, "runtime_version": runtime.version}
        return said | versions | dict(package_versions(packages))
    artifacts = Artifacts(settings, inputs, _not_loaded)
    try:
        found = artifacts.identity(candidate.base)
    finally:
        artifacts.give_up()
    # What a machine's processor can do is no part of what is the same on all of them.
    kept = {name: value for name, value in found.items() if name != "cpu"}
    return {name: value for name, value in said.items() if name not in _FILES} | kept


def _not_loaded(name: str) -> LoadedModel:
    raise ArtifactError(f"files alone are looked at: model {name!r} is not loaded for them")
