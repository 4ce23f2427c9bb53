"""What every post-training method shares: the order of steps, with one step of its own.

    explicit model -> transforms (exact) -> activation ranges -> rounding of weights -> bias

A method brings transforms and a rounder. A rounder that asks for statistics of its inputs is fed
stage by stage (a stage is a transformer block), from the model whose earlier stages are quantized
already, as GPTQ demands; memory then holds the statistics of one stage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, cast

from torch import Tensor, nn

from clipq.quant.attention import quantize_attention
from clipq.quant.bias import correct_biases
from clipq.quant.explicit import make_explicit
from clipq.quant.formats import ActivationFormat, Format, WeightFormat
from clipq.quant.integer import check_integer_format, integer_twin
from clipq.quant.methods import Calibration
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear
from clipq.quant.observe import InputStatistics, observe_ranges, observe_statistics
from clipq.quant.options import COMMON, CommonOptions
from clipq.quant.selection import select_formats
from clipq.quant.spec import QuantizerSpec, Towers
from clipq.quant.storage import stored_bits
from clipq.quant.surgery import (
    Layer,
    check_groups,
    in_order,
    input_quantizer,
    plain_layers,
    replace_layers,
    replace_modules,
)
from clipq.quant.transforms.structure import execution_order
from clipq.quant.weights import WeightRange, quantize_weight

__all__ = ["Prepared", "RoundToNearest", "Rounder", "Task", "post_training", "stages", "tower_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One weight to round.

    Args:
        name: of the layer.
        weight: (out, in) or (out, in/groups, kh, kw).
        format: what to round to.
        chosen: how ranges are chosen.
        groups: of a convolution, 1 otherwise.
        statistics: of its input rows, if the rounder asked for them.

    >>> import torch
    >>> task = Task("fc", torch.tensor([[1.0, 0.4, -0.6]]), WeightFormat(2), "minmax")
    >>> RoundToNearest()([task])["fc"].tolist()  # the codes of w2 are -1, 0 and 1
    [[1.0, 0.0, -1.0]]
    """

    name: str
    weight: Tensor
    format: WeightFormat
    chosen: WeightRange
    groups: int = 1
    statistics: InputStatistics | None = None


class Rounder(Protocol):
    """Rounds the weights of one stage."""

    @property
    def sequential(self) -> bool:
        """Whether statistics of the inputs are needed, stage by stage."""

    def __call__(self, tasks: list[Task]) -> dict[str, Tensor]:
        """Return the rounded weights by name, in their own shapes and dtypes."""


