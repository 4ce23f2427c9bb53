"""Round a weight to a `WeightFormat`: per output channel, per tensor or per group of inputs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from clipq.errors import QuantizerError
from clipq.quant.formats import WeightFormat
from clipq.quant.grids import Grid, choose_grid, fake_quantize

__all__ = [
    "WEIGHT_RANGES",
    "WeightRange",
    "check_finite",
    "join_weight",
    "quantize_weight",
    "split_weight",
    "weight_grid",
]

WeightRange = Literal["minmax", "mse"]
WEIGHT_RANGES: tuple[WeightRange, ...] = ("minmax", "mse")
_SHARES = torch.arange(1.0, 0.29, -0.02).tolist()


def quantize_weight(
    weight: Tensor, number_format: WeightFormat, *, name: str, chosen: WeightRange = "minmax"
) -> Tensor:
    """Return `weight` rounded to nearest on its grid, as floats of the same shape and dtype.

    Args:
        weight: (out, in) or (out, in, kh, kw); half precision is computed in float32.
        number_format: number, granularity and symmetry.
        name: the layer's name, for messages.
        chosen: how the range of whatever shares a scale is chosen.

    Raises:
        QuantizerError: the weight holds an infinity, for which no scale exists. (NaN propagates.)
    """
    if weight.numel() == 0:
        return weight.detach().clone()
    blocks = split_weight(weight.detach().float(), number_format)
    grid = weight_grid(blocks, number_format, chosen=chosen)
    if torch.isinf(grid.scale).any():  # spares a pass over weights that are finite
        check_finite(weight, name)
    return join_weight(fake_quantize(blocks, grid), weight)


def check_finite(weight: Tensor, name: str) -> None:
    """Refuse a weight that holds an infinity; a NaN may pass, it stays visible.

    Raises:
        QuantizerError: it does.
    """
    if torch.isinf(weight).any():
        raise QuantizerError(
            f"the weight of {name} holds an infinite value",
            hint="repair the checkpoint; no scale can represent infinity",
        )


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


def join_weight(blocks: Tensor, like: Tensor) -> Tensor:
    """Return split `blocks` in the shape and dtype of the weight they came from."""
    if blocks.dim() == 3:
        blocks = blocks.flatten(1)[:, : like[0].numel()]
    return blocks.reshape(like.shape).to(like.dtype)


def weight_grid(
    blocks: Tensor, number_format: WeightFormat, *, chosen: WeightRange = "minmax"
) -> Grid:
    """Return the grid of split `blocks`, one scale along the last dimension.

    ``minmax`` spans all values. ``mse`` shrinks each range, in steps of 2 % down to 30 %, to where
    its own squared rounding error is smallest (Nagel et al. 2021, arXiv 2106.08295, equation 10).
    """
    low, high = torch.aminmax(blocks, dim=-1, keepdim=True)
    if chosen == "minmax":
        return choose_grid(low, high, number_format)
    best_error = torch.full_like(low, torch.inf)
    best_share = torch.ones_like(low)
    for share in _SHARES:
        grid = choose_grid(low * share, high * share, number_format)
        error = (grid.snap(blocks) - blocks).square_().sum(-1, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_share = torch.where(better, share, best_share)
    return choose_grid(low * best_share, high * best_share, number_format)
