"""Round a weight to a `WeightFormat`: per output channel, per tensor or per group of inputs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from clipq.errors import QuantizerError
from clipq.quant.affine import (
    QParams,
    choose_qparams_asymmetric,
    choose_qparams_symmetric,
    fake_quantize,
)
from clipq.quant.formats import WeightFormat

__all__ = ["quantize_weight", "split_weight"]


def quantize_weight(weight: Tensor, number_format: WeightFormat, *, name: str) -> Tensor:
    """Return `weight` rounded to nearest on its grid, as floats of the same shape and dtype.

    Args:
        weight: (out, in) or (out, in, kh, kw); half precision is computed in float32.
        number_format: bits, granularity and symmetry.
        name: the layer's name, for messages.

    Raises:
        QuantizerError: the weight holds an infinity, for which no scale exists. (NaN propagates.)
    """
    if torch.isinf(weight).any():
        raise QuantizerError(
            f"the weight of {name} holds an infinite value",
            hint="repair the checkpoint; no scale can represent infinity",
        )
    if weight.numel() == 0:
        return weight.detach().clone()
    blocks = split_weight(weight.detach().float(), number_format)
    rounded = fake_quantize(blocks, _qparams(blocks, number_format))
    row = weight[0].numel()
    if blocks.dim() == 3:
        rounded = rounded.flatten(1)[:, :row]
    return rounded.reshape(weight.shape).to(weight.dtype)


def split_weight(weight: Tensor, number_format: WeightFormat) -> Tensor:
    """Return `weight` with everything that shares a scale along the last dimension.

    (1, out·row) per tensor, (out, row) per channel, (out, groups, size) per group; a row is
    in·kh·kw long. Where it is no multiple of the group, its last group is shorter, here filled up
    with zeros, which change neither max|w| nor a range that contains zero. Where it is shorter
    than the group, the row is one group.
    """
    match number_format.granularity:
        case "tensor":
            return weight.reshape(1, -1)
        case "channel":
            return weight.reshape(weight.shape[0], -1)
        case int(size):
            rows = weight.reshape(weight.shape[0], -1)
            size = min(size, rows.shape[1])
            rows = pad(rows, (0, -rows.shape[1] % size))
            return rows.reshape(weight.shape[0], -1, size)


def _qparams(blocks: Tensor, number_format: WeightFormat) -> QParams:
    if number_format.asymmetric:
        low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
        return choose_qparams_asymmetric(low, high, bits=number_format.bits)
    return choose_qparams_symmetric(blocks.abs().amax(-1, keepdim=True), bits=number_format.bits)
