"""Let a quantized model compute by clipq's Triton kernels where they run; never silently.

Modules keep their state and take a class whose `forward` calls a torch operator where that computes
the same, and the reference where it does not: a codebook, a power-of-two scale, more than 8 bits.
Rounding agrees bit for bit; rotations and integer products within bounds (docs/kernels.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn.functional import gelu

from clipq.errors import SettingsError
from clipq.kernels.device import interpreting, unusable
from clipq.quant.activations import DynamicQuantizer, StaticQuantizer
from clipq.quant.affine import QParams
from clipq.quant.integer import IntegerLinear
from clipq.quant.transforms.hadamard import HadamardRotation

if TYPE_CHECKING:
    from clipq.settings import Settings

__all__ = ["accelerate", "backend_of"]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_LARGEST_ROTATION = 16384
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda values: values,
    "gelu": gelu,
    "gelu-tanh": partial(gelu, approximate="tanh"),
    "quick-gelu": QuickGELU(),
}


def backend_of(settings: Settings, device: str) -> str:
    """Return what computes quantized operations, for the environment of records and cache keys.

    "" where there is no choice: on a CPU the reference does.

    Raises:
        SettingsError: the settings demand kernels that cannot run here.
    """
    place = torch.device(device)
    if place.type == "cpu" and settings.backend != "triton":
        return ""
    if settings.backend == "reference":
        return "reference"
    reason = unusable(place)
    if settings.backend == "triton" and reason:
        raise SettingsError(
            f"backend = 'triton' on {device}: {reason}",
            hint="use backend = 'auto' or 'reference', or device = 'cuda' where there is a GPU",
        )
    if reason:
        return f"reference ({reason})"
    return f"triton {version('triton')}" + (" (interpreted)" if interpreting() else "")


def accelerate(model: nn.Module, backend: str) -> dict[str, int]:
    """Let modules of a quantized model call kernels; return how many of each kind do, or do not.

    Args:
        model: changed in place.
        backend: of `backend_of`; nothing is changed unless it is Triton's.
    """
    if not backend.startswith("triton"):
        return {}
    # Registers the operators; loaded late, because Triton decides here whether it interprets.
    import clipq.kernels.operators  # noqa: F401

    found: Counter[str] = Counter()
    for module in model.modules():
        for kind, twin, fits in _TWINS:
            if type(module) is kind:
                if fits(module):
                    module.__class__ = twin
                if isinstance(module, _IntegerByKernel):
                    zero = cast(QParams, cast(StaticQuantizer, module.inputs).grid).zero_point
                    module.point = 0 if zero is None else int(zero) - 128
                    module.activation = "none"
                found[f"{kind.__name__} by {'kernel' if fits(module) else 'reference'}"] += 1
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            found["activations fused"] += _fuse_activations(module)
    found += Counter()  # drops what is zero
    return dict(sorted(found.items()))


def _fuse_activations(layers: nn.Sequential) -> int:
    """Let integer layers apply the activation that follows them; return how many do."""
    fused = 0
    for (_, layer), (name, following) in pairwise(layers.named_children()):
        activation = _activation_of(following)
        if isinstance(layer, _IntegerByKernel) and activation:
            layer.activation = activation
            setattr(layers, name, nn.Identity())
            fused += 1
    return fused


def _activation_of(module: nn.Module) -> str:
    """Return the name by which kernels know an activation, "" for none."""
    if type(module) is nn.GELU:
        return "gelu" if module.approximate == "none" else "gelu-tanh"
    return "quick-gelu" if type(module) is QuickGELU else ""


class _StaticByKernel(StaticQuantizer):
    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid."""
        if values.dtype not in _FLOATS or not values.dim():
            return super().forward(values)
        grid = cast(QParams, self.grid)
        result: Tensor = torch.ops.clipq.fake_quantize(
            values, grid.scale, grid.zero_point, grid.low, grid.high
        )
        return result


class _DynamicByKernel(DynamicQuantizer):
    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid of their token."""
        if values.dtype not in _FLOATS or not values.numel():
            return super().forward(values)
        number_format, image = self.number_format, self.over == "image"
        group = number_format.group
        rows = values
        if image:
            rows = values.flatten(-3) if group is None else values.movedim(1, -1)
        found: Tensor = torch.ops.clipq.fake_quantize_dynamic(
            rows, number_format.bits, number_format.asymmetric, group
        )
        if image:
            return found.reshape(values.shape) if group is None else found.movedim(-1, 1)
        return found


class _RotationByKernel(HadamardRotation):
    def _hadamard(self, part: Tensor, *, transposed: bool) -> Tensor:
        if part.dtype not in _FLOATS:
            return super()._hadamard(part, transposed=transposed)
        base = None
        if self.inner % 12 == 0:
            base = torch.sign(self.get_buffer("factor0")).float()
        result: Tensor = torch.ops.clipq.hadamard(part, None, transposed, base)
        return result


class _IntegerByKernel(IntegerLinear):
    point: int
    """Zero point of the codes: known before, since asking the GPU would wait for it."""
    activation: str
    """What the epilogue applies in the place of the module that followed."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, (..., in) to (..., out), activated where that was fused."""
        differentiable = torch.is_grad_enabled() and input.requires_grad
        if differentiable or not input.numel() or input.dtype not in _FLOATS:
            return _ACTIVATIONS[self.activation](super().forward(input))
        grid = cast(QParams, cast(StaticQuantizer, self.inputs).grid)
        # Unsigned codes of asymmetric inputs are moved by 128 into int8's range.
        moved, zero = 0, None
        if grid.zero_point is not None:
            moved, zero = 128, grid.zero_point - 128
        codes = torch.ops.clipq.quantize(
            input, grid.scale, zero, grid.low - moved, grid.high - moved
        )
        result: Tensor = torch.ops.clipq.linear_w8a8(
            codes,
            self.codes.t(),
            grid.scale,
            self.weight_scale,
            self.point,
            self.code_sums,
            self.bias,
            self.activation,
            input.dtype,
        )
        return result


def _has_codes(module: Any) -> bool:
    grid = module.grid
    return isinstance(grid, QParams) and grid.high - grid.low <= 255


def _has_plain_ranges(module: Any) -> bool:
    number_format = module.number_format
    plain = number_format.number == "int" and not number_format.power_of_two
    return plain and number_format.bits <= 8


def _has_fast_size(module: Any) -> bool:
    return bool(module.inner <= _LARGEST_ROTATION * (0.75 if module.inner % 12 == 0 else 1))


def _has_integer_inputs(module: Any) -> bool:
    return isinstance(module.inputs, StaticQuantizer) and _has_codes(module.inputs)


_TWINS = (
    (StaticQuantizer, _StaticByKernel, _has_codes),
    (DynamicQuantizer, _DynamicByKernel, _has_plain_ranges),
    (HadamardRotation, _RotationByKernel, _has_fast_size),
    (IntegerLinear, _IntegerByKernel, _has_integer_inputs),
)
