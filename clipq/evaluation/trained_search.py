"""Which candidates are trained, and where their states lie: told without loading torch, as far as
that can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clipq.cases import Candidate
from clipq.errors import QuantizerError
from clipq.evaluation.identity import files_identity
from clipq.evaluation.trained_folder import TrainedFolder, folders_below
from clipq.evaluation.trained_manifest import TrainedManifest
from clipq.evaluation.training_unit import TrainingUnit, differing_parent
from clipq.quant import QuantizerSpec, is_trained
from clipq.quant.methods import trained_methods
from clipq.settings import Settings
from clipq.training_settings import TrainingSettings

__all__ = [
    "cache_folder",
    "declared_folder",
    "declared_path",
    "fitting_folder",
    "learns",
    "refuse_untrained",
]

_KEPT = 16  # digits of a training's digest, in the name of its folder


def learns(quantizer: str) -> bool:
    """Whether a quantizer has a trained state: its method trains, for one step at least.

    >>> learns("rtn:w4a8")
    False
    """
    spec = QuantizerSpec.parse(quantizer)
    return is_trained(spec) and TrainingSettings.read(dict(spec.options)).steps > 0


def refuse_untrained(quantizer: str) -> str:
    """Return the text of what is trained of a candidate: its towers, and no tuned logit scale.

    Raises:
        QuantizerError: nothing of it is.

    >>> refuse_untrained("rtn:w8")
    Traceback (most recent call last):
    clipq.errors.QuantizerError: 'rtn:w8' is not trained: ...
    ...
    """
    spec = QuantizerSpec.parse(quantizer).base
    if spec.is_reference or not is_trained(spec):
        what = "FP32 is what trainings start from" if spec.is_reference else "its method computes"
        raise QuantizerError(
            f"{quantizer!r} is not trained: {what}"
            + ("" if spec.is_reference else " what it does from calibration data"),
            hint=f"methods that learn: {', '.join(trained_methods())}, for example lsq:w4a8",
        )
    if not learns(str(spec)):
        raise QuantizerError(
            f"{quantizer!r}: with steps=0 nothing is trained",
            hint="leave steps out, or gate it as it is: it needs no training",
        )
    return str(spec)


def cache_folder(cache: Path, unit: TrainingUnit) -> Path:
    """Return where a training at first use keeps what it makes."""
    return cache / "trained" / f"{unit.name}-{unit.digest[:_KEPT]}"


def fitting_folder(
    root: Path, model: str, quantizer: str, parent: Mapping[str, str]
) -> Path | None:
    """Return the folder, in or below one, of a quantizer's trained state; None if there is none.

    A damaged manifest does not say whose it is: it is an error of those alone that have no other.

    Args:
        root: where to look; need not exist.
        model: what the model is called.
        quantizer: canonical text.
        parent: what identifies the model, as far as known.

    Raises:
        QuantizerError: two states fit; or none does, and a manifest is damaged, or the one for this
            model's name was trained from another model.
    """
    fitting: dict[str, Path] = {}
    stale: list[str] = []
    damaged: list[QuantizerError] = []
    for path in folders_below(root):
        try:
            manifest = TrainedManifest.read(path)
        except QuantizerError as error:
            damaged.append(error)
            continue
        if manifest.quantizer != quantizer:
            continue
        wrong = list(differing_parent(manifest.unit.parent, parent))
        if not wrong:
            fitting.setdefault(manifest.state_sha256, path)
        elif manifest.unit.model == model:
            stale.append(f"{path} was trained from another {model!r}: {'; '.join(wrong)}")
    if len(fitting) > 1:
        places = " and ".join(map(str, fitting.values()))
        raise QuantizerError(
            f"{model}/{quantizer} has two trained states: {places}",
            hint="remove the one that is not meant, or name folders apart with `trained`",
        )
    if fitting:
        return next(iter(fitting.values()))
    if damaged:
        raise QuantizerError(
            damaged[0].problem,
            hint=f"{damaged[0].hint}; nobody can tell whether it is the state of "
            f"{model}/{quantizer}, which has no other",
        )
    if stale:
        raise QuantizerError(
            stale[0],
            hint=f"clipq train {model} '{quantizer}' --output FOLDER trains it from the model "
            "here; or remove the folder, and it is trained at first use",
        )
    return None


def declared_folder(candidate: Candidate, settings: Settings) -> TrainedFolder | None:
    """Return a candidate's state in the folder that the settings name, without loading its model.

    Raises:
        QuantizerError: as `fitting_folder`; or the state is damaged.
        ModelError: the model's files cannot be read.
    """
    path = declared_path(candidate, settings)
    return None if path is None else TrainedFolder.read(path)


def declared_path(candidate: Candidate, settings: Settings) -> Path | None:
    """Return where a candidate's state lies, in the folder that the settings name.

    Raises:
        QuantizerError: as `fitting_folder`.
        ModelError: the model's files cannot be read.
    """
    declared = settings.model(candidate.model)
    parent = files_identity(declared, root=settings.root)
    text = candidate.base.quantizer
    return fitting_folder(settings.trained, candidate.model, text, parent)
