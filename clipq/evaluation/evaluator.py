"""The evaluator: predictions of each cell, encoded once and cached.

    Encoders   (clipq.evaluation.encoders)  every form of every model
    Inputs     (clipq.evaluation.inputs)    probes, images, prompts, captions
    identity   (clipq.evaluation.identity)  what a result depends on, as keys
    Evaluator                               joins them: features, head, predictions, figures

Everything is keyed by content, so a second metric, a second process or a second run finds what the
first one made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.cases import FP32, Candidate, Cell
from clipq.data import Probe
from clipq.errors import ClipqError
from clipq.evaluation.cache import Cache, Table
from clipq.evaluation.encoders import Encoders
from clipq.evaluation.figures import figures
from clipq.evaluation.identity import (
    features_key,
    figures_key,
    head_key,
    method_identity,
    model_identity,
    predictions_key,
    result_identity,
    texts_key,
)
from clipq.evaluation.inputs import Inputs, caption_lines
from clipq.evaluation.predict import (
    Encoded,
    Head,
    build_predictions,
    calibrated_temperature,
    check_features,
)
from clipq.evaluation.tables import as_predictions, as_table, table_digest
from clipq.metrics import Predictions
from clipq.provenance import digest
from clipq.quant import QuantizerSpec
from clipq.settings import Settings

if TYPE_CHECKING:
    from clipq.evaluation.encoder import Encoder
    from clipq.models import LoadedModel

__all__ = ["Evaluated", "Evaluator"]

Progress = Callable[[str, int, int], None]
"""Called with what is encoded, images done, images in all."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Predictions with what identifies them.

    `identity` names everything but the quantizer: two results may be compared where it is equal.
    `evidence` is what a report says of the model, quantizer, probe and environment.
    """

    predictions: Predictions
    identity: dict[str, str]
    evidence: dict[str, dict[str, Any]]


class Evaluator:
    """Evaluates cells of the matrix in this process.

    Args:
        settings: what to evaluate, on which device, with how many threads.
        worker: number of this worker process, to spread workers over devices.
        progress: called with (what, images done, images in all) during an encode.
        models: models that are in memory already, by their names in the settings.
        probes: probes that are open already, by their names in the settings.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        worker: int = 0,
        progress: Progress | None = None,
        models: Mapping[str, LoadedModel] | None = None,
        probes: Mapping[str, Probe] | None = None,
    ) -> None:
        self.settings = settings
        self.cache = Cache(settings.cache)
        self.inputs = Inputs(settings, self.cache, progress=progress, opened=probes)
        self.encoders = Encoders(settings, self.inputs, worker=worker, models=models)
        self._progress = progress
        self._given = models, probes
        self._evaluated: dict[Cell, Evaluated | ClipqError] = {}
        self._temperatures: dict[Candidate, float] = {}

    def varied(self, settings: Settings, name: str) -> Evaluator:
        """Return an evaluator with other settings; whoever watches reads `name` beside its work."""
        watching = self._progress

        def tell(what: str, done: int, total: int) -> None:
            if watching is not None:
                watching(f"{what}, {name}", done, total)

        models, probes = self._given
        worker = self.encoders.worker
        return Evaluator(settings, worker=worker, progress=tell, models=models, probes=probes)

    # -- results ----------------------------------------------------------------------------

    def evaluate(self, cell: Cell) -> Evaluated:
        """Return the predictions of one cell.

        Raises:
            QuantizerError: the quantizer failed, covered nothing, zeroed or changed nothing.
            ModelError, ProbeError, CacheError: an input or the cache cannot be used.
        """
        if cell not in self._evaluated:
            try:
                self._evaluated[cell] = self._evaluate(cell)
            except ClipqError as error:
                self._evaluated[cell] = error  # every metric of the cell fails with it, at once
        known = self._evaluated[cell]
        if isinstance(known, ClipqError):
            raise known
        return known

    def figures(self, cell: Cell) -> dict[str, Any]:
        """Return what reports draw of a cell, made once and cached."""
        key = self.figures_key(cell)
        return self.cache.table("figures", key, lambda: ({}, self._draw(cell)))[1]

    def figures_key(self, cell: Cell) -> str:
        """Return the key under which the cache keeps a cell's figures."""
        return figures_key(self.evaluate(cell).evidence["predictions"][str(cell)])

    def features(self, cell: Cell) -> np.ndarray:
        """Return the image features (N, D) of a cell, encoded once and cached."""

        def create() -> Table:
            encoder = self.encoders.encoder(cell.candidate)
            return {"features": self.encode(encoder, cell, key=self._encoder(cell))}, {}

        return self.cache.table("features", self._features_key(cell), create)[0]["features"]

    def texts(self, cell: Cell) -> np.ndarray | None:
        """Return caption features (M, D), encoded once and cached; None but for retrieval."""
        probe = self.inputs.probes[cell.probe]
        if probe.role != "retrieval":
            return None

        def create() -> Table:
            encoder = self.encoders.encoder(cell.candidate)
            return {"features": self.encode_captions(encoder, cell.probe)}, {}

        key = texts_key(self._features_key(cell), probe)
        return self.cache.table("texts", key, create)[0]["features"]

    def head(self, candidate: Candidate) -> Head:
        """Return the zero-shot head, encoded once and cached."""
        return self._covered_head(candidate)[0]

    def encoded(self, cell: Cell) -> Encoded:
        """Return everything that one form of a model makes of a probe, each part cached."""
        known = self.features(cell.on(self.settings.calibration.name))
        return Encoded(
            self.features(cell),
            self.head(cell.candidate),
            known,
            self._temperature(cell.candidate, known),
            self.texts(cell),
        )

    def live_reference(self, model: str, samples: int) -> Predictions:
        """Encode the first in-distribution samples in FP32 now, whatever the cache holds.

        The temperature is not fitted again (it is 1 in the table): the sentinel compares what the
        towers and the head produce.
        """
        from clipq.data import blocks_of

        encoder = self.encoders.encoder(Candidate(model, FP32))
        known = self.inputs.known
        images = self.inputs.images(known.name, encoder.loaded.preprocess)[:samples]
        blocks = blocks_of(images, self.settings.batch_size)
        features = np.concatenate(list(encoder.images(blocks, doing="encoding FP32 again")))
        encoded = Encoded(features, encoder.head(known), known=features)
        info = self.inputs.sample_info(known.name, len(images))
        return build_predictions(
            "in-distribution", info, encoded, encoded, known_labels=info.labels, towers="none"
        )

    def identity(self, cell: Cell) -> dict[str, str]:
        """Return what must be equal for a result to be comparable with a baseline."""
        return result_identity(
            self.encoders.model(cell.model),
            self.inputs.probes[cell.probe],
            known=self.inputs.known,
            calibration=self.inputs.calibration_fingerprint,
        )

    # -- encoding, also with encoders that are no candidate's -----------------------------------

    def encode(
        self, encoder: Encoder, cell: Cell, *, key: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        """Return the image features (N, D) that a form of a model gives a cell's probe.

        Where the probe is adversarial, its images are attacked first; with `key`, which identifies
        the encoder, attacked chunks are kept.
        """
        total, parts, done = len(self.inputs.probes[cell.probe]), [], 0
        doing = f"encoding the images of probe {cell.probe!r}"
        with encoder.naming(doing):
            for features in self._batches(encoder, cell, key, doing):
                parts.append(features)
                done += len(features)
                if self._progress is not None:
                    self._progress(str(cell), done, total)
        return np.concatenate(parts)

    def encode_captions(self, encoder: Encoder, probe: str) -> np.ndarray:
        """Return the features (M, D) that a form of a model gives a probe's captions."""
        lines, _ = caption_lines(self.inputs.probes[probe].captions or ())
        return encoder.captions(lines, doing=f"encoding the captions of probe {probe!r}")

    def _batches(
        self, encoder: Encoder, cell: Cell, key: Mapping[str, Any] | None, doing: str
    ) -> Any:
        attack = self.settings.probe(cell.probe).attack
        preprocess = encoder.loaded.preprocess
        if attack is None:
            blocks = self.inputs.blocks(cell.probe, preprocess, self.settings.batch_size)
            return encoder.images(blocks, doing=doing)
        from clipq.evaluation.adversarial import AttackedProbe, Victim, encode_attacked

        info = self.inputs.sample_info(cell.probe)
        images = self.inputs.images(cell.probe, preprocess)
        probe = AttackedProbe(images, info.labels, info.columns, attack, self.identity(cell))
        shown = Victim(encoder, encoder.head(self.inputs.known), key)
        reference = None
        if attack.against == FP32:
            fp32 = cell.candidate.reference
            reference = Victim(
                self.encoders.encoder(fp32), self.head(fp32), self.encoders.identity(FP32)
            )
        return encode_attacked(shown, probe, self.cache, against=reference)

    # -- steps ------------------------------------------------------------------------------

    def _evaluate(self, cell: Cell) -> Evaluated:
        identity = self.identity(cell)
        key = predictions_key(identity, self._encoder(cell))
        columns, metadata = self.cache.table("predictions", key, lambda: self._predict(cell))
        kept = {"key": key, "sha256": table_digest(columns)}
        evidence = self._evidence(cell, metadata["coverage"])
        return Evaluated(
            predictions=as_predictions(columns, metadata),
            identity=identity,
            evidence=evidence | {"predictions": {str(cell): kept}},
        )

    def _predict(self, cell: Cell) -> Table:
        observed = reference = self.encoded(cell)
        towers = "none"
        if not cell.candidate.is_reference:
            reference = self.encoded(cell.reference)
            towers = QuantizerSpec.parse(cell.quantizer).towers
            check_features(
                cell.quantizer,
                observed.features,
                observed.head,
                reference.features,
                reference.head,
            )
        predictions = build_predictions(
            self.inputs.probes[cell.probe].role,
            self.inputs.sample_info(cell.probe),
            observed,
            reference,
            known_labels=self.inputs.calibration.labels,
            towers=towers,
        )
        _, coverage = self._covered_head(cell.candidate)
        return as_table(predictions, {"coverage": coverage})

    def _draw(self, cell: Cell) -> dict[str, Any]:
        role = self.inputs.probes[cell.probe].role
        known, features = None, None
        if role == "ood":
            known = self.evaluate(cell.on(self.settings.in_distribution.name)).predictions
        if role == "in-distribution" and not cell.candidate.is_reference:
            features = self.features(cell.reference), self.features(cell)
        return figures(role, self.evaluate(cell).predictions, known=known, features=features)

    def _temperature(self, candidate: Candidate, known: np.ndarray) -> float:
        if candidate not in self._temperatures:
            labels = self.inputs.calibration.labels
            head = self.head(candidate)
            self._temperatures[candidate] = calibrated_temperature(known, head, labels)
        return self._temperatures[candidate]

    def _covered_head(self, candidate: Candidate) -> tuple[Head, dict[str, Any]]:
        """Return the zero-shot head, and what the quantizer that it came from covers."""
        known = self.inputs.known
        model = model_identity(self.encoders.model(candidate.model))
        key = head_key(model, known, self.encoders.identity(candidate.quantizer))

        def create() -> Table:
            head = self.encoders.encoder(candidate).head(known)
            own = np.array([head.logit_scale, head.logit_bias])
            columns = {"embeddings": head.embeddings, "logit_map": own}
            return columns, {"coverage": self.encoders.coverage(candidate)}

        columns, metadata = self.cache.table("head", key, create)
        return Head(columns["embeddings"], *columns["logit_map"].tolist()), metadata["coverage"]

    def _encoder(self, cell: Cell) -> dict[str, Any]:
        return self.encoders.identity(cell.quantizer)

    def _features_key(self, cell: Cell) -> str:
        attack = self.settings.probe(cell.probe).attack
        made: dict[str, Any] | None = None
        if attack is not None:
            from clipq.evaluation.attack import attack_identity

            # Adversarial images depend on the head that they mislead.
            made = {"identity": self.identity(cell), **attack_identity(attack)}
        model = model_identity(self.encoders.model(cell.model))
        return features_key(model, self.inputs.probes[cell.probe], self._encoder(cell), attack=made)

    def _evidence(self, cell: Cell, coverage: dict[str, Any]) -> dict[str, dict[str, Any]]:
        opened, environment = self.inputs.probes[cell.probe], self.encoders.environment
        model = {
            "source": self.settings.model(cell.model).source,
            **model_identity(self.encoders.model(cell.model)),
        }
        probe = {
            "role": opened.role,
            "samples": len(opened.ids),
            "fingerprint": opened.fingerprint,
        }
        evidence: dict[str, dict[str, Any]] = {
            "models": {cell.model: model},
            "probes": {cell.probe: probe},
            "environments": {digest(environment)[:12]: dict(environment)},
        }
        if not cell.candidate.is_reference:
            made = {**method_identity(cell.quantizer), **coverage}
            evidence["quantizers"] = {str(cell.candidate): made}
        return evidence
