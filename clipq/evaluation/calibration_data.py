"""What quantizers and recipes calibrate with: images of a split, and prompts or captions."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from clipq.evaluation.encode import image_batches
from clipq.evaluation.inputs import Inputs, caption_lines
from clipq.models import LoadedModel, prompt_tokens
from clipq.quant import Calibration

__all__ = ["calibration_data"]


def calibration_data(
    inputs: Inputs, loaded: LoadedModel, *, batch_size: int, device: str = "cpu"
) -> Calibration:
    """Return a model's calibration data, in batches that are read again from the start per call.

    Texts are the split's captions where it has any, else the prompts of the head's classes.

    Args:
        inputs: the calibration split.
        loaded: whose preprocessing and tokenizer are used.
        batch_size: images, and texts, of one batch.
        device: where batches go.
    """
    probe, asked = inputs.calibration, inputs.calibration_prompts
    images, captions = inputs.images(probe.name, loaded.preprocess), probe.captions
    seen = inputs.calibration_positions
    if seen is not None:
        images = images[list(seen)]
        captions = captions and tuple(captions[position] for position in seen)
    tokens = (
        loaded.tokenizer(caption_lines(captions)[0])
        if captions
        else prompt_tokens(loaded.tokenizer, asked.classnames, asked.templates)
    )

    def texts() -> Iterator[torch.Tensor]:
        for start in range(0, len(tokens), batch_size):
            yield tokens[start : start + batch_size].to(device)

    return Calibration(
        images=lambda: image_batches(
            images, loaded.preprocess, batch_size=batch_size, device=device
        ),
        texts=texts,
    )
