"""Whether a recorded artifact is the one that lies here now, told without running it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clipq.artifact_settings import ArtifactSettings
from clipq.errors import ArtifactError
from clipq.evaluation.artifact_files import recorded_files
from clipq.provenance import package_versions, sha256_file
from clipq.recorded_evidence import recorded_hashes
from clipq.runtimes import runtimes

__all__ = ["artifact_differences", "artifact_unknowns"]

_DIGITS = 12


def artifact_differences(
    made: Mapping[str, Any], artifact: ArtifactSettings, *, root: Path
) -> Iterator[str]:
    """Yield in what a recorded artifact is not the one that the settings declare.

    Its named files must be among those that were measured, wherever they lie; what belongs to them
    must still be where it was.

    Args:
        made: what the record says of it.
        artifact: as declared now.
        root: what paths are relative to.
    """
    for name in ("runtime", "recipe"):
        was, now = str(made.get(name, "")), str(getattr(artifact, name))
        if was != now:
            yield f"measured was {name} {was or 'none'}, the settings name {now or 'none'}"
    measured = recorded_hashes(made)
    if not measured:
        yield "it does not say which files were measured"
        return
    try:
        named = {} if artifact.recipe else recorded_files(artifact, root=root)
    except ArtifactError as error:
        yield error.problem
        return
    for path, sha in named.items():
        was = measured.get(path, "")
        if sha != was and (was or sha not in measured.values()):
            before = f"measured was {was[:_DIGITS]}" if was else "it was not measured"
            yield f"artifact changed: {path} hashes to {sha[:_DIGITS]}, {before}"
    for path, sha in measured.items():
        if path in named or sha in named.values():
            continue
        here = root / path
        if not here.is_file():
            if not artifact.recipe:  # one that a recipe makes may have left the cache
                yield f"artifact changed: {path}, which belonged to it, is not here"
        elif (now := sha256_file(here)) != sha:
            was = f"measured was {sha[:_DIGITS]}"
            yield f"artifact changed: {path} hashes to {now[:_DIGITS]}, {was}"


def artifact_unknowns(
    made: Mapping[str, Any], artifact: ArtifactSettings, *, root: Path
) -> Iterator[str]:
    """Yield a sentence for each thing in which the artifact may differ from the recorded one.

    Args:
        made: what the record says of it.
        artifact: as declared now.
        root: what paths are relative to.
    """
    if artifact.recipe:
        gone = any(not (root / path).is_file() for path in recorded_hashes(made))
        kept = "are no longer in the cache" if gone else "in the cache are those that were measured"
        yield (
            f"recipe {artifact.recipe!r} makes the files of {artifact.name!r}, which {kept}: what "
            "it would make now was not compared, its name was"
        )
    packages = runtimes.get(artifact.runtime).packages if artifact.runtime in runtimes else ()
    here = dict(package_versions(packages))
    for name, was in made.get("versions", {}).items():
        if (now := here.get(name)) != was:
            yield (
                f"{artifact.name!r} was measured with {name} {was}, installed here is "
                f"{now or 'none'}: what was measured is the former"
            )
