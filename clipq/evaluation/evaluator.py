"""The evaluator: predictions of each cell, encoded once and cached.

    Inputs     (clipq.evaluation.inputs)     probes, images, prompts, captions
    Encoders   (clipq.evaluation.encoders)   every form of every model
    Encodings  (clipq.evaluation.encodings)  what each form makes of each probe
    identity   (clipq.evaluation.identity)   what a result depends on, as keys
    Evaluator                                predictions and figures of a cell

Everything is keyed by content, so a second metric, a second process or a second run finds what the
first one made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.cases import FP32, Candidate, Cell
from clipq.data import Probe
from clipq.errors import ClipqError
from clipq.evaluation.batch_check import BatchCheck
from clipq.evaluation.cache import Cache, Table
from clipq.evaluation.candidate_facts import replaced_towers
from clipq.evaluation.encoders import Encoders
from clipq.evaluation.encodings import Encodings, Progress
from clipq.evaluation.figures import figures
from clipq.evaluation.identity import (
    figures_key,
    method_evidence,
    model_identity,
    predictions_key,
)
from clipq.evaluation.inputs import Inputs
from clipq.evaluation.known_labels import KnownLabels
from clipq.evaluation.pooling import Origins, pool, pooled_fingerprint
from clipq.evaluation.predict import Encoded, build_predictions, check_features
from clipq.evaluation.remarks import input_remarks
from clipq.evaluation.tables import as_predictions, as_table, table_digest
from clipq.metrics import Predictions
from clipq.provenance import digest
from clipq.settings import Settings

if TYPE_CHECKING:
    from clipq.models import LoadedModel

__all__ = ["Evaluated", "Evaluator"]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Predictions with what identifies them.

    `identity` names everything but the quantizer: two results may be compared where it is equal.
    `evidence` is what a report says of the model, quantizer, probe and environment.

    >>> table = Predictions({"correct": np.array([1, 1, 0])})
    >>> one, other = (Evaluated(table, {"prompts": text}, {}) for text in ("a photo of a", "a"))
    >>> one.identity == other.identity  # other prompts: not to be compared
    False
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
        cache: where everything is kept; by default, that of the settings.
        inputs: those of another evaluator of the same settings.

    >>> from pathlib import Path
    >>> from clipq.settings import load_settings
    >>> evaluator = Evaluator(load_settings(Path("clipq.toml")))
    >>> found = evaluator.evaluate(Cell.parse("vit-clean/fp32/id"))
    >>> len(found.predictions), round(float(found.predictions.samples("correct").mean()), 2)
    (2048, 0.86)
    """

    def __init__(
        self,
        settings: Settings,
        *,
        worker: int = 0,
        progress: Progress | None = None,
        models: Mapping[str, LoadedModel] | None = None,
        probes: Mapping[str, Probe] | None = None,
        cache: Cache | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        self.settings = settings
        self.cache = cache or Cache(settings.cache)
        self.inputs = inputs or Inputs(settings, self.cache, progress=progress, opened=probes)
        self.encoders = Encoders(
            settings, self.inputs, worker=worker, models=models, progress=progress
        )
        self._progress = progress
        self._given = models, probes
        self.encodings = Encodings(self.encoders, self.inputs, self.cache, progress=progress)
        self.batches = BatchCheck(self.encodings)
        self._evaluated: dict[Cell, Evaluated | ClipqError] = {}
        self._remarks: dict[str, tuple[str, ...]] = {}

    def varied(self, settings: Settings, name: str) -> Evaluator:
        """Return an evaluator with other settings; whoever watches reads `name` beside its work."""
        watching = self._progress

        def tell(what: str, done: int, total: int) -> None:
            if watching is not None:
                watching(f"{what}, {name}", done, total)

        models, probes = self._given
        worker = self.encoders.worker
        return Evaluator(settings, worker=worker, progress=tell, models=models, probes=probes)

    def drawn(self, samples: int, seed: int) -> Evaluator:
        """Return an evaluator whose quantizers see a part of the calibration split.

        It shares inputs, cache and the models that are loaded; see `Inputs.drawn`.
        """
        return Evaluator(
            self.settings,
            worker=self.encoders.worker,
            progress=self._progress,
            models={model.name: self.encoders.model(model.name) for model in self.settings.models},
            cache=self.cache,
            inputs=self.inputs.drawn(samples, seed),
        )

    def forget(self, candidate: Candidate) -> None:
        """Give back the memory that a candidate takes; the cache is left as it is."""
        self.encoders.give_up()
        for cell in [cell for cell in self._evaluated if cell.candidate == candidate]:
            del self._evaluated[cell]

    # -- results ----------------------------------------------------------------------------

    def evaluate(self, cell: Cell) -> Evaluated:
        """Return the predictions of one cell.

        Raises:
            QuantizerError: the quantizer failed, covered nothing, zeroed or changed nothing.
            ModelError, ProbeError, CacheError: an input or the cache cannot be used.
        """
        self.encoders.check(cell.candidate)
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
        found = self.evaluate(cell)
        made = found.evidence["predictions"]
        return figures_key(made.get(str(cell), {"pooled": made, "probe": found.identity["probe"]}))

    def live_reference(self, model: str, samples: int) -> Predictions:
        """Encode the first in-distribution samples in FP32 now, whatever the cache holds.

        The temperature is not fitted again (it is 1 in the table): the sentinel compares what the
        towers and the head produce.
        """
        from clipq.data import blocks_of

        encoder = self.encoders.encoder(Candidate(model, FP32))
        known = self.inputs.known
        images = self.inputs.images(known.name, encoder.loaded.preprocess, first=samples)
        blocks = blocks_of(images, self.settings.batch_size)
        features = np.concatenate(list(encoder.images(blocks, doing="encoding FP32 again")))
        encoded = Encoded(features, encoder.head(known), known=features)
        info = self.inputs.sample_info(known.name, len(images))
        labels = KnownLabels(info.labels)
        return build_predictions(
            "in-distribution", info, encoded, encoded, known=labels, towers="none"
        )

    def remarks(self, model: str) -> tuple[str, ...]:
        """Return what a reader should know of what a model is shown, as sentences."""
        if model not in self._remarks:
            self._remarks[model] = input_remarks(self.encoders.model(model), self.inputs)
        return self._remarks[model]

    # -- steps ------------------------------------------------------------------------------

    def _evaluate(self, cell: Cell) -> Evaluated:
        if cell.probe in self.inputs.pooled:
            return self._pool(cell, self.inputs.pooled[cell.probe])
        identity = self.encodings.identity(cell)
        key = predictions_key(identity, self.encodings.form(cell.candidate))
        columns, metadata = self.cache.table("predictions", key, lambda: self._predict(cell))
        kept = {"key": key, "sha256": table_digest(columns)}
        evidence = self._evidence(cell, metadata["coverage"])
        return Evaluated(
            predictions=as_predictions(columns, metadata),
            identity=identity,
            evidence=evidence | {"predictions": {str(cell): kept}},
        )

    def _pool(self, cell: Cell, origins: Origins) -> Evaluated:
        """Return the predictions of a pooled probe, which nothing is encoded or kept for."""
        members = {name: self.evaluate(cell.on(name)) for name in origins}
        shared = next(iter(members.values())).identity
        fingerprints = {name: found.identity["probe"] for name, found in members.items()}
        identity = shared | {"probe": pooled_fingerprint(origins, fingerprints)}
        predictions = pool({name: found.predictions for name, found in members.items()}, origins)
        evidence: dict[str, dict[str, Any]] = {}
        for found in members.values():
            for kind, entries in found.evidence.items():
                evidence.setdefault(kind, {}).update(entries)
        own = self._seen(cell.probe, len(predictions), identity["probe"]) | {"pools": dict(origins)}
        evidence["probes"][cell.probe] = own
        return Evaluated(predictions, identity, evidence)

    def _predict(self, cell: Cell) -> Table:
        observed = reference = self.encodings.encoded(cell.reference)
        if not cell.candidate.is_reference:  # after FP32, beside which images are decoded
            observed = self.encodings.encoded(cell)
            if not cell.base.candidate.is_reference:  # of which a tuned scale alone is another
                check_features(
                    cell.base.quantizer,
                    observed.features,
                    observed.head,
                    reference.features,
                    reference.head,
                    may_equal=self.encoders.is_artifact(cell.candidate),
                )
            self.batches.check(cell.candidate)
        predictions = build_predictions(
            self.inputs.probes[cell.probe].role,
            self.inputs.sample_info(cell.probe),
            observed,
            reference,
            known=self.inputs.known_labels,
            towers=replaced_towers(cell.candidate, self.settings),
            known_clusters=self.inputs.calibration.clusters,
        )
        _, coverage = self.encodings.covered_head(cell.candidate)
        return as_table(predictions, {"coverage": coverage})

    def _draw(self, cell: Cell) -> dict[str, Any]:
        role = self.settings.probe(cell.probe).role
        known, features = None, None
        if role == "ood":
            known = self.evaluate(cell.on(self.settings.in_distribution.name)).predictions
        if role == "in-distribution" and not cell.candidate.is_reference:
            features = self.encodings.features(cell.reference), self.encodings.features(cell)
        return figures(role, self.evaluate(cell).predictions, known=known, features=features)

    def _evidence(self, cell: Cell, coverage: dict[str, Any]) -> dict[str, dict[str, Any]]:
        opened, environment = self.inputs.probes[cell.probe], self.encoders.environment
        model: dict[str, Any] = {
            "source": self.settings.model(cell.model).source,
            **model_identity(self.encoders.model(cell.model)),
        }
        remarks = self.remarks(cell.model)
        if remarks:
            model["remarks"] = list(remarks)
        probe = self._seen(cell.probe, len(opened.ids), opened.fingerprint)
        evidence: dict[str, dict[str, Any]] = {
            "models": {cell.model: model},
            "probes": {cell.probe: probe},
            "environments": {digest(environment)[:12]: dict(environment)},
        }
        if cell.candidate.tuned:
            tuning = self.encodings.tuning(cell.candidate).to_plain()
            evidence["tunings"] = {str(cell.candidate): tuning}
        if self.encoders.is_artifact(cell.candidate):
            found = [each.to_plain() for each in self.batches.check(cell.candidate)]
            declared = self.encoders.artifacts.declared(cell.candidate)
            made = coverage | declared | {"findings": [*coverage["findings"], *found]}
            evidence["artifacts"] = {str(cell.candidate): made}
        elif not cell.base.candidate.is_reference:
            learnt = self.encoders.trained.evidence(cell.base.candidate)
            made = {**method_evidence(cell.base.quantizer), **coverage, **learnt}
            evidence["quantizers"] = {str(cell.candidate): made}
        return evidence

    def _seen(self, name: str, samples: int, fingerprint: str) -> dict[str, Any]:
        """Return what a record says of a probe."""
        declared = self.settings.probe(name)
        seen = {"role": declared.role, "samples": samples, "fingerprint": fingerprint}
        seen |= {name: own for name in ("distance", "use") if (own := getattr(declared, name))}
        if declared.corruption is not None:
            seen["severities"] = list(declared.corruption.severities)
        return seen
