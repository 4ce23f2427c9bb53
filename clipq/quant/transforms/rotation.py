"""Rotating the residual stream of transformer blocks, as QuaRot does, for CLIP's towers.

A pre-norm block reads its stream through layer norms and adds to it through two layers. With C the
map that subtracts a vector's mean and Q a rotation:

1. norm weights and biases are folded into the layers that read them: W ← W diag(γ), b ← b + W β;
2. layer scales and C are folded into the layers that write: W ← C diag(ls) W, so that the stream
   has mean zero and a layer norm on it is an RMS norm, which commutes with rotations;
3. readers get W ← W Q, writers W ← Qᵀ W;
4. values are rotated within each head, W_v ← Hᵀ W_v and W_o ← W_o H;
5. the hidden units are rotated while running, before the layer that reads them: x ← x H, W ← W H.

QuaRot rotates a language model's embedding and head with the stream. CLIP's towers begin and end in
too many ways for that (class tokens, `ln_pre`, pooling, projections), so the stream is centred and
rotated where it enters the first block, and rotated back where it leaves the last. The next thing
must be a layer norm, which does not see the missing mean; stages that end otherwise (all but the
last of Swin) are left alone.

Source: Ashkboos et al. 2024, arXiv 2404.00456; steps 1 and 2 from Ashkboos et al. 2024,
arXiv 2401.15024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from clipq.errors import QuantizerError
from clipq.quant.modules import transform_input
from clipq.quant.options import read_choice, read_number
from clipq.quant.spec import QuantizerSpec, Towers
from clipq.quant.towers import covers_images, covers_texts, named_sites
from clipq.quant.transforms.hadamard import HadamardRotation, InverseRotation
from clipq.quant.transforms.structure import (
    NormGroup,
    ValuePair,
    does_nothing,
    norm_groups,
    value_pairs,
)

if TYPE_CHECKING:
    from clipq.quant.pipeline import Prepared

__all__ = ["ROTATION", "chosen_rotation", "rotate", "rotation"]

ROTATION = ("rotation", "seed")
"""Options of methods that can work on rotated weights."""

_ATTENTION_OUT = ("attn.out_proj", "attn.proj")
_HIDDEN_OUT = ("mlp.c_proj", "mlp.fc2")
_NORMS = (("ln_1", "ln_2"), ("norm1", "norm2"))
_SCALES = (("ls_1", "ls_2"), ("ls1", "ls2"), ("gamma_1", "gamma_2"))


class CentredNorm(nn.Module):
    """Layer norm of vectors whose mean is zero, without an affine map; commutes with rotations."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.width, self.eps = int(norm.weight.numel()), norm.eps

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` (..., C) over their root mean square."""
        return rms_norm(values.float(), (self.width,), eps=self.eps).to(values.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class _Writer:
    """A layer that adds to the stream, and the layer scale behind it."""

    layer: nn.Linear
    scale: str | None


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """A pre-norm transformer block."""

    module: nn.Module
    readers: tuple[NormGroup, NormGroup]
    writers: tuple[_Writer, _Writer]
    values: ValuePair | None


@torch.no_grad()
def rotate(model: nn.Module, towers: Towers, order: list[str], *, seed: int) -> None:
    """Rotate every stack of pre-norm transformer blocks of the towers, in place.

    Args:
        model: an explicit model.
        towers: which towers; each must have at least one such stack.
        order: from `structure.execution_order`.
        seed: of the random signs.

    Raises:
        QuantizerError: a tower has no stack of blocks that can be rotated.
    """
    stacks = _stacks(model, towers, order)
    for tower, wanted in (("visual", covers_images(towers)), ("text", covers_texts(towers))):
        inside = [name for name in stacks if name.startswith("visual.") == (tower == "visual")]
        if wanted and not inside:
            raise QuantizerError(
                f"the {tower} tower ({_kind(model, tower)}) has no pre-norm transformer blocks to "
                "rotate",
                hint="rotation needs blocks whose layers read a layer norm and add to a residual "
                "stream (ViT, EVA, SigLIP, Swin, text transformers), and that share no layers; "
                "use @vision or @text, or another method",
            )
    generator = torch.Generator().manual_seed(seed)
    for blocks in stacks.values():
        _rotate_stack(blocks, generator)


def chosen_rotation(spec: QuantizerSpec) -> list[Callable[[Prepared], None]]:
    """Return the transform that options `rotation` (`none`, `hadamard`) and `seed` ask for."""
    if read_choice(spec, "rotation", ("hadamard", "none"), "none") == "none":
        return []
    return [rotation(spec)]


def rotation(spec: QuantizerSpec) -> Callable[[Prepared], None]:
    """Return the rotation with the option `seed`."""
    seed = int(read_number(spec, "seed", 0, low=0, high=2**31))
    return lambda prepared: rotate(prepared.model, prepared.towers, prepared.order, seed=seed)


def _rotate_stack(blocks: list[_Block], generator: torch.Generator) -> None:
    device = blocks[0].writers[0].layer.weight.device
    stream = HadamardRotation(blocks[0].readers[0].width, generator=generator).to(device)
    for block in blocks:
        for group in block.readers:
            _fold_norm(block.module, group)
            for layer in group.layers.values():
                _set(layer, "weight", stream.rotate_weight(layer.weight))
        for writer in block.writers:
            _fold_scale(block.module, writer)
            _rotate_writer(writer.layer, stream)
        if block.values is not None:
            _rotate_values(block.values, generator)
        hidden = block.writers[1].layer
        rotation = HadamardRotation(hidden.in_features, generator=generator).to(device)
        _set(hidden, "weight", rotation.rotate_weight(hidden.weight))
        transform_input(hidden, rotation)
    first, last = blocks[0].module, blocks[-1].module
    first.enter_rotation = stream
    first.register_forward_pre_hook(_enter)
    last.leave_rotation = InverseRotation(stream)
    last.register_forward_hook(_leave)


def _enter(block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    stream = inputs[0]
    centred = stream - stream.mean(-1, keepdim=True)
    rotation = cast(nn.Module, block.enter_rotation)
    return (rotation(centred), *inputs[1:])


def _leave(block: nn.Module, _: Any, output: Tensor) -> Tensor:
    return cast(Tensor, cast(nn.Module, block.leave_rotation)(output))


def _fold_norm(block: nn.Module, group: NormGroup) -> None:
    norm = group.norm
    for layer in group.layers.values():
        weight = layer.weight.detach().float()
        if norm.bias is not None:
            shift = weight @ norm.bias.detach().float()
            old = 0.0 if layer.bias is None else layer.bias.detach().float()
            _set(layer, "bias", old + shift, like=layer.weight)
        _set(layer, "weight", weight * norm.weight.detach().float())
    setattr(block, group.name.rpartition(".")[2], CentredNorm(norm))


def _fold_scale(block: nn.Module, writer: _Writer) -> None:
    if writer.scale is None:
        return
    scale = getattr(block, writer.scale)
    gamma = (scale if isinstance(scale, Tensor) else scale.gamma).detach().float()
    layer = writer.layer
    _set(layer, "weight", layer.weight.float() * gamma[:, None])
    if layer.bias is not None:
        _set(layer, "bias", layer.bias.float() * gamma)
    setattr(block, writer.scale, None if isinstance(scale, Tensor) else nn.Identity())


def _rotate_writer(layer: nn.Linear, stream: HadamardRotation) -> None:
    columns = layer.weight.detach().float().t()
    _set(layer, "weight", stream(columns - columns.mean(-1, keepdim=True)).t().contiguous())
    if layer.bias is not None:
        bias = layer.bias.detach().float()
        _set(layer, "bias", stream(bias - bias.mean()))


def _rotate_values(pair: ValuePair, generator: torch.Generator) -> None:
    width = pair.output.in_features // pair.num_heads
    rotation = HadamardRotation(width, generator=generator).to(pair.output.weight.device)

    def by_head(columns: Tensor) -> Tensor:
        heads = columns.reshape(*columns.shape[:-1], -1, width)
        return torch.as_tensor(rotation(heads).flatten(-2))

    weight = pair.value.weight.detach().float().clone()
    weight[pair.rows] = by_head(weight[pair.rows].t()).t()
    _set(pair.value, "weight", weight)
    if pair.value.bias is not None:
        bias = pair.value.bias.detach().float().clone()
        bias[pair.rows] = by_head(bias[pair.rows])
        _set(pair.value, "bias", bias)
    _set(pair.output, "weight", by_head(pair.output.weight.float()))


def _set(layer: nn.Module, name: str, value: Tensor, *, like: Tensor | None = None) -> None:
    """Give `layer` a new parameter of the old one's dtype: an old one may be shared."""
    old = getattr(layer, name) if like is None else like
    setattr(layer, name, nn.Parameter(value.to(old.dtype), requires_grad=old.requires_grad))


def _stacks(model: nn.Module, towers: Towers, order: list[str]) -> dict[str, list[_Block]]:
    """Return, by name, containers whose children are all blocks that can be rotated."""
    groups = norm_groups(model, towers, order)
    pairs = value_pairs(model, towers)
    stacks = {}
    for name, _, _, container in named_sites(model, towers):
        if not isinstance(container, nn.ModuleList | nn.Sequential) or not len(container):
            continue
        blocks = [_block(f"{name}.{i}", x, groups, pairs) for i, x in container.named_children()]
        known = [block for block in blocks if block is not None]
        alike = len(known) == len(blocks) and len({b.readers[0].width for b in known}) == 1
        if alike and _ends_in_norm(model, name, known[0].readers[0].width, order):
            stacks[name] = known
    return stacks


def _ends_in_norm(model: nn.Module, name: str, width: int, order: list[str]) -> bool:
    """Whether what runs right behind the container is a layer norm of its stream."""
    last = max((i for i, leaf in enumerate(order) if leaf.startswith(f"{name}.")), default=-1)
    for leaf in order[last + 1 :] if last >= 0 else []:
        module = model.get_submodule(leaf)
        if not does_nothing(module):
            return isinstance(module, nn.LayerNorm) and tuple(module.normalized_shape) == (width,)
    return False


def _block(
    name: str, module: nn.Module, groups: dict[str, NormGroup], pairs: dict[str, ValuePair]
) -> _Block | None:
    readers: list[NormGroup] = []
    for first, second in _NORMS:
        names = f"{name}.{first}", f"{name}.{second}"
        if all(n in groups for n in names):
            readers = [groups[n] for n in names]
    writers = [_linear(module, names) for names in (_ATTENTION_OUT, _HIDDEN_OUT)]
    behind = getattr(module, "ln_attn", None)
    if behind is not None and not isinstance(behind, nn.Identity):
        return None  # a norm between the writer and the stream
    if len(readers) != 2 or any(writer is None for writer in writers):
        return None
    if not all(isinstance(x, nn.Linear) for group in readers for x in group.layers.values()):
        return None
    scales = _scale_names(module)
    first_writer, second_writer = (
        _Writer(layer, scale) for layer, scale in zip(writers, scales, strict=True) if layer
    )
    pair = pairs.get(f"{name}.attn")
    return _Block(module, (readers[0], readers[1]), (first_writer, second_writer), pair)


def _linear(module: nn.Module, names: tuple[str, ...]) -> nn.Linear | None:
    for name in names:
        try:
            layer = module.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(layer, nn.Linear):
            return layer
    return None


def _scale_names(module: nn.Module) -> tuple[str | None, str | None]:
    """Return the names of the block's layer scales; None where it has none."""

    def scales(name: str) -> bool:
        scale = getattr(module, name, None)
        return isinstance(scale, Tensor) or hasattr(scale, "gamma")

    for first, second in _SCALES:
        if scales(first) or scales(second):
            return first if scales(first) else None, second if scales(second) else None
    return None, None


def _kind(model: nn.Module, tower: str) -> str:
    module = getattr(model, tower, None)
    module = getattr(module, "trunk", module)
    return type(module).__name__ if isinstance(module, nn.Module) else type(model).__name__
