"""Trained states of candidates: found in the folder of the settings, else made at first use.

What identifies the results of a trained candidate is its state, wherever it lies and however often
it was trained anew: the same bytes meet the same results, another state never does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from clipq.cases import Candidate
from clipq.errors import ClipqError, QuantizerError
from clipq.evaluation.cache import damaged
from clipq.evaluation.identity import model_identity, prompts_identity
from clipq.evaluation.trained_folder import TrainedFolder
from clipq.evaluation.trained_manifest import TRAINED
from clipq.evaluation.trained_search import (
    cache_folder,
    fitting_folder,
    learns,
    refuse_untrained,
)
from clipq.evaluation.training_beat import TrainingBeat, waiting_for
from clipq.evaluation.training_code import training_code
from clipq.evaluation.training_unit import UNIT, TrainingUnit
from clipq.quant import QuantizerSpec

if TYPE_CHECKING:
    from torch import Tensor

    from clipq.evaluation.encoders import Encoders
    from clipq.training.training_outcome import TrainingProgress

__all__ = ["TrainedStates"]


class TrainedStates:
    """Finds or makes the trained states of candidates, each once per process.

    Args:
        encoders: models, calibration data and the process that trainings must leave as it was.
    """

    def __init__(self, encoders: Encoders) -> None:
        self._encoders = encoders
        self._known: dict[Candidate, TrainedFolder] = {}

    def sha256(self, candidate: Candidate) -> str:
        """Return what identifies a candidate's state; "" of one that has none.

        Raises:
            QuantizerError: it is damaged, of another model, or cannot be trained.
        """
        found = self.folder(candidate)
        return "" if found is None else found.manifest.state_sha256

    def state(self, candidate: Candidate) -> dict[str, Tensor] | None:
        """Return the tensors that a candidate's method has learnt; None where it learns nothing.

        Raises:
            QuantizerError: as `sha256`.
        """
        found = self.folder(candidate)
        return None if found is None else found.state()

    def evidence(self, candidate: Candidate) -> dict[str, Any]:
        """Return what a record says of a candidate's training; {} of one that learns nothing."""
        found = self.folder(candidate)
        if found is None:
            return {}
        return {"trained": found.manifest.evidence() | {"from": self._origin(found)}}

    def folder(self, candidate: Candidate) -> TrainedFolder | None:
        """Return the folder of a candidate's state, trained where there is none yet.

        Raises:
            QuantizerError: as `sha256`.
            ProbeError, SettingsError: there are no pairs to train on.
        """
        if not self._learns(candidate):
            return None
        candidate = candidate.base
        if candidate not in self._known:
            self._encoders.check(candidate)
            try:
                self._known[candidate] = self._declared(candidate) or self._made(candidate)
            except ClipqError as error:
                self._encoders.refuse(candidate, error)  # what takes minutes to fail fails once
                raise
        return self._known[candidate]

    def unit(self, candidate: Candidate) -> TrainingUnit:
        """Return the training that makes a candidate's state.

        Raises:
            QuantizerError: nothing of it is trained, or its options make no sense.
            UnknownNameError: there is no such objective.
            ProbeError, SettingsError: there are no pairs to train on.
        """
        from clipq.evaluation.training_run import objective_of, recipe_of

        spec = QuantizerSpec.parse(refuse_untrained(candidate.quantizer))
        recipe, code = recipe_of(spec), training_code(str(spec), objective_of(spec))
        encoders, inputs = self._encoders, self._encoders.inputs
        return TrainingUnit(
            candidate.model,
            str(spec),
            recipe,
            model_identity(encoders.model(candidate.model)),
            {
                "proxy": inputs.proxy_fingerprint,
                "calibration": inputs.quantizers_fingerprint,
                "prompts": prompts_identity(inputs.calibration_prompts),
            },
            code,
            encoders.environment,
        )

    def train(
        self,
        candidate: Candidate,
        folder: Path,
        *,
        watch: Callable[[TrainingProgress], None] | None = None,
        sharded: bool = False,
    ) -> TrainedFolder:
        """Train a candidate into a folder, or go on with what is there.

        Args:
            candidate: which.
            folder: is made.
            watch: called after each step.
            sharded: of several processes, whether each holds a share of the parameters.

        Raises:
            QuantizerError: the folder holds another training, or losses or steps explode.
        """
        from clipq.evaluation.calibration_data import calibration_data
        from clipq.evaluation.training_run import TrainingData, refuse_other, train_unit

        encoders, unit = self._encoders, self.unit(candidate)
        refuse_other(unit, folder)
        if (folder / TRAINED).is_file():
            return TrainedFolder.read(folder)
        loaded, inputs = encoders.model(candidate.model), encoders.inputs
        data = TrainingData(
            inputs.proxy.name,
            inputs.pairs(loaded.preprocess),
            inputs.proxy.sample_hashes,
            calibration_data(
                inputs, loaded, batch_size=encoders.settings.batch_size, device=encoders.device
            ),
        )
        encoders.give_up()
        name = f"{unit.model}/{unit.quantizer}"
        with encoders.contained(candidate, "being trained"), TrainingBeat(folder, name) as beat:

            def tell(at: TrainingProgress) -> None:
                encoders.progress(f"training {name}", at.step, at.steps)
                beat(at.step, at.steps, at.loss["total"])
                if watch is not None:
                    watch(at)

            return train_unit(
                unit,
                loaded,
                data,
                folder,
                device=encoders.device,
                progress=tell,
                sharded=sharded,
            )

    # -- steps ---------------------------------------------------------------------------------

    def _learns(self, candidate: Candidate) -> bool:
        if candidate.base.is_reference or self._encoders.is_artifact(candidate):
            return False
        return learns(candidate.base.quantizer)

    def _declared(self, candidate: Candidate) -> TrainedFolder | None:
        parent = model_identity(self._encoders.model(candidate.model))
        text, settings = candidate.quantizer, self._encoders.settings
        path = fitting_folder(settings.trained, candidate.model, text, parent)
        if path is None:
            return None
        found = TrainedFolder.read(path)
        found.require(text, parent, candidate.model)
        return found

    def _made(self, candidate: Candidate) -> TrainedFolder:
        unit, encoders = self.unit(candidate), self._encoders
        folder = cache_folder(encoders.settings.cache, unit)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with waiting_for(FileLock(f"{folder}.lock"), folder, encoders.progress):
            try:
                if (folder / TRAINED).is_file():
                    return TrainedFolder.read(folder)
                if (folder / UNIT).is_file():
                    TrainingUnit.read(folder)  # what was interrupted goes on, if it is whole
            except QuantizerError as error:
                damaged(folder, error)
                shutil.rmtree(folder, ignore_errors=True)
            return self.train(candidate, folder)

    def _origin(self, found: TrainedFolder) -> str:
        settings = self._encoders.settings
        if found.path.is_relative_to(settings.cache):
            return f"trained here, {found.manifest.seconds:.0f} s"
        inside = found.path.is_relative_to(settings.root)
        return f"folder {found.path.relative_to(settings.root) if inside else found.path}"
