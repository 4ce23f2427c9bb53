"""Predictions of a quantized model some of whose layers are put back to float."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from clipq.cases import Candidate, Cell
from clipq.evaluation.cache import Table
from clipq.evaluation.candidate_facts import replaced_towers
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.identity import mixture_key
from clipq.evaluation.pooling import pool
from clipq.evaluation.predict import Encoded, Head, build_predictions, calibrated_temperature
from clipq.evaluation.resampling import Tables
from clipq.evaluation.tables import as_predictions, as_table
from clipq.metrics import Predictions

if TYPE_CHECKING:
    from clipq.evaluation.encoder import Encoder
    from clipq.quant.mixture import Mixture

__all__ = ["MixtureEvaluator"]

_FEATURES_KEPT = 12  # image features in memory: of the towers all float, all quantized, and recent


class MixtureEvaluator:
    """Evaluates one candidate with any of its layers in float.

    Predictions are cached, so that an interrupted search goes on where it was; a tower whose layers
    are as before is not encoded again.

    Args:
        evaluator: where probes, models and the cache come from.
        candidate: which.
    """

    def __init__(self, evaluator: Evaluator, candidate: Candidate) -> None:
        self.evaluator, self.candidate = evaluator, candidate
        self._features = lru_cache(maxsize=_FEATURES_KEPT)(self._encode)
        self._heads = lru_cache(maxsize=_FEATURES_KEPT)(self._encode_head)
        self._captions = lru_cache(maxsize=_FEATURES_KEPT)(self._encode_captions)
        self._tuned = lru_cache(maxsize=None)(self._tune)
        self._temperatures = lru_cache(maxsize=None)(self._fit_temperature)

    @cached_property
    def mixture(self) -> Mixture:
        """The quantized model, made at first use."""
        return self.evaluator.encoders.mixture(self.candidate)

    def tables(self, floats: frozenset[str], probe: str) -> Tables:
        """Return what the model with these layers in float predicts on a probe.

        Raises:
            QuantizerError: no layer has such a name, or encoding failed.
        """
        cell = self.candidate.on(probe)
        known = self.candidate.on(self.evaluator.settings.in_distribution.name)
        return Tables(self._predictions(floats, cell), self._predictions(floats, known))

    def _predictions(self, floats: frozenset[str], cell: Cell) -> Predictions:
        origins = self.evaluator.inputs.pooled.get(cell.probe)
        if origins is not None:
            return pool({one: self._predictions(floats, cell.on(one)) for one in origins}, origins)
        encoder = self.evaluator.encodings.form(cell.candidate)
        key = mixture_key(self.evaluator.encodings.identity(cell), encoder, floats)

        def create() -> Table:
            encodings = self.evaluator.encodings
            proxy = [self.evaluator.inputs.proxy] if cell.candidate.tuned else []
            for probe in (self.evaluator.inputs.calibration, *proxy):
                encodings.prepare(cell.on(probe.name))
            encodings.prepare(cell)
            reference, _ = encodings.encoded(cell.reference), self.mixture  # made before the rest
            with self.evaluator.encoders.contained(cell.candidate, f"encoding {cell.probe!r}"):
                return as_table(self._predict(floats, cell, reference), {})

        return as_predictions(*self.evaluator.cache.table("mixtures", key, create))

    def _predict(self, floats: frozenset[str], cell: Cell, reference: Encoded) -> Predictions:
        vision, text = _by_tower(floats)
        inputs = self.evaluator.inputs
        observed = Encoded(
            self._features(vision, cell.probe),
            self._head(floats),
            self._features(vision, inputs.calibration.name),
            self._temperatures(floats),
            self._texts(text, cell.probe),
        )
        return build_predictions(
            inputs.probes[cell.probe].role,
            inputs.sample_info(cell.probe),
            observed,
            reference,
            known=inputs.known_labels,
            towers=replaced_towers(cell.candidate, self.evaluator.settings),
            known_clusters=inputs.calibration.clusters,
        )

    def _texts(self, text: frozenset[str], probe: str) -> np.ndarray | None:
        if self.evaluator.inputs.probes[probe].role != "retrieval":
            return None
        return self._captions(text, probe)

    def _head(self, floats: frozenset[str]) -> Head:
        """Return the head; a tuned candidate's scale is tuned again, for these features."""
        _, text = _by_tower(floats)
        return self._tuned(floats) if self.candidate.tuned else self._heads(text)

    def _tune(self, floats: frozenset[str]) -> Head:
        vision, text = _by_tower(floats)
        proxy, head = self.evaluator.inputs.proxy.name, self._heads(text)
        features = self._features(vision, proxy), self._captions(text, proxy)
        return self.evaluator.encodings.tuned(self.candidate.model, head, *features).head(head)

    def _fit_temperature(self, floats: frozenset[str]) -> float:
        vision, _ = _by_tower(floats)
        inputs = self.evaluator.inputs
        features = self._features(vision, inputs.calibration.name)
        return calibrated_temperature(features, self._head(floats), inputs.known_labels)

    def _encode(self, floats: frozenset[str], probe: str) -> np.ndarray:
        return self.evaluator.encodings.encode(self._encoder(floats), self.candidate.on(probe))

    def _encode_head(self, floats: frozenset[str]) -> Head:
        return self._encoder(floats).head(self.evaluator.inputs.known)

    def _encode_captions(self, floats: frozenset[str], probe: str) -> np.ndarray:
        return self.evaluator.encodings.encode_captions(self._encoder(floats), probe)

    def _encoder(self, floats: frozenset[str]) -> Encoder:
        self.mixture.keep_float(floats)
        return self.evaluator.encoders.wrap(self.candidate, self.mixture.model)


def _by_tower(floats: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the layers of the vision tower and those of the text tower."""
    vision = frozenset(name for name in floats if name.startswith("visual."))
    return vision, floats - vision
