"""Whether scales belong to what the format says: an output channel, or a group of its inputs.

Counting levels does not tell, where a row has fewer values than there are codes. Making some rows
small does: with a scale of its own a row keeps its relative error, since the scale shrinks with it;
under a scale for the whole tensor, for a column, or for a group of rows, it is rounded away. Powers
of two change no other rounding. Likewise groups of columns, for a method that rounds each weight to
the nearest level; others may push errors into a small group on purpose.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from clipq.quant import Format
from clipq.testing.checks import NotRun, expect
from clipq.testing.models import SmallInputs
from clipq.testing.multiplied import weight_pairs

__all__ = ["check_scale_axis"]

_KNOWN = 0.5  # relative error of a weight that is the float model's: not smoothed, nor rotated
_WORSE = 2.0  # times the error that a row, or a group, had before it was small
_SMALL = 0.25  # at most, of its size: what is to suffer under a scale that it shares
_HIDDEN = ("c_fc", "fc1", "in_proj_weight")  # whose outputs feed no other layer's statistics much
_PERIOD = 7


def check_scale_axis(
    number_format: Format,
    build: Callable[[], nn.Module],
    quantize: Callable[[nn.Module], nn.Module],
    inputs: SmallInputs,
) -> None:
    """Raise unless rows, and groups, of a weight have scales of their own.

    Args:
        number_format: what is claimed.
        build: returns the float model, each time anew.
        quantize: returns what becomes of one.
        inputs: that the models encode.

    Raises:
        Violation: small rows or groups lose more than others.
        NotRun: the format shares one scale, has too few levels, or no weight can be compared.

    >>> from clipq.quant import quantize as apply
    >>> from clipq.testing.models import small_clip
    >>> inputs = SmallInputs()
    >>> check_scale_axis(
    ...     Format.parse("w8"), small_clip,
    ...     lambda model: apply(model, "rtn:w8", inputs.calibration).model, inputs)
    >>> check_scale_axis(
    ...     Format.parse("w8"), small_clip,
    ...     lambda model: apply(model, "rtn:w8t", inputs.calibration).model, inputs)
    Traceback (most recent call last):
    clipq.testing.checks.Violation: ...: 100% of rows made small lose more than 2 times as much ...
    """
    weight = number_format.weight
    if weight.granularity == "tensor":
        raise NotRun("one scale for the whole tensor is claimed")
    if weight.number == "int" and weight.bits < 3:
        raise NotRun("two bits lose half of a weight on any axis")
    model = build()
    plain = _errors(model, quantize(model), inputs)
    compared = 0
    for where in (_hidden, _first):
        small = build()
        _shrink(small, where, by="rows")
        compared += _compare_rows(plain, _errors(small, quantize(small), inputs), where)
    size = weight.granularity
    if isinstance(size, int):
        small = build()
        _shrink(small, _hidden, by="columns", size=size)
        compared += _compare_groups(size, plain, _errors(small, quantize(small), inputs))
    if not compared:
        raise NotRun("its weights are not the float model's: smoothed, rotated or unseen")


def _hidden(name: str) -> bool:
    return name.endswith(_HIDDEN)


def _first(name: str) -> bool:
    return name in ("visual.conv1", "visual.trunk.patch_embed.proj")


Pairs = dict[str, tuple[Tensor, Tensor]]


def _errors(model: nn.Module, quantized: nn.Module, inputs: SmallInputs) -> Pairs:
    return {
        name: (before.double(), after.double())
        for name, before, after in weight_pairs(model, quantized, inputs)
    }


def _factors(count: int, device: torch.device) -> Tensor:
    """Return 1, 1/2, 1/4 … 1/64 and over again."""
    return 0.5 ** (torch.arange(count, device=device) % _PERIOD)


@torch.no_grad()
def _shrink(model: nn.Module, where: Callable[[str], bool], *, by: str, size: int = 1) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or not where(name.removesuffix(".weight")):
            continue
        if by == "rows":
            factors = _factors(len(parameter), parameter.device)
            parameter.mul_(factors.to(parameter.dtype).reshape(-1, *[1] * (parameter.dim() - 1)))
        else:
            columns = torch.arange(parameter.shape[1], device=parameter.device) // size
            groups = _factors(int(columns.max()) + 1, parameter.device).square()
            parameter.mul_(groups.to(parameter.dtype)[columns])


def _relative(before: Tensor, after: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm
    found: Tensor = norms(after - before, dim=-1) / norms(before, dim=-1).clamp(min=1e-30)
    return found


def _compare_rows(plain: Pairs, small: Pairs, where: Callable[[str], bool]) -> int:
    compared = 0
    for name, (before, after) in small.items():
        if name not in plain or not where(name):
            continue
        usual = _relative(*plain[name])
        if not 1e-7 < float(usual.median()) < _KNOWN:
            continue
        compared += 1
        chosen = _factors(len(before), before.device) <= _SMALL
        worse = _relative(before, after)[chosen] > _WORSE * usual[chosen] + 1e-3
        expect(
            float(worse.double().mean()) < 0.5,
            f"{name}: {float(worse.double().mean()):.0%} of rows made small lose more than "
            f"{_WORSE:g} times as much of themselves as before, so they share a scale with others: "
            "the format has one per output channel, or finer",
        )
    return compared


def _compare_groups(size: int, plain: Pairs, small: Pairs) -> int:
    compared = 0
    for name, (before, after) in small.items():
        if name not in plain or not name.endswith(("c_fc", "fc1")) or before.shape[1] % size:
            continue
        groups = before.shape[1] // size
        usual = _relative(*(x.reshape(-1, groups, size) for x in plain[name]))
        if groups < 2 or not 1e-7 < float(usual.median()) < _KNOWN or not _is_nearest(*plain[name]):
            continue
        compared += 1
        chosen = _factors(groups, before.device).square() <= _SMALL
        found = _relative(*(x.reshape(-1, groups, size) for x in (before, after)))
        worse = found[:, chosen] > _WORSE * usual[:, chosen] + 1e-3
        expect(
            float(worse.double().mean()) < 0.5,
            f"{name}: {float(worse.double().mean()):.0%} of groups of {size} inputs made small "
            f"lose more than {_WORSE:g} times as much of themselves as before, so they share a "
            f"scale: the format has one for each {size} inputs of an output channel",
        )
    return compared


def _is_nearest(before: Tensor, after: Tensor) -> bool:
    """Whether nearly every value took the nearest of the levels in use in its row."""
    levels = after.sort(dim=1).values.contiguous()
    at = torch.searchsorted(levels, before.contiguous())
    last = levels.shape[1] - 1
    high, low = levels.gather(1, at.clamp(max=last)), levels.gather(1, (at - 1).clamp(min=0))
    closest = torch.minimum((high - before).abs(), (low - before).abs())
    taken = (after - before).abs() <= closest + 1e-6 * before.abs().amax(1, keepdim=True)
    return float(taken.double().mean()) > 0.97
