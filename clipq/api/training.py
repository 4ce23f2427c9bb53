"""A quantizer trained on pairs of the caller's own: no project, no settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.api.arguments import Data, Model, as_model, as_pairs, as_probe, pixels_of
from clipq.data import taken
from clipq.evaluation.trained_folder import TrainedFolder
from clipq.quant import QuantizerSpec

if TYPE_CHECKING:
    import torch

    from clipq.data import Probe
    from clipq.evaluation.proxy_pairs import Pairs
    from clipq.evaluation.trained_manifest import TrainedManifest
    from clipq.models import LoadedModel
    from clipq.quant import Calibration, Quantized
    from clipq.training.training_outcome import TrainingProgress

__all__ = ["Trained", "train"]

_CALIBRATION = 512


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained quantizer, and the model that it was trained from.

    Args:
        folder: where it lies: `clipq.quantize` and `clipq.evaluate` take it as `trained`.
        manifest: recipe, data, losses, versions, hashes.

    >>> from pathlib import Path
    >>> from clipq.evaluation.trained_manifest import TrainedManifest
    >>> from clipq.evaluation.training_unit import TrainingUnit
    >>> unit = TrainingUnit("vit", "lsq:w4a8", {}, {}, {})
    >>> trained = Trained(Path("trained/vit"), TrainedManifest(unit, "0" * 64), None, None)
    >>> trained.manifest.quantizer
    'lsq:w4a8'
    """

    folder: Path
    manifest: TrainedManifest
    _model: LoadedModel
    _calibration: Calibration

    def quantized(self) -> Quantized:
        """Return the quantized model, in evaluation mode, and how much of it is quantized.

        Raises:
            QuantizerError: the folder was damaged since, or the model changed.
        """
        from clipq.quant import quantize

        state = TrainedFolder.read(self.folder).state()
        data = replace(self._calibration, trained=state)
        return quantize(self._model.model, self.manifest.quantizer, data)


def train(
    model: Model,
    quantizer: str | QuantizerSpec,
    proxy: Data,
    *,
    output: str | Path,
    captions: Sequence[str] = (),
    calibration: Data | None = None,
    tokenizer: Callable[[list[str]], Any] | None = None,
    device: str = "cpu",
    batch_size: int = 64,
    threads: int = 1,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> Trained:
    """Train a quantizer of a model on image-caption pairs; go on where it was interrupted.

    A folder that holds the same training, finished, is returned as it is.

    Args:
        model: an open_clip source as text, or an open_clip module in memory, which stays as it is.
        quantizer: a trained one, or its text, which says how: ``lsq:w4a8,objective=distil,seed=1``.
        proxy: images to train on, which nothing may be evaluated on: what `clipq.open_probe`
            returns, the text of a probe source (split ``train``), or `clipq.Images`.
        output: a folder, which is made: a new one, an empty one, or one of the same training.
        captions: of the images, where they have none of their own; several of one are lines.
        calibration: images that steps and ranges begin from; by default, the first 512 pairs.
        tokenizer: of a module in memory whose vocabulary is not CLIP's.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        batch_size: of calibration.
        threads: while it is trained.
        progress: called after each step.

    Returns:
        The folder, what it says, and the quantized model when it is asked for.

    Raises:
        QuantizerError: the quantizer learns nothing, or the folder holds something else.
        ProbeError: there are no captions, or pairs that nothing can be learnt from.
        TrainingError: losses or steps explode, or there are fewer pairs than a batch.
        ModelError: the model cannot be used.

    >>> import tempfile
    >>> import clipq
    >>> pairs = clipq.open_probe("webdataset:fixtures/data/captions", split="test", role="proxy")
    >>> short = "lsq:w4a8,learn=steps,steps=2,pairs=32,batch=8@vision"
    >>> with tempfile.TemporaryDirectory() as place:
    ...     made = clipq.train("local-dir:fixtures/models/vit-clean", short, pairs, output=place)
    ...     made.manifest.steps, made.quantized().coverage.uncovered
    (2, ())
    """
    from clipq.evaluation.identity import model_identity
    from clipq.evaluation.trained_search import refuse_untrained
    from clipq.evaluation.training_code import training_code
    from clipq.evaluation.training_run import (
        TrainingData,
        first_pairs,
        objective_of,
        recipe_of,
        train_unit,
    )
    from clipq.evaluation.training_unit import TrainingUnit

    spec = QuantizerSpec.parse(refuse_untrained(str(quantizer)))
    recipe, code = recipe_of(spec), training_code(str(spec), objective_of(spec))
    probe = as_pairs(proxy, name="proxy", captions=captions)
    probe = taken(probe, first_pairs(probe.sample_hashes, int(recipe["pairs"])))
    loaded = as_model(model, tokenizer=tokenizer, device=device)
    pairs = _pairs(probe, loaded)
    first, pixels = taken(probe, range(min(_CALIBRATION, len(probe)))), pairs.images[:_CALIBRATION]
    if calibration is not None:
        first = as_probe(calibration, name="calibration", role="ood")  # labels are not needed
        pixels = pixels_of(first, loaded)
    lines = pairs.captions[:_CALIBRATION]
    data = TrainingData(
        probe.name,
        pairs,
        probe.sample_hashes,
        _calibration(pixels, lines, loaded, device, batch_size),
    )
    with _prepared_process(str(spec), device, threads, batch_size) as machine:
        unit = TrainingUnit(
            model.rstrip("/").rpartition("/")[2] if isinstance(model, str) else "in-memory",
            str(spec),
            recipe,
            model_identity(loaded),
            {"proxy": pairs.fingerprint, "calibration": first.fingerprint},
            code,
            machine,
        )
        found = train_unit(
            unit, loaded, data, Path(output), device=device, progress=progress or _silent
        )
    return Trained(found.path, found.manifest, loaded, data.calibration)


def _silent(at: TrainingProgress) -> None:
    """Tell nobody."""


def _pairs(probe: Probe, loaded: LoadedModel) -> Pairs:
    from clipq.evaluation.inputs import caption_lines
    from clipq.evaluation.proxy_pairs import Pairs
    from clipq.provenance import digest

    lines, owners = caption_lines(probe.captions or ())
    known = digest([probe.fingerprint, probe.captions])
    return Pairs(pixels_of(probe, loaded), tuple(lines), owners, probe.ids, known)


def _calibration(
    images: np.ndarray, lines: Sequence[str], loaded: LoadedModel, device: str, size: int
) -> Calibration:
    """Return what a quantizer is initialised with, of pixels (N, H, W, 3) and texts."""
    from clipq.evaluation.encode import image_batches
    from clipq.quant import Calibration

    tokens = loaded.tokenizer(list(lines))

    def texts() -> Iterator[torch.Tensor]:
        for start in range(0, len(tokens), size):
            yield tokens[start : start + size].to(device)

    preprocess = loaded.preprocess
    return Calibration(
        lambda: image_batches(images, preprocess, batch_size=size, device=device), texts
    )


@contextmanager
def _prepared_process(
    quantizer: str, device: str, threads: int, batch_size: int
) -> Iterator[dict[str, str | int]]:
    """Seed this process's generators and set its threads for a while; yield what it is."""
    import torch

    from clipq.evaluation.encode import environment, pin_threads
    from clipq.evaluation.seeding import seeded

    before = torch.get_num_threads()
    pin_threads(threads)
    try:
        with seeded(f"{quantizer} being trained"):  # as a gate does
            yield environment(device=device, threads=threads, batch_size=batch_size)
    finally:
        pin_threads(before)
