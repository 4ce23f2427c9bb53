"""Models in this process: loaded once, quantized one at a time, on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clipq.cases import Candidate, Cell
from clipq.errors import ClipqError
from clipq.evaluation.identity import encoder_identity, prompts_identity
from clipq.evaluation.inputs import Inputs
from clipq.evaluation.isolation import PROCESS, ProcessChangedError
from clipq.quant import QuantizerSpec
from clipq.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import torch

    from clipq.evaluation.artifact_module import ArtifactModule
    from clipq.evaluation.artifacts import Artifacts
    from clipq.evaluation.encoder import Encoder
    from clipq.evaluation.trained_states import TrainedStates
    from clipq.evaluation.witness import Witnesses
    from clipq.models import LoadedModel
    from clipq.quant import Calibration, Quantized

__all__ = ["Encoders"]


class Encoders:
    """Every form of every model of the settings, made when it is asked for.

    One whose logit scale is tuned is the form that it is made of.

    Args:
        settings: models, device, threads and batch size.
        inputs: where calibration images come from.
        worker: number of this worker process, to spread workers over devices.
        models: models that are in memory already, by name; they are not loaded.
        progress: called with (what, steps done, steps in all) while a quantizer is trained.
    """

    def __init__(
        self,
        settings: Settings,
        inputs: Inputs,
        *,
        worker: int = 0,
        models: Mapping[str, LoadedModel] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.settings = settings
        self.inputs = inputs
        self.worker = worker
        self.progress = progress or (lambda what, done, total: None)
        self._loaded: dict[str, LoadedModel] = dict(models or {})
        self._quantized: tuple[Candidate, Quantized] | None = None
        self._accelerated: dict[str, int] = {}
        self._failures: dict[Candidate, ClipqError] = {}

    @cached_property
    def device(self) -> str:
        """Where models are."""
        from clipq.evaluation.encode import resolve_device

        return resolve_device(self.settings.device, worker=self.worker)

    @cached_property
    def backend(self) -> str:
        """What computes quantized operations; "" where there is no choice."""
        from clipq.evaluation.acceleration import backend_of

        return backend_of(self.settings, self.device)

    @cached_property
    def environment(self) -> dict[str, str | int]:
        """What can move a number on this machine; part of every cache key."""
        from clipq.evaluation.encode import environment

        self.pin()
        threads, size = self.settings.threads, self.settings.batch_size
        machine = environment(device=self.device, threads=threads, batch_size=size)
        return machine | ({"kernels": self.backend} if self.backend else {})

    def pin(self) -> None:
        """Use these settings' number of threads, after somebody else may have used their own."""
        from clipq.evaluation.encode import pin_threads

        pin_threads(self.settings.threads)

    def model(self, name: str) -> LoadedModel:
        """Return an FP32 model, loaded once per process.

        Raises:
            ModelError: it cannot be loaded.
        """
        if name not in self._loaded:
            PROCESS.check()
            from clipq.evaluation.kept_memory import keep_freed_memory
            from clipq.models import load_declared

            self.pin()
            keep_freed_memory()
            declared, root = self.settings.model(name), self.settings.root
            self._loaded[name] = load_declared(declared, root=root, device=self.device)
        return self._loaded[name]

    def check(self, candidate: Candidate) -> None:
        """Refuse a candidate that cannot be made, or that no cell of can be trusted.

        What failed on one probe is no reason: another may need none of it.

        Raises:
            ClipqError: the same as the first time: what takes minutes to fail fails once.
        """
        PROCESS.check()
        if candidate.base in self._failures:
            raise self._failures[candidate.base]

    def refuse(self, candidate: Candidate, error: ClipqError) -> None:
        """Remember why nothing of a candidate can be trusted."""
        self._failures.setdefault(candidate.base, error)

    @contextmanager
    def contained(self, candidate: Candidate, doing: str, *, whole: bool = False) -> Iterator[None]:
        """Contain what a candidate's quantizer does to this process; FP32 does nothing to it.

        What is made within may be kept after it, and not before.

        Args:
            candidate: whose quantizer runs.
            doing: what it does, for messages.
            whole: whether one look at the end is enough for all that is contained within.

        Raises:
            ProcessChangedError: the process is no longer what it was.
        """
        self.check(candidate)
        candidate = candidate.base
        if candidate.is_reference or self.is_artifact(candidate):  # which runs in another process
            yield
            return
        witness = self._witnesses.of(candidate.model)
        self.pin()
        try:
            with PROCESS.contained(candidate.quantizer, doing, witness.differs, whole=whole):
                yield
        except ProcessChangedError as error:
            self.refuse(candidate, error)
            raise

    @cached_property
    def _witnesses(self) -> Witnesses:
        from clipq.evaluation.witness import Witnesses

        return Witnesses(self.model, self.device, pin=self.pin)

    def identity(self, candidate: Candidate) -> dict[str, Any]:
        """Return what identifies an encoder beside the weights it starts from.

        Raises:
            ArtifactError: a file of an artifact is missing.
        """
        candidate = candidate.base
        return encoder_identity(
            candidate.quantizer,
            environment=self.environment,
            calibration=self.inputs.quantizers_fingerprint,
            prompts=prompts_identity(self.inputs.calibration_prompts),
            artifact=self.artifacts.identity(candidate) if self.is_artifact(candidate) else None,
            trained=self.trained.sha256(candidate),
        )

    def is_artifact(self, candidate: Candidate) -> bool:
        """Whether a candidate is exported files, which no quantizer makes."""
        return self.settings.artifact(candidate) is not None

    def brought(self, cell: Cell) -> np.ndarray | None:
        """Return features (N, D) of a cell that were made elsewhere; None where clipq encodes."""
        return self.artifacts.rows(cell.base) if self.is_artifact(cell.candidate) else None

    @cached_property
    def artifacts(self) -> Artifacts:
        """The artifacts of the settings."""
        from clipq.evaluation.artifacts import Artifacts

        return Artifacts(self.settings, self.inputs, self.model)

    @cached_property
    def trained(self) -> TrainedStates:
        """What the candidates of these settings have learnt."""
        from clipq.evaluation.trained_states import TrainedStates

        return TrainedStates(self)

    def encoder(self, candidate: Candidate) -> Encoder:
        """Return a candidate's form of its model; FP32's own where it is the reference.

        Raises:
            QuantizerError: the quantizer failed.
        """
        candidate = candidate.base
        if self.is_artifact(candidate):
            return self.wrap(candidate, self._open(candidate))
        loaded = self.model(candidate.model)
        module = loaded.model if candidate.is_reference else self._quantize(candidate).model
        return self.wrap(candidate, module)

    def wrap(self, candidate: Candidate, module: torch.nn.Module) -> Encoder:
        """Return any form of a candidate's model as an encoder."""
        from clipq.evaluation.encoder import Encoder

        candidate = candidate.base
        loaded, size = self.model(candidate.model), self.settings.batch_size
        artifact = self.is_artifact(candidate)
        if artifact:  # is given whole batches, as it is where it is deployed
            size = max(1, size // (own := self.artifacts.module(candidate).batch)) * own
        name = f"{'artifact' if artifact else 'quantizer'} {candidate.quantizer!r}"
        return Encoder(name, module, loaded, self.device, size)

    def coverage(self, candidate: Candidate) -> dict[str, Any]:
        """Return what a quantizer covers and stores; {} for FP32."""
        candidate = candidate.base
        if candidate.is_reference:
            return {}
        if self.is_artifact(candidate):
            return self.artifacts.evidence(candidate)
        return self._quantize(candidate).to_plain() | (
            {"kernels": self._accelerated} if self.backend else {}
        )

    def _open(self, candidate: Candidate) -> ArtifactModule:
        self.check(candidate)
        try:
            return self.artifacts.module(candidate)
        except ClipqError as error:
            self.refuse(candidate, error)
            raise

    def _quantize(self, candidate: Candidate) -> Quantized:
        self.check(candidate)
        if self._quantized is None or self._quantized[0] != candidate:
            from clipq.evaluation.acceleration import accelerate
            from clipq.quant import quantize

            self.give_up()
            spec = QuantizerSpec.parse(candidate.quantizer)
            fp32 = self.model(candidate.model).model
            calibration, backend = self.given(candidate), self.backend
            try:
                with self.contained(candidate, "being made"):
                    made = quantize(fp32, spec, calibration)
                    self._accelerated = accelerate(made.model, backend)
            except ClipqError as error:
                self.refuse(candidate, error)
                raise
            self._quantized = (candidate, made)
        return self._quantized[1]

    def give_up(self) -> None:
        """Let go of the quantized model in memory: there is one at a time."""
        if self._quantized is not None:
            candidate, _ = self._quantized
            with suppress(ClipqError), self.contained(candidate, "being given up"):
                self._quantized = None
            self._quantized = None

    def given(self, candidate: Candidate) -> Calibration:
        """Return all that a candidate's method is given: data, and what was learnt."""
        from clipq.evaluation.calibration_data import calibration_data

        loaded, size = self.model(candidate.model), self.settings.batch_size
        data = calibration_data(self.inputs, loaded, batch_size=size, device=self.device)
        return replace(data, trained=self.trained.state(candidate))
