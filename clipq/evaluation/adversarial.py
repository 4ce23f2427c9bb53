"""Adversarial probes: attacked and encoded chunk by chunk, each chunk cached.

A chunk that was attacked is never attacked again, so an interrupted run goes on where it was. What
is kept of an attack on the model under test are its features; pixels made against FP32 are kept
whole, because every quantizer of the model is shown the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from clipq.data.decoding import PIXELS_VERSION
from clipq.evaluation.artifact_module import ArtifactModule
from clipq.evaluation.attack import ZeroShotClassifier, attack_identity, attacked
from clipq.evaluation.cache import Cache, Table
from clipq.evaluation.encoder import Encoder
from clipq.evaluation.predict import Head
from clipq.provenance import digest
from clipq.settings import AttackSettings

__all__ = ["AttackedProbe", "Victim", "attack_reference", "encode_attacked", "regrouped"]

_CHUNK = 128


@dataclass(frozen=True, slots=True, eq=False)
class Victim:
    """What an attack is made against: an encoder and the head that its answers come from.

    `key` identifies both for the cache; None where nothing is to be kept of them. What the encoder
    does to the process is `contained` before anything is kept.
    """

    encoder: Encoder
    head: Head
    key: Mapping[str, Any] | None
    contained: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True, slots=True, eq=False)
class AttackedProbe:
    """An adversarial probe, ready to be attacked.

    Args:
        images: preprocessed pixels (N, H, W, 3) uint8.
        labels: (N,) classes that the attack leads away from.
        columns: which classes of the head stand for each of them; None for themselves.
        settings: of the attack.
        identity: of the model on this probe: part of every key and seed.
    """

    images: np.ndarray
    labels: np.ndarray
    columns: tuple[tuple[int, ...], ...] | None
    settings: AttackSettings
    identity: Mapping[str, str]


def encode_attacked(
    shown: Victim, probe: AttackedProbe, cache: Cache, *, against: Victim | None = None
) -> Iterator[np.ndarray]:
    """Yield the features (B, D) that a model gives a probe's images after its attack.

    Args:
        shown: the form of the model under test.
        probe: what is attacked.
        cache: where chunks are kept.
        against: FP32, where the images are made against it and transferred; None where they are
            made against the form under test itself.

    Raises:
        QuantizerError: the model has no gradient, or encoding failed.
    """
    classifier = _classifier(shown, probe)
    if against is not None:
        for pixels in regrouped(_reference_chunks(against, probe, cache), _size(shown)):
            yield _features(classifier, pixels, device=shown.encoder.device)
        return
    of = partial(_features, classifier, device=shown.encoder.device)
    yield from _chunks(classifier, probe, cache, shown, of=of)


def regrouped(chunks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the same rows in chunks of `size`, the last with what is left.

    >>> [chunk.tolist() for chunk in regrouped([np.arange(3), np.arange(3, 5)], 4)]
    [[0, 1, 2, 3], [4]]
    """
    left: list[np.ndarray] = []
    for chunk in chunks:
        left.append(chunk)
        while sum(map(len, left)) >= size:
            rows = np.concatenate(left)
            yield rows[:size]
            left = [rows[size:]] if len(rows) > size else []
    if left:
        yield np.concatenate(left)


def _size(victim: Victim) -> int:
    """Return how many images are attacked at once: of an artifact, whole batches of its own."""
    own = isinstance(victim.encoder.module, ArtifactModule)
    return victim.encoder.batch_size if own else _CHUNK


def attack_reference(fp32: Victim, probe: AttackedProbe, cache: Cache) -> None:
    """Have the images that are made against FP32 made and kept, before another model runs."""
    for _ in _reference_chunks(fp32, probe, cache):
        pass


def _reference_chunks(fp32: Victim, probe: AttackedProbe, cache: Cache) -> Iterator[np.ndarray]:
    target = _classifier(fp32, probe)
    return _chunks(target, probe, cache, fp32, of=lambda pixels: pixels)


def _classifier(victim: Victim, probe: AttackedProbe) -> ZeroShotClassifier:
    encoder = victim.encoder
    return ZeroShotClassifier(encoder.module, victim.head, encoder.loaded.preprocess, probe.columns)


def _chunks(
    target: ZeroShotClassifier,
    probe: AttackedProbe,
    cache: Cache,
    victim: Victim,
    *,
    of: Callable[[np.ndarray], np.ndarray],
) -> Iterator[np.ndarray]:
    """Yield what is kept of each chunk's adversarial pixels, made once."""
    size = _size(victim)
    for start in range(0, len(probe.images), size):
        chunk = slice(start, start + size)

        def make(chunk: slice = chunk) -> np.ndarray:
            with victim.contained():
                pixels = attacked(
                    target,
                    probe.images[chunk],
                    probe.labels[chunk],
                    probe.settings,
                    seed=digest([probe.identity["probe"], chunk.start]),
                    device=victim.encoder.device,
                )
                return of(pixels)

        if victim.key is None:
            yield make()
            continue
        key = digest(
            {
                "identity": probe.identity,
                "encoder": victim.key,
                "chunk": [start, len(probe.images[chunk]), PIXELS_VERSION],
                **attack_identity(probe.settings),
            }
        )
        stored, _ = cache.table("attacked", key, partial(_table, make))
        yield stored["kept"]


def _table(make: Callable[[], np.ndarray]) -> Table:
    return {"kept": make()}, {}


def _features(classifier: ZeroShotClassifier, pixels: np.ndarray, *, device: str) -> np.ndarray:
    with torch.inference_mode():
        features: np.ndarray = (
            classifier.features(torch.from_numpy(pixels).to(device)).cpu().numpy()
        )
    return features
