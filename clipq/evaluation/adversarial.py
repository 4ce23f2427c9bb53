"""Adversarial probes: attacked and encoded chunk by chunk, each chunk cached.

A chunk that was attacked is never attacked again, so an interrupted run goes on where it was. What
is kept of an attack on the model under test are its features; pixels made against FP32 are kept
whole, because every quantizer of the model is shown the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clipq.evaluation.attack import ZeroShotClassifier, attack_identity, attacked
from clipq.evaluation.plan import FP32
from clipq.provenance import digest

if TYPE_CHECKING:
    from clipq.evaluation.evaluator import Evaluator
    from clipq.settings import AttackSettings

__all__ = ["encode_attacked"]

_CHUNK = 128


def encode_attacked(
    evaluator: Evaluator,
    encoder: torch.nn.Module,
    model: str,
    quantizer: str,
    probe: str,
    key: Mapping[str, Any] | None,
) -> Iterator[np.ndarray]:
    """Yield the features of a probe's images after its attack, chunk by chunk.

    Args:
        evaluator: of models, images and the cache.
        encoder: the form of the model under test.
        model: its name.
        quantizer: how it was quantized.
        probe: whose settings hold an attack.
        key: what identifies the encoder; None where nothing is to be kept of it.

    Raises:
        QuantizerError: the model has no gradient, or encoding failed.
    """
    settings = evaluator.settings.probe(probe).attack
    if settings is None:
        raise ValueError(f"probe {probe!r} declares no attack")
    loaded = evaluator.model(model)
    columns = evaluator.inputs.sample_info(probe).columns
    shown = ZeroShotClassifier(
        encoder, evaluator.encode_head(encoder, model, quantizer), loaded.preprocess, columns
    )
    if settings.against == FP32:
        reference = evaluator.head(model, FP32)
        target = ZeroShotClassifier(loaded.model, reference, loaded.preprocess, columns)
        chunks = _Chunks(evaluator, model, probe, settings, evaluator.encoder_key(model, FP32))
        for pixels in chunks.kept(target, lambda pixels: pixels):
            yield _features(shown, pixels, evaluator.device)
        return
    chunks = _Chunks(evaluator, model, probe, settings, key)
    yield from chunks.kept(shown, lambda pixels: _features(shown, pixels, evaluator.device))


@dataclass(frozen=True, slots=True)
class _Chunks:
    """The chunks of one adversarial probe, and where they are kept."""

    evaluator: Evaluator
    model: str
    probe: str
    settings: AttackSettings
    key: Mapping[str, Any] | None

    def kept(
        self, target: ZeroShotClassifier, of: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Yield what is kept of each chunk's adversarial pixels, made once."""
        evaluator = self.evaluator
        identity = evaluator.identity(self.model, self.probe)
        labels = evaluator.inputs.sample_info(self.probe).labels
        images = evaluator.inputs.images(self.probe, evaluator.model(self.model).preprocess)
        for start in range(0, len(images), _CHUNK):
            chunk = slice(start, start + _CHUNK)

            def make(chunk: slice = chunk) -> np.ndarray:
                seed = digest([identity["probe"], chunk.start])
                pixels = attacked(
                    target,
                    images[chunk],
                    labels[chunk],
                    self.settings,
                    seed=seed,
                    device=evaluator.device,
                )
                return of(pixels)

            if self.key is None:
                yield make()
                continue
            key = digest(
                {
                    "identity": identity,
                    "encoder": self.key,
                    "chunk": [start, len(images[chunk])],
                    **attack_identity(self.settings),
                }
            )
            stored, _ = evaluator.cache.table("attacked", key, lambda: ({"kept": make()}, {}))
            yield stored["kept"]


def _features(classifier: ZeroShotClassifier, pixels: np.ndarray, device: str) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = classifier.features(torch.from_numpy(pixels).to(device)).cpu().numpy()
    return found
