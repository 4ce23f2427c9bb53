"""A model whose rounding is trained: its parameters, its state, and its frozen form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError, listed
from clipq.quant.activations import StaticQuantizer
from clipq.quant.formats import Format
from clipq.quant.spec import Towers
from clipq.quant.storage import stored_bits
from clipq.quant.surgery import Layer, replace_layers, replace_modules
from clipq.quant.trainable.input_rounders import InputRounder
from clipq.quant.trainable.shared_inputs import round_once
from clipq.quant.trainable.trainable_layers import TrainableTwin, TrainedInputs, frozen_inputs
from clipq.quant.trainable.weight_rounders import WeightRounder

__all__ = ["Trainable", "keep_statistics", "step_names"]

_SANE = (
    1000.0  # a step this many times larger or smaller than it began rounds everything or nothing
)
_OFFSET = "offset"


class Trainable:
    """A model in whose forward pass weights and inputs are rounded, so that it can be trained.

    Args:
        module: an open_clip model with trainable twins in its towers.
        towers: those.
        layers: the float layers that the twins stand for, by name.
        formats: theirs, by name.
        shared: names of the attentions that round the inputs of some of them, by layer.
        weights: names of the other parameters that are trained.

    Attributes:
        module: offers `encode_image` and `encode_text`, through which gradients flow.

    >>> from clipq.quant import QuantizerSpec
    >>> from clipq.quant.trainable import prepare
    >>> from clipq.testing import SmallInputs, small_clip
    >>> inputs = SmallInputs()
    >>> trainable = prepare(small_clip(), QuantizerSpec.parse("lsq:w4a8"), inputs.calibration)
    >>> features = trainable.module.encode_image(inputs.images)
    >>> features.square().mean().backward()
    >>> trainable.steps()["visual.conv1.rounding.step"].grad.shape
    torch.Size([64, 1])
    """

    def __init__(
        self,
        module: nn.Module,
        towers: Towers,
        layers: Mapping[str, Layer],
        formats: Mapping[str, Format],
        *,
        shared: Mapping[str, str],
        weights: tuple[str, ...],
    ) -> None:
        self.module = module
        self._towers, self._layers, self._formats = towers, dict(layers), dict(formats)
        self._rounds = {name: shared.get(name, name) for name in layers}
        self._steps = tuple(step_names(module))
        self._weights = tuple(weights)
        self._fixed = tuple(
            f"{name}.inputs.{part}"
            for name in dict.fromkeys(self._rounds.values())
            if isinstance(static := self._inputs(name), StaticQuantizer)
            for part, _ in static.named_buffers()
        )
        self._flags = {name: p.requires_grad for name, p in module.named_parameters()}
        learnt = {*self._steps, *self._weights}
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in learnt)
        self._began = {name: p.detach().clone() for name, p in self.steps().items()}

    def weights(self) -> dict[str, nn.Parameter]:
        """Return what is trained beside steps: weights, biases, norms and embeddings, by name.

        They are all parameters that features of the quantized towers depend on. The logit scale and
        bias are not among them. With ``learn=steps`` there are none.
        """
        return self._named(self._weights)

    def steps(self) -> dict[str, nn.Parameter]:
        """Return steps, offsets and clips by name; none where ``dorefa`` rounds."""
        return self._named(self._steps)

    def collapsed(self) -> list[str]:
        """Return one line for each parameter of `steps` that no longer makes sense.

        A step or clip is positive, finite and within a factor of 1,000 of where it began; an offset
        is finite.
        """
        steps = self.steps()
        if not steps:
            return []
        now = torch.cat([p.detach().reshape(-1) for p in steps.values()])
        began = torch.cat([self._began[name].to(now.device).reshape(-1) for name in steps])
        free = torch.cat([torch.full((p.numel(),), _is_offset(n)) for n, p in steps.items()])
        sane = (now > began / _SANE) & (now < began * _SANE) | free.to(now.device)
        sane &= now.isfinite()
        if bool(sane.all()):
            return []
        lines = []
        for name, good, values, first in zip(
            steps,
            *(torch.split(x, [p.numel() for p in steps.values()]) for x in (sane, now, began)),
            strict=True,
        ):
            bad = (~good).nonzero().flatten().tolist()
            if bad:
                at = f"[{bad[0]}]" if len(good) > 1 else ""
                more = f", and {len(bad) - 1} more of its {len(good)}" if len(bad) > 1 else ""
                lines.append(
                    f"{name}{at}: {float(values[bad[0]]):.3g}, began at "
                    f"{float(first[bad[0]]):.3g}{more}"
                )
        return lines

    def state(self) -> dict[str, Tensor]:
        """Return what was learnt, on the CPU: with ``learn=steps`` a few kilobytes."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self._learnt().items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take a state that a trainable of the same model and quantizer returned.

        Raises:
            QuantizerError: a tensor is missing, left over, of another shape or type, not finite, or
                a step that is not positive.
        """
        learnt = self._learnt()
        hint = "use the state with the model and the quantizer that it was trained with"
        missing = [name for name in learnt if name not in state]
        if missing:
            raise QuantizerError(f"the trained state lacks {listed(missing)}", hint=hint)
        over = [name for name in state if name not in learnt]
        if over:
            raise QuantizerError(
                f"the trained state holds {listed(over)}, which this quantizer does not learn",
                hint=hint,
            )
        positive = {name for name in self._steps if not _is_offset(name)}
        for name, target in learnt.items():
            found = state[name]
            if found.shape != target.shape or not found.is_floating_point():
                raise QuantizerError(
                    f"{name} of the trained state is {tuple(found.shape)} {found.dtype}, not "
                    f"{tuple(target.shape)} {target.dtype}",
                    hint=hint,
                )
            if not bool(found.isfinite().all()):
                raise QuantizerError(
                    f"{name} of the trained state is not finite",
                    hint="train again, with a smaller lr or step_lr",
                )
            if name in positive and not bool((found > 0).all()):
                raise QuantizerError(
                    f"{name} of the trained state holds a step of {float(found.min()):.3g}",
                    hint="a step is positive: train again, with a smaller step_lr",
                )
        for name, target in learnt.items():
            target.copy_(state[name])

    @torch.no_grad()
    def frozen(self) -> nn.Module:
        """Return the model that is run: weights rounded, inputs rounded as they are now; in place.

        Features are, bit for bit, what `module` computes in eval mode. The trainable is used up.

        Raises:
            QuantizerError: a step has collapsed.
        """
        collapsed = self.collapsed()
        if collapsed:
            raise QuantizerError(
                f"{len(collapsed)} learnt steps have collapsed: {'; '.join(collapsed[:3])}",
                hint="train again, with a smaller lr or step_lr",
            )
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(self._flags[name])
        twins = self._twins()
        weights, inputs, bits, back = {}, {}, {}, {}
        for name, layer in self._layers.items():
            twin = twins[name]
            layer.weight, layer.bias = twin.weight, twin.bias  # they may have been exchanged
            weights[name] = twin.rounding(twin.weight).detach()
            inputs[name] = frozen_inputs(self._inputs(self._rounds[name]))
            bits[name] = stored_bits(layer.weight.shape, self._formats[name].weight)
            back[twin] = layer
        # Float layers first: what replaces them may be asked to put them back.
        replace_modules(self.module, self._towers, back)
        replace_layers(self.module, self._towers, self._layers, weights, inputs, bits=bits)
        for module in self.module.modules():
            for key, hook in list(module._forward_pre_hooks.items()):
                if hook in (keep_statistics, round_once):
                    del module._forward_pre_hooks[key]
        for attention in set(self._rounds.values()) - self._layers.keys():
            del self.module.get_submodule(attention).inputs
        return self.module

    def _twins(self) -> dict[str, TrainableTwin]:
        return {name: cast(TrainableTwin, self.module.get_submodule(name)) for name in self._layers}

    def _inputs(self, name: str) -> TrainedInputs | None:
        return cast("TrainedInputs | None", self.module.get_submodule(name).inputs)

    def _named(self, names: tuple[str, ...]) -> dict[str, nn.Parameter]:
        parameters = dict(self.module.named_parameters())
        return {name: parameters[name] for name in names}

    def _learnt(self) -> dict[str, Tensor]:
        buffers = dict(self.module.named_buffers())
        fixed = {name: buffers[name] for name in self._fixed}
        return {**self.weights(), **self.steps(), **fixed}


def keep_statistics(norm: nn.Module, _: object) -> None:
    """Normalise by the statistics that a batch norm has, whatever the mode; a forward hook."""
    norm.training = False


def step_names(module: nn.Module) -> list[str]:
    """Return the names of the parameters that say how weights and inputs are rounded."""
    return [
        f"{prefix}.{name}"
        for prefix, part in module.named_modules()
        if isinstance(part, InputRounder | WeightRounder)
        for name, _ in part.named_parameters()
    ]


def _is_offset(name: str) -> bool:
    return name.rpartition(".")[2] == _OFFSET
