"""The evaluator: predictions of model x quantizer x probe, each encoded once and cached.

Everything is keyed by content (`clipq.evaluation.identity`), so a second metric, a second process
or a second run finds what the first one made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.data import Probe
from clipq.errors import ClipqError, QuantizerError
from clipq.evaluation.cache import Cache, Table
from clipq.evaluation.inputs import Inputs, caption_lines
from clipq.evaluation.plan import FP32
from clipq.evaluation.predict import (
    COLUMNS_VERSION,
    Encoded,
    Head,
    build_predictions,
    calibrated_temperature,
    check_features,
)
from clipq.evaluation.tables import as_predictions, as_table, table_digest
from clipq.metrics import Predictions
from clipq.models import ModelSource
from clipq.provenance import digest, package_versions
from clipq.quant import QuantizerSpec
from clipq.settings import Settings

if TYPE_CHECKING:
    import torch

    from clipq.models import LoadedModel
    from clipq.quant import Calibration, Quantized
    from clipq.quant.mixture import Mixture

__all__ = ["Evaluated", "Evaluator"]

HEAD_VERSION = 3
"""Bumped when what a cached head holds changes."""


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
    """

    def __init__(
        self,
        settings: Settings,
        *,
        worker: int = 0,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.settings = settings
        self.cache = Cache(settings.cache)
        self.inputs = Inputs(settings, self.cache, progress=progress)
        self._worker = worker
        self._progress = progress
        self._models: dict[str, LoadedModel] = {}
        self._quantized: tuple[tuple[str, str], Quantized] | None = None
        self._accelerated: dict[str, int] = {}
        self._evaluated: dict[tuple[str, str, str], Evaluated] = {}
        self._failures: dict[tuple[str, str], ClipqError] = {}
        self._temperatures: dict[tuple[str, str], float] = {}

    def varied(self, settings: Settings, name: str) -> Evaluator:
        """Return an evaluator with other settings; whoever watches reads `name` beside its work."""
        watching = self._progress
        if watching is None:
            return Evaluator(settings, worker=self._worker)

        def tell(what: str, done: int, total: int) -> None:
            watching(f"{what}, {name}", done, total)

        return Evaluator(settings, worker=self._worker, progress=tell)

    # -- what is evaluated ------------------------------------------------------------------

    @property
    def probes(self) -> dict[str, Probe]:
        """Every probe of the settings, opened, verified and checked for leakage."""
        return self.inputs.probes

    def model(self, name: str) -> LoadedModel:
        """Return the FP32 model, loaded once per process."""
        if name not in self._models:
            from clipq.models import load_model

            self.pin()
            declared = self.settings.model(name)
            source = ModelSource.parse(declared.source, base_dir=self.settings.root)
            self._models[name] = load_model(
                source, device=self.device, expected_sha256=declared.sha256
            )
        return self._models[name]

    @cached_property
    def device(self) -> str:
        from clipq.evaluation.encode import resolve_device

        return resolve_device(self.settings.device, worker=self._worker)

    @cached_property
    def environment(self) -> dict[str, str | int]:
        """What can move a number on this machine; part of every cache key."""
        from clipq.evaluation.encode import environment

        self.pin()
        found = environment(
            device=self.device,
            threads=self.settings.threads,
            batch_size=self.settings.batch_size,
        )
        return found | ({"kernels": self.backend} if self.backend else {})

    @cached_property
    def backend(self) -> str:
        """What computes quantized operations; "" where there is no choice."""
        from clipq.evaluation.acceleration import backend_of

        return backend_of(self.settings, self.device)

    def pin(self) -> None:
        """Use this evaluator's number of threads, after another one may have used its own."""
        from clipq.evaluation.encode import pin_threads

        pin_threads(self.settings.threads)

    # -- results ----------------------------------------------------------------------------

    def evaluate(self, model: str, quantizer: str, probe: str) -> Evaluated:
        """Return the predictions of one model x quantizer on one probe.

        Raises:
            QuantizerError: the quantizer failed, covered nothing, zeroed or changed nothing.
            ModelError, ProbeError, CacheError: an input or the cache cannot be used.
        """
        cell = (model, quantizer, probe)
        if (model, quantizer) in self._failures:
            raise self._failures[model, quantizer]
        if cell not in self._evaluated:
            try:
                self._evaluated[cell] = self._evaluate(*cell)
            except ClipqError as error:
                self._failures[model, quantizer] = error
                raise
        return self._evaluated[cell]

    def features(self, model: str, quantizer: str, probe: str) -> np.ndarray:
        """Return the image features (N, D) of a probe, encoded once and cached."""

        def create() -> Table:
            encoder = self.quantized_model(model, quantizer)
            encoder_key = self.encoder_key(model, quantizer)
            features = self.encode(encoder, model, quantizer, probe, key=encoder_key)
            return {"features": features}, {}

        key = self._features_key(model, quantizer, probe)
        return self.cache.table("features", key, create)[0]["features"]

    def texts(self, model: str, quantizer: str, probe: str) -> np.ndarray | None:
        """Return caption features (M, D), encoded once and cached; None but for retrieval."""
        if self.probes[probe].role != "retrieval":
            return None

        def create() -> Table:
            encoder = self.quantized_model(model, quantizer)
            return {"features": self.encode_captions(encoder, model, quantizer, probe)}, {}

        key = digest([self._features_key(model, quantizer, probe), self.probes[probe].captions])
        return self.cache.table("texts", key, create)[0]["features"]

    def head(self, model: str, quantizer: str) -> Head:
        """Return the zero-shot head, encoded once and cached."""
        return self._covered_head(model, quantizer)[0]

    def encoded(self, model: str, quantizer: str, probe: str) -> Encoded:
        """Return everything that one form of a model makes of a probe, each part cached."""
        features = self.features(model, quantizer, probe)
        known = self.features(model, quantizer, self.settings.calibration.name)
        return Encoded(
            features,
            self.head(model, quantizer),
            known,
            self._temperature(model, quantizer, known),
            self.texts(model, quantizer, probe),
        )

    def live_reference(self, model: str, samples: int) -> Predictions:
        """Encode the first in-distribution samples in FP32 now, whatever the cache holds.

        The temperature is not fitted again (it is 1 in the table): the sentinel compares what the
        towers and the head produce.
        """
        from clipq.evaluation.encode import encode_images

        loaded = self.model(model)
        known = self.settings.in_distribution.name
        images = self.inputs.images(known, loaded.preprocess)[:samples]
        features = encode_images(
            loaded.model,
            images,
            loaded.preprocess,
            batch_size=self.settings.batch_size,
            device=self.device,
        )
        head = Head(self._class_embeddings(loaded, loaded.model), *_logit_map(loaded))
        encoded = Encoded(features, head, known=features)
        info = self.inputs.sample_info(known, len(images))
        return build_predictions(
            "in-distribution", info, encoded, encoded, known_labels=info.labels, towers="none"
        )

    def identity(self, model: str, probe: str) -> dict[str, str]:
        """Return what must be equal for a result to be comparable with a baseline."""
        loaded = self.model(model)
        known, opened = self.inputs.known, self.probes[probe]
        own = [opened.classnames, opened.class_map]
        captions = opened.captions if opened.role == "retrieval" else None
        same = opened.classnames == known.classnames and opened.class_map is None
        plain = opened.role == "ood" or (same and captions is None)
        return {
            **self._model_identity(model),
            "prompts": digest([known.classnames, known.templates]),
            "probe": opened.fingerprint if plain else digest([opened.fingerprint, own, captions]),
            "in_distribution": known.fingerprint,
            "calibration": self.inputs.calibration_fingerprint,
            "logit_map": digest(_logit_map(loaded)),
            "dtype": "float32",
            "columns": str(COLUMNS_VERSION),
        }

    def encoder_key(self, model: str, quantizer: str) -> dict[str, Any]:
        """Return what identifies an encoder beside the weights it starts from."""
        key: dict[str, Any] = {
            "quantizer": quantizer,
            "environment": self.environment,
            "clipq": package_versions(("clipq",))["clipq"],
        }
        if quantizer != FP32:
            key |= _method_identity(quantizer) | {
                "calibration": self.inputs.calibration_fingerprint
            }
        return key

    # -- encoders that are no cell of the matrix ----------------------------------------------

    def encode(
        self,
        encoder: torch.nn.Module,
        model: str,
        quantizer: str,
        probe: str,
        *,
        key: Mapping[str, Any] | None = None,
    ) -> np.ndarray:
        """Return the image features (N, D) that a form of `model` gives a probe.

        Where the probe is adversarial, its images are attacked first; with `key`, which identifies
        the encoder, attacked chunks are kept.
        """
        loaded = self.model(model)
        found, done = [], 0
        with _naming(quantizer, f"encoding the images of probe {probe!r}"):
            if self.settings.probe(probe).attack is not None:
                from clipq.evaluation.adversarial import encode_attacked

                batches = encode_attacked(self, encoder, model, quantizer, probe, key)
            else:
                from clipq.evaluation.encode import encode_blocks

                blocks = self.inputs.blocks(probe, loaded.preprocess, self.settings.batch_size)
                batches = encode_blocks(encoder, blocks, loaded.preprocess, device=self.device)
            for batch in batches:
                found.append(batch)
                done += len(batch)
                self._report(f"{model}/{quantizer}/{probe}", done, len(self.probes[probe]))
        return np.concatenate(found)

    def encode_head(self, encoder: torch.nn.Module, model: str, quantizer: str) -> Head:
        """Return the zero-shot head of a form of `model`; not cached."""
        from clipq.models import logit_map

        loaded = self.model(model)
        with _naming(quantizer, "encoding the class prompts"):
            embeddings = self._class_embeddings(loaded, encoder)
            # A quantizer may tune the scale: the logits are then its own.
            own = logit_map(encoder) if hasattr(encoder, "logit_scale") else _logit_map(loaded)
        return Head(embeddings, *own)

    def encode_captions(
        self, encoder: torch.nn.Module, model: str, quantizer: str, probe: str
    ) -> np.ndarray:
        """Return the features (M, D) that a form of `model` gives a probe's captions."""
        from clipq.evaluation.encode import encode_texts

        lines, _ = caption_lines(self.probes[probe].captions or ())
        tokens = self.model(model).tokenizer(lines)
        with _naming(quantizer, f"encoding the captions of probe {probe!r}"):
            return encode_texts(
                encoder, tokens, batch_size=self.settings.batch_size, device=self.device
            )

    def _report(self, what: str, done: int, total: int) -> None:
        """Tell whoever watches how far an encode is."""
        if self._progress is not None:
            self._progress(what, done, total)

    def mixture(self, model: str, quantizer: str) -> Mixture:
        """Return a quantized form of a model whose layers can be put back to float."""
        from clipq.quant.mixture import Mixture

        self._quantized = None  # one quantized model in memory at a time
        spec = QuantizerSpec.parse(quantizer)
        return Mixture(self.model(model).model, spec, self._calibration(model))

    # -- steps ------------------------------------------------------------------------------

    def _evaluate(self, model: str, quantizer: str, probe: str) -> Evaluated:
        key = digest(
            {
                "identity": self.identity(model, probe),
                "encoder": self.encoder_key(model, quantizer),
                "head": HEAD_VERSION,
            }
        )
        columns, metadata = self.cache.table(
            "predictions", key, lambda: self._predict(model, quantizer, probe)
        )
        evidence = self._evidence(model, quantizer, probe, metadata["coverage"])
        kept = {"key": key, "sha256": table_digest(columns)}
        return Evaluated(
            predictions=as_predictions(columns, metadata),
            identity=self.identity(model, probe),
            evidence=evidence | {"predictions": {f"{model}/{quantizer}/{probe}": kept}},
        )

    def figures(self, model: str, quantizer: str, probe: str) -> dict[str, Any]:
        """Return what reports draw of one cell, made once and cached."""
        from clipq.evaluation.figures import FIGURES_VERSION, figures

        cell = f"{model}/{quantizer}/{probe}"
        kept = self.evaluate(model, quantizer, probe).evidence["predictions"][cell]
        key = digest([kept, FIGURES_VERSION])

        def create() -> Table:
            return {}, figures(self, model, quantizer, probe)

        return self.cache.table("figures", key, create)[1]

    def _predict(self, model: str, quantizer: str, probe: str) -> Table:
        observed = self.encoded(model, quantizer, probe)
        reference = observed
        if quantizer != FP32:
            reference = self.encoded(model, FP32, probe)
            check_features(
                quantizer, observed.features, observed.head, reference.features, reference.head
            )
        predictions = build_predictions(
            self.probes[probe].role,
            self.inputs.sample_info(probe),
            observed,
            reference,
            known_labels=self.inputs.calibration.labels,
            towers="none" if quantizer == FP32 else QuantizerSpec.parse(quantizer).towers,
        )
        _, coverage = self._covered_head(model, quantizer)
        return as_table(predictions, {"coverage": coverage})

    def _temperature(self, model: str, quantizer: str, known: np.ndarray) -> float:
        cell = (model, quantizer)
        if cell not in self._temperatures:
            head, _ = self._covered_head(model, quantizer)
            labels = self.inputs.calibration.labels
            self._temperatures[cell] = calibrated_temperature(known, head, labels)
        return self._temperatures[cell]

    def _features_key(self, model: str, quantizer: str, probe: str) -> str:
        key: dict[str, Any] = {
            "model": self._model_identity(model),
            "probe": self.probes[probe].fingerprint,
            "encoder": self.encoder_key(model, quantizer),
        }
        attack = self.settings.probe(probe).attack
        if attack is not None:
            from clipq.evaluation.attack import attack_identity

            # Adversarial images depend on the head that they mislead.
            key |= {"identity": self.identity(model, probe), **attack_identity(attack)}
        return digest(key)

    def _covered_head(self, model: str, quantizer: str) -> tuple[Head, dict[str, Any]]:
        key = digest(
            {
                "model": self._model_identity(model),
                "prompts": self.identity(model, self.settings.in_distribution.name)["prompts"],
                "encoder": self.encoder_key(model, quantizer),
                "head": HEAD_VERSION,
            }
        )

        def create() -> Table:
            head = self.encode_head(self.quantized_model(model, quantizer), model, quantizer)
            own = np.array([head.logit_scale, head.logit_bias])
            columns = {"embeddings": head.embeddings, "logit_map": own}
            return columns, {"coverage": self._coverage(model, quantizer)}

        columns, metadata = self.cache.table("head", key, create)
        return Head(columns["embeddings"], *columns["logit_map"].tolist()), metadata["coverage"]

    def _class_embeddings(self, loaded: LoadedModel, encoder: torch.nn.Module) -> np.ndarray:
        from clipq.models import class_embeddings

        known = self.inputs.known
        return class_embeddings(
            encoder,
            loaded.tokenizer,
            known.classnames,
            known.templates,
            batch_size=self.settings.batch_size,
        ).numpy(force=True)

    def quantized_model(self, model: str, quantizer: str) -> torch.nn.Module:
        """Return the model in the form that a quantizer gives it; FP32 itself for ``fp32``."""
        if quantizer == FP32:
            return self.model(model).model
        return self._quantize(model, quantizer).model

    def _quantize(self, model: str, quantizer: str) -> Quantized:
        cell = (model, quantizer)
        if self._quantized is None or self._quantized[0] != cell:
            from clipq.evaluation.acceleration import accelerate
            from clipq.quant import quantize

            self._quantized = None  # one quantized model in memory at a time
            spec = QuantizerSpec.parse(quantizer)
            made = quantize(self.model(model).model, spec, self._calibration(model))
            self._accelerated = accelerate(made.model, self.backend)
            self._quantized = (cell, made)
        return self._quantized[1]

    def _coverage(self, model: str, quantizer: str) -> dict[str, Any]:
        if quantizer == FP32:
            return {}
        made = self._quantize(model, quantizer)
        plain = made.coverage.to_plain() | (made.storage.to_plain() if made.storage else {})
        return plain | ({"kernels": self._accelerated} if self.backend else {})

    def _calibration(self, model: str) -> Calibration:
        from clipq.evaluation.encode import image_batches
        from clipq.models import prompt_tokens
        from clipq.quant import Calibration

        loaded = self.model(model)
        probe = self.inputs.calibration
        images = self.inputs.images(probe.name, loaded.preprocess)
        size = self.settings.batch_size
        tokens = (
            loaded.tokenizer(caption_lines(probe.captions)[0])
            if probe.captions
            else prompt_tokens(loaded.tokenizer, probe.classnames, probe.templates)
        )

        def texts() -> Iterator[torch.Tensor]:
            for start in range(0, len(tokens), size):
                yield tokens[start : start + size].to(self.device)

        return Calibration(
            images=lambda: image_batches(
                images, loaded.preprocess, batch_size=size, device=self.device
            ),
            texts=texts,
        )

    # -- identity ---------------------------------------------------------------------------

    def _model_identity(self, model: str) -> dict[str, str]:
        loaded = self.model(model)
        return {**loaded.identity.to_plain(), "preprocess": loaded.preprocess.identity}

    def _evidence(
        self, model: str, quantizer: str, probe: str, coverage: dict[str, Any]
    ) -> dict[str, dict[str, Any]]:
        opened = self.probes[probe]
        declared = self.settings.model(model)
        evidence: dict[str, dict[str, Any]] = {
            "models": {model: {"source": declared.source, **self._model_identity(model)}},
            "probes": {
                probe: {
                    "role": opened.role,
                    "samples": len(opened.ids),
                    "fingerprint": opened.fingerprint,
                }
            },
            "environments": {digest(self.environment)[:12]: dict(self.environment)},
        }
        if quantizer != FP32:
            evidence["quantizers"] = {
                f"{model}/{quantizer}": {**_method_identity(quantizer), **coverage}
            }
        return evidence


@contextmanager
def _naming(quantizer: str, doing: str) -> Iterator[None]:
    """Turn whatever a quantized model raises into an error that names the quantizer."""
    try:
        yield
    except ClipqError:
        raise
    except Exception as error:
        raise QuantizerError(
            f"quantizer {quantizer!r} failed while {doing}: {type(error).__name__}: {error}",
            hint="encode_image and encode_text must work as the FP32 model's do",
        ) from error


def _logit_map(loaded: LoadedModel) -> tuple[float, float]:
    return loaded.logit_scale, loaded.logit_bias


@cache
def _method_identity(quantizer: str) -> dict[str, Any]:
    """What makes an edited quantizer another quantizer: its version and its source code."""
    from clipq.quant import method_code_hash, method_version

    spec = QuantizerSpec.parse(quantizer)
    return {"method_version": method_version(spec), "code_sha256": method_code_hash(spec)}
