"""The files of an artifact: where they are, what belongs to them, and what they hash to now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clipq.artifact_settings import CODE, FP32_TOWER, ArtifactSettings
from clipq.errors import ArtifactError
from clipq.evaluation.tower_process import TowerProcess
from clipq.provenance import package_versions, sha256_file
from clipq.runtimes import runtimes
from clipq.runtimes.cpu_flags import cpu_flags

__all__ = ["ArtifactFiles", "artifact_files", "artifact_identity", "recorded_files"]


@dataclass(frozen=True, slots=True)
class ArtifactFiles:
    """Files of an artifact, each with what it hashes to.

    Args:
        image: of the image tower.
        text: of the text tower; None where it is FP32's, or there is a head.
        head: of class embeddings; None where there is none.
        function: what in `image` to call, of a runtime that runs code.
        sha256: of all of these and what belongs to them, by role and by path as settings write it.
        bytes: of all of them.
    """

    image: Path
    text: Path | None = None
    head: Path | None = None
    function: str = ""
    sha256: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    bytes: int = 0

    @property
    def towers(self) -> dict[str, Path]:
        """Files of the towers that it replaces."""
        return {"image": self.image} | ({"text": self.text} if self.text is not None else {})


def artifact_files(
    artifact: ArtifactSettings, process: TowerProcess, *, root: Path
) -> ArtifactFiles:
    """Find and hash an artifact's files.

    Args:
        artifact: with files, no recipe.
        process: its runtime, which knows what belongs to a file.
        root: what paths are relative to.

    Raises:
        ArtifactError: one is missing.
    """
    image, function = _path_and_function(artifact.image, root)
    text: Path | None = None
    if artifact.text not in ("", FP32_TOWER):
        text = root / artifact.text
    elif function and not artifact.text and not artifact.head:
        text = image
    head = root / artifact.head if artifact.head else None
    parts = {"image": image, "text": text, "head": head}
    found: dict[str, list[Path]] = {}
    for role, path in parts.items():
        if path is None:
            continue
        _require(artifact, path, "")
        sidecars = process.sidecars(path) if role != "head" else ()
        for sidecar in sidecars:
            _require(artifact, sidecar, f", which {path.name} refers to")
        found[role] = list(dict.fromkeys(f for each in (path, *sidecars) for f in _files_in(each)))
    distinct = {file for files in found.values() for file in files}
    return ArtifactFiles(
        image,
        text,
        head,
        function,
        {
            role: {_written(file, root): sha256_file(file) for file in files}
            for role, files in found.items()
        },
        sum(file.stat().st_size for file in distinct),
    )


def artifact_identity(
    artifact: ArtifactSettings, files: ArtifactFiles, *, batch: int
) -> dict[str, Any]:
    """Return what identifies an artifact's results beside its model and the environment.

    Neither its name nor where its files lie: a renamed artifact keeps its results, a swapped file
    does not. Files stand in the order of their paths behind the named one, so that two of them
    that trade places are others.
    """
    runtime = runtimes.get(artifact.runtime)
    code = getattr(runtime, "environment", None)  # of files that are code
    return {
        **({} if code is None else {"code": code(files.image)}),
        "runtime": artifact.runtime,
        "runtime_version": runtime.version,
        "packages": dict(package_versions(runtime.packages)),
        "files": {role: list(held.values()) for role, held in files.sha256.items()},
        "function": files.function,
        "session": asdict(artifact.session),
        "io": asdict(artifact.io),
        "batch": batch,
        "text_tower": artifact.text if artifact.text == FP32_TOWER else "",
        "cpu": list(cpu_flags()),
    }


def recorded_files(artifact: ArtifactSettings, *, root: Path) -> dict[str, str]:
    """Return what an artifact's named files hash to now, without asking its runtime.

    Raises:
        ArtifactError: one is missing.
    """
    found: dict[str, str] = {}
    for written in (artifact.image, artifact.text, artifact.head):
        if written and written != FP32_TOWER:
            path, _ = _path_and_function(written, root)
            _require(artifact, path, "")
            found |= {_written(each, root): sha256_file(each) for each in _files_in(path)}
    return found


def _path_and_function(written: str, root: Path) -> tuple[Path, str]:
    """Return the file that settings name, and of code the function to call, else ""."""
    base, _, function = written.partition(CODE)
    return root / (f"{base}.py" if function else written), function


def _files_in(path: Path) -> list[Path]:
    """Return a file itself, or the files of a folder."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _written(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _require(artifact: ArtifactSettings, path: Path, why: str) -> None:
    if not path.exists():
        beside = sorted(p.name for p in path.parent.glob("*"))[:5] if path.parent.is_dir() else []
        there = f"beside it lie {', '.join(beside)}" if beside else f"{path.parent} holds nothing"
        raise ArtifactError(
            f"artifact {artifact.name!r}: no file {path}{why}",
            hint=f"paths are relative to the settings file; {there}",
        )
