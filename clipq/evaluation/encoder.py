"""One form of a model, FP32, quantized or exported: what makes features of images and texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from torch import nn

from clipq.data import Probe
from clipq.errors import ClipqError, QuantizerError
from clipq.evaluation.artifact_module import ArtifactModule
from clipq.evaluation.encode import encode_blocks, encode_texts
from clipq.evaluation.predict import Head
from clipq.models import LoadedModel, class_embeddings, logit_map

__all__ = ["Encoder"]


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """Encodes with one form of a model; whatever that raises names the quantizer.

    Args:
        name: what it is called in messages: ``quantizer 'rtn:w8'``, ``artifact 'ort-int8'``.
        module: the form of the model.
        loaded: the FP32 model that it was made of, with tokenizer and preprocessing.
        device: where `module` is.
        batch_size: images, prompts and captions that it is given at a time.
    """

    name: str
    module: nn.Module
    loaded: LoadedModel
    device: str
    batch_size: int

    def images(self, blocks: Iterable[np.ndarray], *, doing: str) -> Iterator[np.ndarray]:
        """Yield image features (B, D), float32, not normalised, of uint8 blocks (B, H, W, 3).

        Args:
            blocks: preprocessed images.
            doing: what an error says was being done.

        Raises:
            QuantizerError: the form of the model fails.
        """
        with self.naming(doing):
            yield from encode_blocks(
                self.module, blocks, self.loaded.preprocess, device=self.device
            )

    def head(self, known: Probe) -> Head:
        """Return the zero-shot head of a probe's classes and templates.

        Raises:
            QuantizerError: the form of the model fails.
        """
        own: np.ndarray | None = None
        if isinstance(self.module, ArtifactModule):
            own = self.module.class_embeddings(known.classnames)
        if own is not None:
            return Head(own, *self.loaded.logit_map)
        with self.naming("encoding the class prompts"):
            embeddings = class_embeddings(
                self.module,
                self.loaded.tokenizer,
                known.classnames,
                known.templates,
                batch_size=self.batch_size,
                device=self.device,
            ).numpy(force=True)
            # A quantizer may tune the scale: the logits are then its own.
            tuned = hasattr(self.module, "logit_scale")
            scaled = logit_map(self.module) if tuned else self.loaded.logit_map
        return Head(embeddings, *scaled)

    def captions(self, lines: Sequence[str], *, doing: str) -> np.ndarray:
        """Return caption features (M, D), float32, not normalised.

        Raises:
            QuantizerError: the form of the model fails.
        """
        tokens = self.loaded.tokenizer(list(lines))
        with self.naming(doing):
            return encode_texts(self.module, tokens, batch_size=self.batch_size, device=self.device)

    @contextmanager
    def naming(self, doing: str) -> Iterator[None]:
        """Turn whatever the form of the model raises into an error that names the quantizer."""
        try:
            yield
        except ClipqError:
            raise
        except Exception as error:
            raise QuantizerError(
                f"{self.name} failed while {doing}: {type(error).__name__}: {error}",
                hint="encode_image and encode_text must work as the FP32 model's do",
            ) from error