class RoundToNearest:
    """Each weight to the nearest point of its grid.

    >>> import torch
    >>> task = Task("fc", torch.tensor([[7.0, 2.4, -3.6]]), WeightFormat(4), "minmax")
    >>> RoundToNearest()([task])["fc"].tolist()  # a step is 1
    [[7.0, 2.0, -4.0]]
    """

    sequential = False

    def __call__(self, tasks: list[Task]) -> dict[str, Tensor]:
        """Return the rounded weights by name."""
        return {
            task.name: quantize_weight(task.weight, task.format, name=task.name, chosen=task.chosen)
            for task in tasks
        }


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An explicit model, about to be transformed.

    Args:
        model: changed in place.
        spec: the quantizer.
        towers: the towers to change.
        calibration: data.
        order: names of all modules without children as they run.
        formats: of each layer that will be quantized, in running order.
    """

    model: nn.Module
    spec: QuantizerSpec
    towers: Towers
    calibration: Calibration
    order: list[str]
    formats: dict[str, Format]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        spec: QuantizerSpec,
        calibration: Calibration,
        options: CommonOptions,
        *,
        transforms: Iterable[Callable[[Prepared], None]] = (),
    ) -> Prepared:
        """Make `model` explicit in place, choose layers and formats, and transform it.

        Args:
            model: a private copy.
            spec: must name a format.
            calibration: whose first image and text tell the order of layers.
            options: what is included, excluded and kept in float.
            transforms: run in order on the explicit float model.

        Raises:
            QuantizerError: no format, unusable data or an unsupported layer.
        """
        number_format = spec.require_format()
        make_explicit(model, spec.towers)
        order = execution_order(model, spec.towers, calibration)
        layers = plain_layers(model, spec.towers)
        formats = select_formats(in_order(layers, order), number_format, options)
        check_groups(layers, formats)
        del layers  # a layer that is replaced shall be freed
        prepared = cls(model, spec, spec.towers, calibration, order, formats)
        for transform in transforms:
            transform(prepared)
        return prepared

    def layers(self) -> dict[str, Layer]:
        """Return the layers that will be quantized, in running order."""
        layers = plain_layers(self.model, self.towers)
        return {name: layers[name] for name in self.formats}

    def static_inputs(self) -> dict[str, ActivationFormat]:
        """Return the formats of inputs whose ranges are calibrated, by layer."""
        return {
            name: f.activation
            for name, f in self.formats.items()
            if f.activation is not None and not f.activation.dynamic
        }

    def input_ranges(
        self, layers: Mapping[str, Layer], *, estimator: str
    ) -> dict[str, tuple[float, float]]:
        """Return the calibrated range of each static input, by layer; reads nothing for none."""
        static = self.static_inputs()
        if not static:
            return {}
        return observe_ranges(
            self.model, self.towers, self.calibration, dict(layers), static, estimator=estimator
        )


def post_training(
    model: nn.Module,
    spec: QuantizerSpec,
    calibration: Calibration,
    *,
    transforms: Iterable[Callable[[Prepared], None]] = (),
    rounder: Rounder | None = None,
    own: Iterable[str] = (),
) -> nn.Module:
    """Quantize `model` in place.

    Args:
        model: a private copy.
        spec: must name a format; its options are the common ones and `own`.
        calibration: read several times from the start.
        transforms: run in order on the explicit float model.
        rounder: of weights; to nearest by default.
        own: names of the method's own options.

    Raises:
        QuantizerError: an unknown option, unusable data or an unsupported layer.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> spec, calibration = QuantizerSpec.parse("mine:w4@text"), SmallInputs().calibration
    >>> model = post_training(small_clip(), spec, calibration)  # without a transform this is rtn
    >>> type(model.transformer.resblocks[0].mlp.c_fc).__name__
    'QuantizedLinear'
    """
    number_format = spec.require_format()
    spec.read_options([*COMMON, *own])
    options = CommonOptions.read(spec)
    prepared = Prepared.of(model, spec, calibration, options, transforms=transforms)
    _round(prepared, rounder or RoundToNearest(), options)
    if number_format.attention is not None:
        quantize_attention(model, spec.towers, number_format.attention)
    return model


def _round(prepared: Prepared, rounder: Rounder, options: CommonOptions) -> None:
    model, towers, formats = prepared.model, prepared.towers, prepared.formats
    layers = prepared.layers()
    if options.integer:
        for number_format in formats.values():
            check_integer_format(number_format)
    ranges = prepared.input_ranges(layers, estimator=options.range)
    keep = options.correct_bias or options.integer
    replaced: dict[str, QuantizedLinear | QuantizedConv2d] = {}
    for stage in stages(list(formats)):
        here = {name: layers[name] if keep else layers.pop(name) for name in stage}
        statistics: dict[str, InputStatistics] = {}
        if rounder.sequential:
            statistics = observe_statistics(
                model,
                tower_of(stage[0]),
                prepared.calibration,
                dict(here),
                gram=True,
                last=stage[-1],
            )
        tasks = [
            Task(
                name,
                layer.weight.detach(),
                formats[name].weight,
                cast(WeightRange, options.weight_range),
                getattr(layer, "groups", 1),
                statistics.get(name),
            )
            for name, layer in here.items()
        ]
        inputs = {
            name: input_quantizer(layer, formats[name].activation, ranges.get(name))
            for name, layer in here.items()
        }
        bits = {
            name: stored_bits(layer.weight.shape, formats[name].weight)
            for name, layer in here.items()
        }
        # Stage by stage also where nothing is observed: a stage's float weights are freed at once.
        twins = replace_layers(model, towers, here, rounder(tasks), inputs, bits=bits)
        replaced |= twins if keep else {}
    if options.correct_bias:
        correct_biases(model, towers, prepared.calibration, layers, replaced)
    if options.integer:
        integers = {
            twin: integer_twin(
                twin, layers[name].weight, formats[name], chosen=options.weight_range
            )
            for name, twin in replaced.items()
        }
        replace_modules(model, towers, integers)


def stages(names: list[str]) -> Iterator[list[str]]:
    """Yield neighbouring layers that share a block, in running order.

    A block is whatever its name's last number names: ``visual.transformer.resblocks.3``; a layer
    outside of numbered blocks is a stage of its own.

    >>> list(stages(["visual.conv1", "visual.blocks.0.qkv", "visual.blocks.0.proj", "visual.proj"]))
    [['visual.conv1'], ['visual.blocks.0.qkv', 'visual.blocks.0.proj'], ['visual.proj']]
    """

    def block(name: str) -> str:
        match = re.match(r"(.*\.\d+)\.", name)
        return match[1] if match else name

    for _, members in groupby(names, key=block):
        yield list(members)


def tower_of(name: str) -> Towers:
    """Return the tower that a layer belongs to.

    >>> tower_of("visual.conv1"), tower_of("transformer.resblocks.0.mlp.c_fc")
    ('vision', 'text')
    """
    return "vision" if name.startswith("visual.") else "text"
