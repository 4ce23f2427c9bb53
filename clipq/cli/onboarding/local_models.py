"""Models in open_clip's local-dir layout."""

from __future__ import annotations

from dataclasses import dataclass, field

from clipq.cli.onboarding.walk import Walk
from clipq.errors import ModelError
from clipq.models.source import CONFIG, local_files

__all__ = ["ModelFindings", "find_models"]


@dataclass(slots=True)
class ModelFindings:
    """Folders that hold a model, relative to the repository, and those that nearly do."""

    folders: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_models(walk: Walk) -> ModelFindings:
    """Return the model folders of a walk, sorted."""
    findings = ModelFindings()
    for folder in walk.folders.values():
        if CONFIG in folder.files:
            try:
                local_files(walk.root / folder.path)
            except ModelError as error:
                findings.notes.append(f"{folder.path} holds {CONFIG}, but: {error.problem}")
            except OSError as error:
                findings.notes.append(f"{folder.path} cannot be read: {error.strerror or error}")
            else:
                findings.folders.append(str(folder.path))
    findings.folders.sort()
    return findings
