"""Which modules belong to which tower, and how a tower is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.methods import Calibration
from clipq.quant.spec import Towers

__all__ = [
    "covers_images",
    "covers_texts",
    "encode_batches",
    "image_batches",
    "in_towers",
    "named_sites",
    "text_batches",
    "tower_batches",
]

# CoCa's captioning decoder and the loss scale take no part in encode_image or encode_text.
_OUTSIDE = ("text_decoder",)


def covers_images(towers: Towers) -> bool:
    """Whether the vision tower is selected.

    >>> covers_images("both"), covers_images("text")
    (True, False)
    """
    return towers != "text"


def covers_texts(towers: Towers) -> bool:
    """Whether the text tower is selected.

    >>> covers_texts("both"), covers_texts("vision")
    (True, False)
    """
    return towers != "vision"


def in_towers(name: str, towers: Towers) -> bool:
    """Whether the module or parameter called `name` belongs to the selected towers.

    The vision tower is `visual`; the text tower is the rest, which is `text` in `CustomTextCLIP`
    and CoCa, and `transformer`, `text_projection` … in `CLIP`.

    >>> in_towers("visual.conv1", "vision"), in_towers("text_projection", "vision")
    (True, False)
    """
    top = name.partition(".")[0]
    if top in _OUTSIDE:
        return False
    return covers_images(towers) if top == "visual" else covers_texts(towers)


def named_sites(
    model: nn.Module, towers: Towers
) -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
    """Yield (name, parent, attribute, child) of every place that holds a module in the towers.

    A module used in two places is yielded twice, so that it can be replaced in both.

    >>> from clipq.testing import small_clip
    >>> [name for name, _, _, _ in named_sites(small_clip(), "vision")][:3]
    ['visual', 'visual.conv1', 'visual.patch_dropout']
    """
    parents = list(model.named_modules(remove_duplicate=False))
    for prefix, parent in parents:
        for attribute, child in list(parent.named_children()):
            name = f"{prefix}.{attribute}" if prefix else attribute
            if in_towers(name, towers):
                yield name, parent, attribute, child


def encode_batches(
    model: nn.Module,
    towers: Towers,
    calibration: Calibration,
    *,
    until: type[Exception] | None = None,
) -> Iterator[Tensor | None]:
    """Run the selected towers over the calibration data; yield the features of each batch.

    Args:
        model: an open_clip model.
        towers: which to run.
        calibration: the data.
        until: an exception that a hook raises to end a batch early; None is yielded for it.

    Raises:
        QuantizerError: a tower is selected for which there is no data, or data are misshapen.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> data = SmallInputs(count=4).calibration  # batches of at most three
    >>> [tuple(features.shape) for features in encode_batches(small_clip(), "both", data)]
    [(3, 24), (1, 24), (3, 24), (1, 24)]
    """
    ended = until or ()
    for encode, batches in tower_batches(model, towers, calibration):
        for batch in batches:
            try:
                yield encode(batch)
            except ended:
                yield None


def tower_batches(
    model: nn.Module, towers: Towers, calibration: Calibration
) -> Iterator[tuple[Callable[[Tensor], Tensor], Iterator[Tensor]]]:
    """Yield each selected tower's encode function and its batches, read when they are asked for.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> towers = tower_batches(small_clip(), "both", SmallInputs().calibration)
    >>> [(encode.__name__, len(list(batches))) for encode, batches in towers]
    [('encode_image', 2), ('encode_text', 2)]
    """
    if covers_images(towers):
        yield cast(Any, model.encode_image), image_batches(model, calibration)
    if covers_texts(towers):
        yield cast(Any, model.encode_text), text_batches(model, calibration)


def image_batches(model: nn.Module, calibration: Calibration) -> Iterator[Tensor]:
    """Yield image batches (N, 3, H, W) on the model's device, in its floating-point type.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> model, data = small_clip().bfloat16(), SmallInputs().calibration
    >>> [(tuple(batch.shape), batch.dtype) for batch in image_batches(model, data)][0]
    ((3, 3, 32, 32), torch.bfloat16)
    """
    reference = next(_vision_tower(model).parameters())
    batch = None
    for batch in calibration.images():
        if batch.dim() != 4 or not batch.is_floating_point() or not len(batch):
            raise _misshapen("images", batch, "non-empty (N, 3, H, W) floating point")
        yield batch.to(reference.device, reference.dtype)
    if batch is None:
        raise _empty("images")


def text_batches(model: nn.Module, calibration: Calibration) -> Iterator[Tensor]:
    """Yield token batches (N, L) on the model's device.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> [tuple(batch.shape) for batch in text_batches(small_clip(), SmallInputs().calibration)]
    [(3, 12), (1, 12)]
    """
    reference = next(model.parameters())
    batch = None
    for batch in calibration.texts():
        if batch.dim() != 2 or batch.dtype != torch.int64 or not len(batch):
            raise _misshapen("texts", batch, "non-empty (N, L) int64")
        yield batch.to(reference.device)
    if batch is None:
        raise _empty("texts")


def _vision_tower(model: nn.Module) -> nn.Module:
    visual = getattr(model, "visual", None)
    return visual if isinstance(visual, nn.Module) else model


def _empty(what: str) -> QuantizerError:
    return QuantizerError(
        f"the calibration data hold no {what}",
        hint=f"give at least one batch of {what}, or quantize only the other tower",
    )


def _misshapen(what: str, batch: Tensor, expected: str) -> QuantizerError:
    return QuantizerError(
        f"a calibration batch of {what} is {tuple(batch.shape)} {batch.dtype}",
        hint=f"expected {expected}",
    )
