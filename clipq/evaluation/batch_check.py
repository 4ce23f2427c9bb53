"""The gate's side of batch dependence: some samples of each candidate, in other batches.

A candidate that fails is refused before any of its predictions is kept, so that predictions that
are kept need no second look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.cases import Candidate, Cell
from clipq.errors import QuantizerError
from clipq.evaluation.batch_dependence import arrange, check_batches, noise_beside
from clipq.evaluation.cache import Table
from clipq.evaluation.encodings import Encodings
from clipq.provenance import digest

if TYPE_CHECKING:
    import torch

    from clipq.evaluation.encoder import Encoder

__all__ = ["BatchCheck"]

_VERSION = 1
"""Bumped when what is kept of a candidate changes."""
_SAMPLES = 32
_TEXTS = 64
_IMAGES, _PROMPTS = "images", "class prompts"

Features = dict[str, np.ndarray]


class BatchCheck:
    """Encodes some samples of each candidate in other batches than a cell does.

    Images are spread over the in-distribution probe, texts over the first class prompts.

    Args:
        encodings: where candidates' features come from.

    >>> from pathlib import Path
    >>> from clipq.evaluation.evaluator import Evaluator
    >>> from clipq.settings import load_settings
    >>> evaluator = Evaluator(load_settings(Path("clipq.toml")))
    >>> BatchCheck(evaluator.encodings).check(Candidate("vit-clean", "rtn:w8a8d"))
    """

    def __init__(self, encodings: Encodings) -> None:
        self.encodings = encodings
        self._passed: set[Candidate] = set()

    def check(self, candidate: Candidate) -> None:
        """Refuse a candidate whose features depend on the batch.

        Raises:
            QuantizerError: they do, or it fails on another batch size than the settings'.
        """
        if candidate in self._passed or candidate.is_reference:
            return
        fp32 = self._arranged(candidate.reference, None)
        found = self._arranged(candidate, fp32)
        try:
            for of in fp32:
                check_batches(candidate.quantizer, of, found[of], fp32[of])
        except QuantizerError as error:
            self.encodings.encoders.refuse(candidate, error)
            raise
        self._passed.add(candidate)

    def _arranged(
        self, candidate: Candidate, fp32: dict[str, Features] | None
    ) -> dict[str, Features]:
        cell = candidate.on(self.encodings.settings.in_distribution.name)
        made = [self.encodings.features_key(cell), self.encodings.head_key(candidate), _VERSION]
        columns, _ = self.encodings.cache.table(
            "batches", digest(made), lambda: self._encoded(cell, fp32)
        )
        found: dict[str, Features] = {}
        for name, features in columns.items():
            of, _, arrangement = name.partition(".")
            found.setdefault(of, {})[arrangement] = features
        return found

    def _encoded(self, cell: Cell, fp32: dict[str, Features] | None) -> Table:
        encodings, together = self.encodings, self.encodings.features(cell)
        encoder = encodings.encoders.encoder(cell.candidate)
        images, texts = self._inputs(cell, encoder)
        rows = np.linspace(0, len(together) - 1, min(_SAMPLES, len(together))).round().astype(int)
        chosen = images(rows)
        noise = {} if fp32 is None else {of: noise_beside(fp32[of]) for of in fp32}
        with (
            encodings.encoders.contained(cell.candidate, "encoding other batches"),
            encoder.naming("encoding other batches"),
        ):
            found = {
                _IMAGES: arrange(
                    lambda positions: _features(encoder.module.encode_image, chosen[positions]),
                    together[rows],
                    disturbed=_noisy_images(encoder, chosen, noise.get(_IMAGES)),
                ),
                _PROMPTS: _arranged_texts(encoder, texts, noise.get(_PROMPTS)),
            }
        flat = {
            f"{of}.{arrangement}": features
            for of, arrangements in found.items()
            for arrangement, features in arrangements.items()
        }
        return flat, {}

    def _inputs(
        self, cell: Cell, encoder: Encoder
    ) -> tuple[Callable[[np.ndarray], torch.Tensor], torch.Tensor]:
        """Return what gives normalised images by their positions, and the first prompts' tokens."""
        from clipq.models import prompt_tokens

        known, loaded = self.encodings.inputs.known, encoder.loaded
        pixels = self.encodings.inputs.images(cell.probe, loaded.preprocess)
        templates = known.templates[: max(1, _TEXTS // len(known.classnames))]
        tokens = prompt_tokens(loaded.tokenizer, known.classnames[:_TEXTS], templates)

        def images(rows: np.ndarray) -> torch.Tensor:
            return loaded.preprocess.normalise(np.asarray(pixels[rows])).to(encoder.device)

        return images, tokens[:_TEXTS].to(encoder.device)


def _features(encode: Any, inputs: torch.Tensor) -> np.ndarray:
    import torch

    with torch.inference_mode():
        features: np.ndarray = encode(inputs).float().cpu().numpy()
    return features


def _arranged_texts(encoder: Encoder, tokens: torch.Tensor, noise: float | None) -> Features:
    encode: Any = encoder.module.encode_text
    together = _features(encode, tokens)
    rows = np.linspace(0, len(tokens) - 1, min(_SAMPLES, len(tokens))).round().astype(int)
    chosen = tokens[rows]

    def disturbed(positions: np.ndarray) -> np.ndarray:
        with _noisy_embeddings(encoder.module, noise or 0.0):
            return _features(encode, chosen[positions])

    return arrange(
        lambda positions: _features(encode, chosen[positions]),
        together[rows],
        disturbed=None if noise is None else disturbed,
    )


def _noisy_images(
    encoder: Encoder, chosen: torch.Tensor, noise: float | None
) -> Callable[[np.ndarray], np.ndarray] | None:
    if noise is None:
        return None
    size = noise

    def encode(positions: np.ndarray) -> np.ndarray:
        return _features(encoder.module.encode_image, _disturbed(chosen[positions], size))

    return encode


def _disturbed(values: torch.Tensor, noise: float) -> torch.Tensor:
    """Return values that each differ by a relative normal error of that size, always the same."""
    import torch

    drawn = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    return values * (1.0 + noise * drawn.to(values.device, values.dtype))


@contextmanager
def _noisy_embeddings(model: torch.nn.Module, noise: float) -> Iterator[None]:
    """Let token embeddings differ by float noise: tokens themselves are whole numbers."""
    from torch import nn

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, found: _disturbed(found, noise))
        for module in model.modules()
        if isinstance(module, nn.Embedding)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
