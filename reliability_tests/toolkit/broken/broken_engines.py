"""Quantizers whose weights are right, and whose engine is not."""

from __future__ import annotations

from typing import Any

import torch
from faithful_quantizers import (
    LEVELS,
    as_claimed,
    broken,
    change_weights,
    claiming,
    replace_images,
)
from torch import Tensor


@broken
def half_of_the_samples_skipped(model, spec, calibration):
    """Every second image gets its neighbour's features."""
    change_weights(model)

    def encode(original, images):
        found = original(images[::2])
        return found.repeat_interleave(2, 0)[: len(images)]

    return replace_images(model, encode)


@broken
def last_batch_row_dropped(model, spec, calibration):
    """One sixteenth of each batch is padding that was never filled."""
    change_weights(model)

    def encode(original, images):
        found = original(images)
        found[::16] = 0
        return found

    return replace_images(model, encode)


@broken
def rows_depend_on_the_batch(model, spec, calibration):
    """Statistics of the whole batch leak into each row."""
    change_weights(model)

    def encode(original, images):
        found = original(images)
        return found - 0.7 * found.mean(0, keepdim=True)

    return replace_images(model, encode)


@broken
def colours_swapped(model, spec, calibration):
    """BGR images."""
    change_weights(model)
    return replace_images(model, lambda original, images: original(images.flip(1)))


@broken
def normalised_twice(model, spec, calibration):
    """The exported graph normalises, and so does the pipeline."""
    change_weights(model)
    return replace_images(model, lambda original, images: original((images - 0.45) / 0.27))


@broken
def nan_in_one_row(model, spec, calibration):
    """One sample overflows."""
    change_weights(model)

    def encode(original, images):
        found = original(images)
        found[0, 0] = float("nan")
        return found

    return replace_images(model, encode)


@broken
def features_collapsed(model, spec, calibration):
    """All images look nearly alike."""
    change_weights(model)

    def encode(original, images):
        found = original(images)
        return found[:1] + 1e-3 * found

    return replace_images(model, encode)


@broken
def features_saturated(model, spec, calibration):
    """Output features clipped to a range that only the middle of them fits."""
    change_weights(model)

    def encode(original, images):
        found = original(images)
        top = found.abs().mean() * 0.5
        return found.clamp(-top, top)

    return replace_images(model, encode)


@broken
def softmax_temperature_lost(model, spec, calibration):
    """The logit scale is not exported."""
    change_weights(model)
    model.logit_scale.data.zero_()
    return model


@broken
def labels_permuted(model, spec, calibration):
    """Class embeddings are stored in another order."""
    change_weights(model)
    original = model.encode_text
    model.encode_text = lambda text, normalize=False: original(text).flip(0)
    return model


@broken
def nothing_done(model, spec, calibration):
    """Returns the model as it came."""
    return model


@broken
def everything_zeroed(model, spec, calibration):
    """A scale far above the data."""
    return change_weights(model, torch.zeros_like)


@broken
def falls_over(model, spec, calibration):
    """Raises in the middle."""
    raise RuntimeError("no kernel image is available")


@claiming("w8a8")
def small_batches_take_another_path(model, spec, calibration):
    """A kernel for at most eight rows reads the first row's scale for all of them."""
    as_claimed(model, calibration)

    def encode(original, images):
        found = original(images)
        if 1 < len(images) <= 8:
            size = found.abs().amax(-1, keepdim=True)
            found = (found / size * 15).round() / 15 * size[:1]
            found = found + 0.2 * found[:1]
        return found

    return replace_images(model, encode)


@claiming("w8a8")
def last_partial_batch_reversed(model, spec, calibration):
    """A batch that is no multiple of 32 is padded, and its rows are taken from the end."""
    as_claimed(model, calibration)

    def encode(original, images):
        found = original(images)
        return found.flip(0) if len(images) % 32 and len(images) > 1 else found

    return replace_images(model, encode)


@claiming("w8a8")
def ranges_of_the_whole_batch(model, spec, calibration):
    """Dynamic scales over the batch, at the output, where one bright image coarsens all."""
    as_claimed(model, calibration)

    def encode(original, images):
        found = original(images)
        scale = found.abs().amax() / 7
        return (found / scale).round() * scale

    return replace_images(model, encode)


@claiming("w8a8")
def features_of_an_earlier_batch(model, spec, calibration):
    """A buffer is reused before it was read: every fifth batch of a shape is the one before."""
    as_claimed(model, calibration)
    kept: dict[Any, tuple[int, Tensor]] = {}

    def encode(original, images):
        count, last = kept.get(images.shape, (0, None))
        found = last if last is not None and count % 5 == 4 else original(images)
        kept[images.shape] = count + 1, found
        return found

    return replace_images(model, encode)


@broken
def every_sixteenth_caption_is_its_neighbour(model, spec, calibration):
    """One row of a tile of texts is written twice."""
    change_weights(model)
    original = model.encode_text

    def encode(texts, normalize=False):
        found = original(texts).clone()
        found[15::16] = found[14::16][: len(found[15::16])]
        return found

    model.encode_text = encode
    return model


@claiming("w8a8")
def pixels_transposed(model, spec, calibration):
    """Rows and columns of images are exchanged."""
    as_claimed(model, calibration)
    return replace_images(model, lambda original, images: original(images.transpose(2, 3)))


@claiming("w8a8")
def bright_pixels_clipped(model, spec, calibration):
    """Inputs are clamped to [-1, 1], where normalised images reach two."""
    as_claimed(model, calibration)
    return replace_images(model, lambda original, images: original(images.clamp(-1, 1)))


@claiming("w8a8")
def images_moved_by_two_pixels(model, spec, calibration):
    """The patch embedding pads on one side."""
    as_claimed(model, calibration)
    return replace_images(model, lambda original, images: original(images.roll((2, 2), (2, 3))))


@claiming("w8a8")
def text_read_one_token_early(model, spec, calibration):
    """Texts are pooled before their end: token lists arrive without their last word."""
    as_claimed(model, calibration)
    original = model.encode_text

    def encode(texts, normalize=False):
        ends = texts.argmax(1)
        shorter = texts.clone()
        rows = torch.arange(len(texts))
        shorter[rows, ends - 1] = texts[rows, ends]
        shorter[rows, ends] = 0
        return original(shorter)

    model.encode_text = encode
    return model


@claiming("w8a8")
def features_in_four_bits(model, spec, calibration):
    """Embeddings are stored in 4 bits, which nobody asked for."""
    as_claimed(model, calibration)

    def encode(original, images):
        found = original(images)
        scale = found.abs().amax(-1, keepdim=True) / (LEVELS // 16)
        return (found / scale).round() * scale

    return replace_images(model, encode)
