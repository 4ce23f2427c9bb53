"""What each form of a model makes of each probe: features, heads, captions, all cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.cases import FP32, Candidate, Cell
from clipq.errors import QuantizerError
from clipq.evaluation.cache import Cache, Table
from clipq.evaluation.encoders import Encoders
from clipq.evaluation.identity import (
    features_key,
    head_key,
    model_identity,
    result_identity,
    texts_key,
)
from clipq.evaluation.inputs import Inputs, caption_lines
from clipq.evaluation.logit_scale import Tuning, has_bias, pair_features, tune, tuning_identity
from clipq.evaluation.predict import Encoded, Head, calibrated_temperature
from clipq.provenance import digest

if TYPE_CHECKING:
    from clipq.evaluation.adversarial import AttackedProbe, Victim
    from clipq.evaluation.encoder import Encoder
    from clipq.settings import AttackSettings

__all__ = ["Encodings", "Progress"]

Progress = Callable[[str, int, int], None]
"""Called with what is encoded, images done, images in all."""


class Encodings:
    """Encodes once and remembers.

    Args:
        encoders: every form of every model.
        inputs: probes, images, prompts, captions.
        cache: where everything is kept.
        progress: called with (cell, images done, images in all) during an encode.
    """

    def __init__(
        self,
        encoders: Encoders,
        inputs: Inputs,
        cache: Cache,
        *,
        progress: Progress | None = None,
    ) -> None:
        self.settings = encoders.settings
        self.encoders, self.inputs, self.cache = encoders, inputs, cache
        self._progress = progress
        self._temperatures: dict[Candidate, float] = {}

    def features(self, cell: Cell) -> np.ndarray:
        """Return the image features (N, D) of a cell, encoded once and cached."""

        def create() -> Table:
            encoder = self.encoders.encoder(cell.candidate)
            self.prepare(cell)
            with self.encoders.contained(cell.candidate, f"encoding probe {cell.probe!r}"):
                return {"features": self.encode(encoder, cell, key=self._encoder(cell))}, {}

        return self.cache.table("features", self.features_key(cell), create)[0]["features"]

    def texts(self, cell: Cell) -> np.ndarray | None:
        """Return caption features (M, D), encoded once and cached; None but for retrieval."""
        return self._texts(cell) if self.inputs.probes[cell.probe].role == "retrieval" else None

    def _texts(self, cell: Cell) -> np.ndarray:
        def create() -> Table:
            encoder = self.encoders.encoder(cell.candidate)
            with self.encoders.contained(cell.candidate, f"encoding captions of {cell.probe!r}"):
                return {"features": self.encode_captions(encoder, cell.probe)}, {}

        return self.cache.table("texts", self._texts_key(cell), create)[0]["features"]

    def head(self, candidate: Candidate) -> Head:
        """Return the zero-shot head, encoded once and cached; a tuned candidate's is tuned."""
        head, _ = self.covered_head(candidate)
        return self.tuning(candidate).head(head) if candidate.tuned else head

    def tuning(self, candidate: Candidate) -> Tuning:
        """Return how a candidate's logit scale is tuned on the proxy's pairs, once and cached.

        Raises:
            ProbeError, SettingsError: there are no pairs, or no scale can be told from them.
        """
        key = digest(self.form(candidate)["logit_scale"])
        kept = self.cache.table(
            "logit-scales", key, lambda: ({}, self.fitted(candidate).to_plain())
        )[1]
        return Tuning.read(kept | {"proxy": self.inputs.proxy.name})

    def fitted(self, candidate: Candidate) -> Tuning:
        """Return what `tuning` keeps, fitted now to features of the pairs, which are cached."""
        cell, (head, _) = candidate.on(self.inputs.proxy.name), self.covered_head(candidate)
        return self.tuned(candidate.model, head, self.features(cell), self._texts(cell))

    def tuned(self, model: str, head: Head, images: np.ndarray, texts: np.ndarray) -> Tuning:
        """Return how a head's logit scale is tuned.

        Args:
            model: name of the model.
            head: of any form of it.
            images: image features (N, D) that this form gives the proxy.
            texts: its features (M, D) of the proxy's captions.

        Raises:
            ProbeError: no scale can be told from them.
        """
        loaded, proxy = self.encoders.model(model), self.inputs.proxy
        pairs = pair_features(images, texts, proxy, loaded)
        own, marked = (head.logit_scale, head.logit_bias), self.inputs.proxy_fingerprint
        return tune(pairs, own, proxy, sigmoid=has_bias(loaded.model), marked=marked)

    def covered_head(self, candidate: Candidate) -> tuple[Head, dict[str, Any]]:
        """Return the head as the towers give it, and what their quantizer covers."""
        known = self.inputs.known

        def create() -> Table:
            encoder = self.encoders.encoder(candidate)
            with self.encoders.contained(candidate, "encoding the class prompts"):
                head = encoder.head(known)
            own = np.array([head.logit_scale, head.logit_bias])
            columns = {"embeddings": head.embeddings, "logit_map": own}
            return columns, {"coverage": self.encoders.coverage(candidate)}

        columns, metadata = self.cache.table("head", self.head_key(candidate), create)
        return Head(columns["embeddings"], *columns["logit_map"].tolist()), metadata["coverage"]

    def encoded(self, cell: Cell) -> Encoded:
        """Return everything that one form of a model makes of a probe, each part cached."""
        known, head = (
            self.features(cell.on(self.settings.calibration.name)),
            self.head(cell.candidate),
        )
        self._check_widths(cell.candidate, known, head)
        return Encoded(
            self.features(cell),
            head,
            known,
            self._temperature(cell.candidate, known),
            self.texts(cell),
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

    def prepare(self, cell: Cell) -> None:
        """Have what a quantized model is shown made and kept before it runs, by nobody but clipq.

        Images are decoded, and those made against FP32 are.
        """
        if cell.candidate.is_reference:
            return  # decoded while they are encoded
        model = self.encoders.model(cell.model)
        images = self.inputs.images(cell.probe, model.preprocess)
        attack = self.settings.probe(cell.probe).attack
        if attack is not None and attack.against == FP32:
            from clipq.evaluation.adversarial import attack_reference

            attack_reference(self._fp32(cell), self._attacked(cell, images, attack), self.cache)

    def encode(
        self, encoder: Encoder, cell: Cell, *, key: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        """Return the image features (N, D) that a form of a model gives a cell's probe.

        Where the probe is adversarial, its images are attacked first; with `key`, which identifies
        the encoder, attacked chunks are kept.
        """
        brought = self.encoders.brought(cell)
        if brought is not None:
            return brought
        total, parts, done = len(self.inputs.opened(cell.probe)), [], 0
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
        lines, _ = caption_lines(self.inputs.opened(probe).captions or ())
        return encoder.captions(lines, doing=f"encoding the captions of probe {probe!r}")

    def _batches(
        self, encoder: Encoder, cell: Cell, key: Mapping[str, Any] | None, doing: str
    ) -> Iterator[np.ndarray]:
        """Yield the features (B, D) of a cell's images, attacked first where the probe says so."""
        attack = self.settings.probe(cell.probe).attack
        preprocess = encoder.loaded.preprocess
        if attack is None:
            blocks = self.inputs.blocks(cell.probe, preprocess, encoder.batch_size)
            return encoder.images(blocks, doing=doing)
        from clipq.evaluation.adversarial import Victim, encode_attacked

        probe = self._attacked(cell, self.inputs.images(cell.probe, preprocess), attack)
        contained = partial(self.encoders.contained, cell.candidate, f"attacked on {cell.probe!r}")
        head = self.covered_head(cell.candidate)[0] if key else encoder.head(self.inputs.known)
        shown = Victim(encoder, head, key, contained)
        reference = self._fp32(cell) if attack.against == FP32 else None
        return encode_attacked(shown, probe, self.cache, against=reference)

    def _attacked(self, cell: Cell, images: np.ndarray, attack: AttackSettings) -> AttackedProbe:
        from clipq.evaluation.adversarial import AttackedProbe

        info = self.inputs.sample_info(cell.probe)
        return AttackedProbe(images, info.labels, info.columns, attack, self.identity(cell))

    def _fp32(self, cell: Cell) -> Victim:
        from clipq.evaluation.adversarial import Victim

        fp32 = cell.candidate.reference
        return Victim(self.encoders.encoder(fp32), self.head(fp32), self.encoders.identity(fp32))

    # -- keys and steps ------------------------------------------------------------------------

    def _check_widths(self, candidate: Candidate, features: np.ndarray, head: Head) -> None:
        """Refuse features that cannot be held against FP32's, or against each other."""
        width = self.head(candidate.reference).embeddings.shape[1]
        found = {"image features": features.shape[1], "class embeddings": head.embeddings.shape[1]}
        for what, own in found.items():
            if own != width:
                kind = "artifact" if self.encoders.is_artifact(candidate) else "quantizer"
                raise QuantizerError(
                    f"{kind} {candidate.quantizer!r}: its {what} have {own:,} dimensions, FP32's "
                    f"have {width:,}",
                    hint="features are what comes out of the projection; of several outputs, io "
                    "names the one that holds them",
                )

    def _temperature(self, candidate: Candidate, known: np.ndarray) -> float:
        if candidate not in self._temperatures:
            head, labels = self.head(candidate), self.inputs.known_labels
            self._temperatures[candidate] = calibrated_temperature(known, head, labels)
        return self._temperatures[candidate]

    def _encoder(self, cell: Cell) -> dict[str, Any]:
        return self.encoders.identity(cell.candidate)

    def form(self, candidate: Candidate) -> dict[str, Any]:
        """Return what identifies a candidate beside its weights: encoder, and how it is tuned."""
        encoder = self.encoders.identity(candidate)
        if not candidate.tuned:
            return encoder
        texts = self._texts_key(candidate.on(self.inputs.proxy.name))
        sigmoid = has_bias(self.encoders.model(candidate.model).model)
        return encoder | {"logit_scale": tuning_identity(texts, sigmoid=sigmoid)}

    def _texts_key(self, cell: Cell) -> str:
        return texts_key(self.features_key(cell), self.inputs.opened(cell.probe))

    def head_key(self, candidate: Candidate) -> str:
        """Return the key under which the cache keeps a candidate's zero-shot head."""
        model = model_identity(self.encoders.model(candidate.model))
        return head_key(model, self.inputs.known, self.encoders.identity(candidate))

    def features_key(self, cell: Cell) -> str:
        """Return the key under which the cache keeps a cell's image features."""
        attack = self.settings.probe(cell.probe).attack
        made: dict[str, Any] | None = None
        if attack is not None:
            from clipq.evaluation.attack import attack_identity

            # Adversarial images depend on the head that they mislead.
            made = {"identity": self.identity(cell), **attack_identity(attack)}
        model = model_identity(self.encoders.model(cell.model))
        return features_key(model, self.inputs.opened(cell.probe), self._encoder(cell), attack=made)
