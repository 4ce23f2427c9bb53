"""Predictions of a quantized model some of whose layers are put back to float."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from clipq.evaluation.cache import Table
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import FP32
from clipq.evaluation.predict import Encoded, Head, build_predictions, calibrated_temperature
from clipq.evaluation.resampling import Sample
from clipq.evaluation.tables import as_predictions, as_table
from clipq.metrics import Predictions
from clipq.provenance import digest
from clipq.quant import QuantizerSpec

if TYPE_CHECKING:
    from clipq.quant.mixture import Mixture

__all__ = ["MixtureEvaluator"]

_FEATURES_KEPT = 12  # image features in memory: of the towers all float, all quantized, and recent


class MixtureEvaluator:
    """Evaluates one model x quantizer with any of its layers in float.

    Predictions are cached, so that an interrupted search goes on where it was; a tower whose layers
    are as before is not encoded again.

    Args:
        evaluator: where probes, models and the cache come from.
        model: its name.
        quantizer: its text.
    """

    def __init__(self, evaluator: Evaluator, model: str, quantizer: str) -> None:
        self.evaluator, self.name, self.quantizer = evaluator, model, quantizer
        self._features = lru_cache(maxsize=_FEATURES_KEPT)(self._encode)
        self._heads = lru_cache(maxsize=_FEATURES_KEPT)(self._encode_head)
        self._temperatures = lru_cache(maxsize=None)(self._fit_temperature)

    @cached_property
    def mixture(self) -> Mixture:
        """The quantized model, made at first use."""
        return self.evaluator.mixture(self.name, self.quantizer)

    def sample(self, floats: frozenset[str], probe: str) -> Sample:
        """Return what the model with these layers in float predicts on a probe.

        Raises:
            QuantizerError: no layer has such a name, or encoding failed.
        """
        known = self.evaluator.settings.in_distribution.name
        return Sample(self._predictions(floats, probe), self._predictions(floats, known))

    def _predictions(self, floats: frozenset[str], probe: str) -> Predictions:
        key = digest(
            {
                "identity": self.evaluator.identity(self.name, probe),
                "encoder": self.evaluator.encoder_key(self.name, self.quantizer),
                "float": sorted(floats),
            }
        )

        def create() -> Table:
            return as_table(self._predict(floats, probe), {})

        return as_predictions(*self.evaluator.cache.table("mixtures", key, create))

    def _predict(self, floats: frozenset[str], probe: str) -> Predictions:
        vision, text = _by_tower(floats)
        inputs = self.evaluator.inputs
        observed = Encoded(
            self._features(vision, probe),
            self._heads(text),
            self._features(vision, inputs.calibration.name),
            self._temperatures(floats),
            self._texts(text, probe),
        )
        return build_predictions(
            self.evaluator.probes[probe].role,
            inputs.sample_info(probe),
            observed,
            self.evaluator.encoded(self.name, FP32, probe),
            known_labels=inputs.calibration.labels,
            towers=QuantizerSpec.parse(self.quantizer).towers,
        )

    def _texts(self, text: frozenset[str], probe: str) -> np.ndarray | None:
        if self.evaluator.probes[probe].role != "retrieval":
            return None
        self.mixture.keep_float(text)
        return self.evaluator.encode_captions(self.mixture.model, self.name, self.quantizer, probe)

    def _fit_temperature(self, floats: frozenset[str]) -> float:
        vision, text = _by_tower(floats)
        calibration = self.evaluator.settings.calibration.name
        features, labels = (
            self._features(vision, calibration),
            self.evaluator.probes[calibration].labels,
        )
        return calibrated_temperature(features, self._heads(text), labels)

    def _encode(self, floats: frozenset[str], probe: str) -> np.ndarray:
        self.mixture.keep_float(floats)
        return self.evaluator.encode(self.mixture.model, self.name, self.quantizer, probe)

    def _encode_head(self, floats: frozenset[str]) -> Head:
        self.mixture.keep_float(floats)
        return self.evaluator.encode_head(self.mixture.model, self.name, self.quantizer)


def _by_tower(floats: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the layers of the vision tower and those of the text tower."""
    vision = frozenset(name for name in floats if name.startswith("visual."))
    return vision, floats - vision
