"""The gate's side of batch dependence: some samples of each candidate, in other batches.

A candidate that fails is refused before any of its predictions is kept, so that predictions that
are kept need no second look.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.cases import Candidate, Cell
from clipq.errors import QuantizerError
from clipq.evaluation.batch_dependence import (
    arrange,
    batch_findings,
    check_batches,
    noise_beside,
)
from clipq.evaluation.cache import Table
from clipq.evaluation.encodings import Encodings
from clipq.provenance import digest
from clipq.runtimes import Finding

if TYPE_CHECKING:
    import torch

    from clipq.evaluation.encoder import Encoder

__all__ = ["BatchCheck"]

_VERSION = 1
"""Bumped when what is kept of a candidate changes."""
_SAMPLES = {"images": 32, "class prompts": 16}
_TEXTS = 32
_IMAGES, _PROMPTS = "images", "class prompts"

Features = dict[str, np.ndarray]


class BatchCheck:
    """Encodes some samples of each candidate in other batches than a cell does.

    Images are spread over the calibration split, which any cell needs, texts over the first class
    prompts.

    Args:
        encodings: where candidates' features come from.

    >>> from pathlib import Path
    >>> from clipq.evaluation.evaluator import Evaluator
    >>> from clipq.settings import load_settings
    >>> evaluator = Evaluator(load_settings(Path("clipq.toml")))
    >>> BatchCheck(evaluator.encodings).check(Candidate("vit-clean", "rtn:w8a8d"))  # of artifacts
    ()
    """

    def __init__(self, encodings: Encodings) -> None:
        self.encodings = encodings
        self._found: dict[Candidate, tuple[Finding, ...]] = {}

    def check(self, candidate: Candidate) -> tuple[Finding, ...]:
        """Refuse a quantizer whose features depend on the batch; say where an artifact's do.

        An artifact is judged in the batches that it is deployed with, so that it may depend on
        them: whoever deploys it otherwise has to know.

        Raises:
            QuantizerError: a quantizer's do, or it fails on another batch size than the settings'.
        """
        candidate = candidate.base
        if candidate not in self._found:
            self._found[candidate] = () if candidate.is_reference else self._looked(candidate)
        return self._found[candidate]

    def prepare(self, reference: Candidate) -> None:
        """Have FP32's features made and kept, which every candidate of a model is held against."""
        self._arranged(reference, None)

    def _looked(self, candidate: Candidate) -> tuple[Finding, ...]:
        fp32 = self._arranged(candidate.reference, None)
        found = self._arranged(candidate, fp32)
        # What is not finite metrics say themselves.
        sound = [of for of in found if np.isfinite(found[of]["together"]).all()]
        if self.encodings.encoders.is_artifact(candidate):
            batch = self.encodings.covered_head(candidate)[1]["batch"]
            return batch_findings({of: (found[of], fp32[of]) for of in sound}, batch)
        try:
            for of in sound:
                check_batches(candidate.quantizer, of, found[of], fp32[of])
        except QuantizerError as error:
            self.encodings.encoders.refuse(candidate, error)
            raise
        return ()

    def _arranged(
        self, candidate: Candidate, fp32: dict[str, Features] | None
    ) -> dict[str, Features]:
        cell = candidate.on(self.encodings.settings.calibration.name)
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
        from clipq.evaluation.artifact_module import ArtifactModule

        encodings = self.encodings
        encoder = encodings.encoders.encoder(cell.candidate)
        model: Any = encoder.module
        large = encodings.features(cell)
        rows = _spread(_IMAGES, len(large))
        images, texts = self._images(cell, encoder, rows), self._texts(encoder)
        runs = tuple(model.facts) if isinstance(model, ArtifactModule) else ("image", "text")
        with (
            encodings.encoders.contained(cell.candidate, "encoding other batches"),
            encoder.naming("encoding other batches"),
        ):
            some = _spread(_PROMPTS, len(texts))
            shown = {}
            if "image" in runs:
                shown[_IMAGES] = model.encode_image, images, large[rows]
            if "text" in runs:
                prompts = _features(model.encode_text, texts)[some]
                shown[_PROMPTS] = model.encode_text, texts[some], prompts
            found = {
                f"{of}.{arrangement}": features
                for of, (encode, inputs, together) in shown.items()
                for arrangement, features in arrange(
                    partial(_encode, encode, inputs),
                    together,
                    disturbed=None
                    if fp32 is None
                    else partial(_disturbed, model, encode, inputs, noise_beside(fp32[of])),
                ).items()
            }
        return found, {}

    def _images(self, cell: Cell, encoder: Encoder, rows: np.ndarray) -> torch.Tensor:
        preprocess = encoder.loaded.preprocess
        pixels = self.encodings.inputs.images(cell.probe, preprocess)
        return preprocess.normalise(np.asarray(pixels[rows])).to(encoder.device)

    def _texts(self, encoder: Encoder) -> torch.Tensor:
        """Return the tokens of the first class prompts."""
        from clipq.models import prompt_tokens

        known = self.encodings.inputs.known
        templates = known.templates[: max(1, _TEXTS // len(known.classnames))]
        tokens = prompt_tokens(encoder.loaded.tokenizer, known.classnames[:_TEXTS], templates)
        return tokens[:_TEXTS].to(encoder.device)


def _spread(of: str, count: int) -> np.ndarray:
    """Return the positions of the samples that are encoded again."""
    return np.linspace(0, count - 1, min(_SAMPLES[of], count)).round().astype(int)


def _features(encode: Any, inputs: torch.Tensor) -> np.ndarray:
    from clipq.evaluation.encode import encoded_once

    return encoded_once(encode, inputs)


def _encode(encode: Any, inputs: torch.Tensor, positions: np.ndarray) -> np.ndarray:
    return _features(encode, inputs[positions])


def _disturbed(
    model: torch.nn.Module,
    encode: Any,
    inputs: torch.Tensor,
    noise: float,
    positions: np.ndarray,
) -> np.ndarray:
    """Return features with a relative normal error, always the same, in each layer's output.

    Not in the inputs alone: a flat background lies on the edge of two codes there, and all of it
    would fall over the edge, as no order of sums lets it.
    """
    import torch

    def disturb(_module: Any, _inputs: Any, output: Any) -> Any:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return output
        drawn = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
        return output * (1.0 + noise * drawn.to(output.device, output.dtype))

    hooks = [
        module.register_forward_hook(disturb)
        for module in model.modules()
        if not any(True for _ in module.children())
        and not isinstance(module, torch.jit.ScriptModule)  # takes no hooks
    ]
    try:
        return _features(encode, inputs[positions])
    finally:
        for hook in hooks:
            hook.remove()
