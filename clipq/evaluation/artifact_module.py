"""An artifact in the place of a quantized model: an nn.Module whose towers run elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipq.artifact_settings import BROUGHT, ArtifactSettings, IoSettings
from clipq.errors import ArtifactError
from clipq.evaluation.artifact_files import ArtifactFiles
from clipq.evaluation.tower_process import TowerProcess
from clipq.models import LoadedModel
from clipq.runtimes import TowerPorts
from clipq.runtimes.class_rows import class_rows
from clipq.runtimes.feature_files import UNIT

__all__ = ["ArtifactModule"]


class ArtifactModule(nn.Module):
    """Encodes as open_clip does, in the batches of the artifact.

    Args:
        artifact: what runs.
        files: its files.
        process: its runtime, in which its towers are opened.
        loaded: the FP32 model: preprocessing, and its text tower where the artifact has none.
        batch: samples per call, unless all graphs fix another number; the last call has fewer where
            they take any.
    """

    def __init__(
        self,
        artifact: ArtifactSettings,
        files: ArtifactFiles,
        process: TowerProcess,
        loaded: LoadedModel,
        *,
        batch: int,
    ) -> None:
        super().__init__()
        self._artifact, self._process, self._loaded = artifact, process, loaded
        self.batch = batch
        self.files = files
        self.facts = {
            tower: process.open(path, self._ports(tower, files.function))
            for tower, path in files.towers.items()
            if tower == "text" or artifact.runtime != BROUGHT
        }
        for tower, facts in self.facts.items():
            if facts.batch and artifact.batch and facts.batch != artifact.batch:
                raise ArtifactError(
                    f"artifact {artifact.name!r}: its {tower} graph takes {facts.batch} samples at "
                    f"a time, its batch is said to be {artifact.batch}",
                    hint=f"write batch = {facts.batch}, or export the graph for {artifact.batch}",
                )

        fixed = {facts.batch for facts in self.facts.values()}
        if len(fixed) == 1:
            self.batch = fixed.pop() or batch

    @property
    def io(self) -> IoSettings:
        """What its graphs take and return."""
        return self._artifact.io

    def taking(self, io: IoSettings) -> ArtifactModule:
        """Return the same towers, given something else."""
        other = copy(self)
        other._artifact = replace(self._artifact, io=io)
        return other

    def seconds(self, tower: str, inputs: Tensor) -> float:
        """Return how long one call takes in the process that runs it.

        Args:
            tower: ``image`` or ``text``.
            inputs: images or tokens, one batch.
        """
        given = self._shown(inputs) if tower == "image" else self._read(inputs)
        return self._process.timed(tower, given)[1]

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Return features (N, D) of normalised images (N, 3, H, W)."""
        return self._encoded("image", self._shown(images), images.device, normalize)

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Return features (N, D) of tokens (N, L)."""
        if self._artifact.head:
            raise ArtifactError(
                f"artifact {self._artifact.name!r} has class embeddings and no text tower",
                hint="text = a file, or text = 'fp32', encodes texts",
            )
        if "text" not in self.facts:
            model: Any = self._loaded.model
            features: Tensor = model.encode_text(tokens, normalize=normalize)
            return features
        return self._encoded("text", self._read(tokens), tokens.device, normalize)

    def class_embeddings(self, classnames: Sequence[str]) -> np.ndarray | None:
        """Return the artifact's own class embeddings (C, D), unit length; None if it has a tower.

        Raises:
            ArtifactError: they are not those of these classes.
        """
        return None if self.files.head is None else class_rows(self.files.head, classnames)

    def _encoded(
        self, tower: str, given: dict[str, np.ndarray], device: torch.device, normalize: bool
    ) -> Tensor:
        count, fixed = len(given["input"]), self.facts[tower].batch
        size = fixed or self.batch
        parts = []
        for start in range(0, count, size):
            part = {name: rows[start : start + size] for name, rows in given.items()}
            own = len(part["input"])
            if fixed and own < fixed:  # repeats the last sample; what it gives is left out
                fill = [*range(own), *[own - 1] * (fixed - own)]
                part = {name: rows[fill] for name, rows in part.items()}
            parts.append(
                self._checked(tower, self._process.run(tower, part), len(part["input"]))[:own]
            )
        found = torch.from_numpy(np.concatenate(parts)).to(device)
        return nn.functional.normalize(found, dim=-1) if normalize else found

    def _checked(self, tower: str, features: np.ndarray, rows: int) -> np.ndarray:
        name = self._artifact.name
        if features.ndim != 2 or len(features) != rows:
            raise ArtifactError(
                f"artifact {name!r}: its {tower} graph returned an array {features.shape} for "
                f"{rows} samples",
                hint=f"io = {{ {tower}_output = ... }} names the output with one row per sample",
            )
        features = features.astype(np.float32, copy=False)
        if self._artifact.io.output == "normalised":
            lengths = np.linalg.norm(features, axis=1)
            if np.abs(lengths - 1.0).max(initial=0.0) > UNIT:
                raise ArtifactError(
                    f"artifact {name!r}: features of its {tower} graph are said to be normalised "
                    f"and are {lengths.max():.3g} long",
                    hint="write io = { output = 'features' }",
                )
        return features

    def _shown(self, images: Tensor) -> dict[str, np.ndarray]:
        io = self._artifact.io
        shown = images
        if io.pixels != "normalised":
            shown = self._loaded.preprocess.pixels_of(images)
        if io.pixels == "bytes":
            shown = shown.mul(255.0).round().clamp(0, 255).to(torch.uint8)
        if io.layout == "NHWC":
            shown = shown.permute(0, 2, 3, 1)
        return {"input": shown.detach().cpu().contiguous().numpy()}

    def _read(self, tokens: Tensor) -> dict[str, np.ndarray]:
        given = {"input": tokens.cpu().numpy().astype(self._artifact.io.text_dtype)}
        if self._artifact.io.mask_input:
            text = getattr(self._loaded.model, "text", self._loaded.model)
            given["mask"] = _mask(given["input"], int(getattr(text, "pad_id", 0)))
        return given

    def _ports(self, tower: str, function: str) -> TowerPorts:
        io = self._artifact.io
        if tower == "image":
            return TowerPorts("image", io.image_input, "", io.image_output, function)
        return TowerPorts("text", io.text_input, io.mask_input, io.text_output, function)


def _mask(tokens: np.ndarray, padding: int) -> np.ndarray:
    """Return 1 where a token is and 0 in the padding behind the last, (N, L)."""
    places = np.arange(tokens.shape[1])
    last = np.where(tokens != padding, places, 0).max(axis=1)
    mask: np.ndarray = (places <= last[:, None]).astype(tokens.dtype)
    return mask
