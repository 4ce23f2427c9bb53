"""Commands that look inside a model: an exported artifact shows only what comes out of it."""

from __future__ import annotations

from clipq.cases import Candidate
from clipq.errors import ArtifactError
from clipq.settings import Settings

__all__ = ["refuse_artifact"]


def refuse_artifact(candidate: Candidate, settings: Settings, *, needs: str, instead: str) -> None:
    """Refuse an artifact where only a quantizer will do, and say what to use in its place.

    Args:
        candidate: of which something is asked.
        settings: which artifacts there are.
        needs: what is asked for that an artifact has not.
        instead: the command that asks it of the artifact's simulation, with ``{}`` in its place.

    Raises:
        ArtifactError: the candidate is an artifact.

    >>> from pathlib import Path
    >>> from clipq.artifact_settings import ArtifactSettings
    >>> ort = ArtifactSettings("ort", "vit", "onnxruntime", image="i.onnx", text="t.onnx",
    ...                        simulation="rtn:w8a8d")
    >>> settings = Settings(Path("clipq.toml"), (), (), (), artifacts=(ort,))
    >>> refuse_artifact(Candidate("vit", "ort"), settings, needs="layers",
    ...                 instead="clipq blame '{}/id.ece'")
    Traceback (most recent call last):
    clipq.errors.ArtifactError: vit/ort is an artifact, files that onnxruntime runs: it has no ...
      fix: clipq blame 'vit/rtn:w8a8d/id.ece' looks into the quantizer that simulates it
    """
    from clipq.evaluation.plan import simulation_of

    artifact = settings.artifact(candidate)
    if artifact is None:
        return
    simulation = simulation_of(candidate, settings) or simulation_of(candidate.base, settings)
    if not simulation and artifact.is_float:
        hint = "it is the float graphs of an artifact: nothing in it is quantized"
    elif not simulation:
        hint = (
            "say format = or simulation = in its [[artifacts]] table: the quantizer that simulates "
            "it can be looked into"
        )
    else:
        command = instead.format(f"{candidate.model}/{simulation}")
        hint = f"{command} looks into the quantizer that simulates it"
    raise ArtifactError(
        f"{candidate} is an artifact, files that {artifact.runtime} runs: it has no {needs}",
        hint=hint,
    )
