"""From an open_clip model to one whose rounding can be trained.

    explicit model -> rotation (rot+lsq) -> what the calibration shows of inputs -> trainable twins

Batch norms keep their statistics in training mode, too: a proxy split of a thousand images would
only blur them, and what is trained is then what is frozen.
"""

from __future__ import annotations

import torch
from torch import nn

from clipq.errors import QuantizerError
from clipq.quant.activations import DynamicQuantizer
from clipq.quant.attention import quantize_attention
from clipq.quant.formats import ActivationFormat
from clipq.quant.methods import Calibration
from clipq.quant.observe import observe_ranges
from clipq.quant.options import CommonOptions
from clipq.quant.pipeline import Prepared
from clipq.quant.spec import QuantizerSpec, Towers
from clipq.quant.surgery import Layer, replace_modules
from clipq.quant.towers import in_towers, named_sites, tower_batches
from clipq.quant.trainable.initial_steps import observe_first
from clipq.quant.trainable.shared_inputs import attentions_of_one_input, round_once
from clipq.quant.trainable.trainable import Trainable, keep_statistics, step_names
from clipq.quant.trainable.trainable_layers import TrainedInputs, trainable_twin
from clipq.quant.trainable.trained_arithmetic import Arithmetic, SeenInput, arithmetic_of
from clipq.quant.transforms.rotation import rotation
from clipq.quant.weights import check_finite
from clipq.training_settings import TRAINING_OPTIONS, TrainingSettings

__all__ = ["prepare"]

_SHARED = ("include", "exclude", "ends", "table")


def prepare(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> Trainable:
    """Put trainable twins into `model`, in place, and return what can be trained of it.

    Args:
        model: a private copy of an open_clip model, in eval mode.
        spec: a trained quantizer.
        calibration: what steps and ranges begin from; `trained` is not looked at.

    Raises:
        QuantizerError: an unknown option, a format that the method cannot train, unusable data or
            an unsupported layer.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> spec = QuantizerSpec.parse("lsq:w4a8,learn=steps@text")
    >>> trainable = prepare(small_clip(), spec, SmallInputs().calibration)
    >>> sorted(trainable.steps())[0], tuple(trainable.weights())
    ('text_projection.inputs.step', ())
    """
    number_format = spec.require_format()
    arithmetic = arithmetic_of(spec)
    spec.read_options([*_SHARED, *arithmetic.own, *TRAINING_OPTIONS])
    settings = TrainingSettings.read(dict(spec.options))
    arithmetic.check(number_format)
    with torch.no_grad():
        transforms = [rotation(spec)] if spec.method.startswith("rot+") else []
        prepared = Prepared.of(
            model, spec, calibration, CommonOptions.read(spec), transforms=transforms
        )
        layers = prepared.layers()
        for layer_format in prepared.formats.values():
            arithmetic.check(layer_format)
        seen = _see(prepared, arithmetic, layers)
        shared = attentions_of_one_input(model, spec.towers, prepared.formats, seen)
        once = {reader: name for name, readers in shared.items() for reader in readers}
        twins: dict[nn.Module, nn.Module] = {}
        for name, layer in layers.items():
            formats = prepared.formats[name]
            check_finite(layer.weight, name)
            rounding = arithmetic.weights(layer.weight, formats.weight)
            inputs = None
            if name not in once:
                inputs = _inputs(arithmetic, layer, formats.activation, seen.get(name))
            twins[layer] = trainable_twin(layer, rounding, inputs)
        for name, (reader, *_) in shared.items():
            attention = model.get_submodule(name)
            activation = prepared.formats[reader].activation
            inputs = _inputs(arithmetic, layers[reader], activation, seen[reader])
            attention.add_module("inputs", inputs)
            attention.to(layers[reader].weight.device)
            attention.register_forward_pre_hook(round_once)
        replace_modules(model, spec.towers, twins)
        if number_format.attention is not None:
            quantize_attention(model, spec.towers, number_format.attention)
        for _, _, _, child in named_sites(model, spec.towers):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                child.register_forward_pre_hook(keep_statistics)
    weights = _reached(model, spec.towers, calibration) if settings.learn == "all" else ()
    trainable = Trainable(
        model, spec.towers, layers, prepared.formats, shared=once, weights=weights
    )
    if not trainable.steps() and settings.learn == "steps":
        raise QuantizerError(
            f"quantizer {str(spec)!r} learns steps alone, and has none to learn",
            hint="drop learn=steps, or choose a format or method whose steps are learnt, such as "
            "lsq:w4a8",
        )
    return trainable


def _see(
    prepared: Prepared, arithmetic: Arithmetic, layers: dict[str, Layer]
) -> dict[str, SeenInput]:
    """Return what calibration shows of the static inputs."""
    static = prepared.static_inputs()
    if not static:
        return {}
    model, towers, data = prepared.model, prepared.towers, prepared.calibration
    first = observe_first(model, towers, data, {name: layers[name] for name in static})
    wanted: dict[str, dict[str, ActivationFormat]] = {}
    for name, activation in static.items():
        estimator = arithmetic.estimator(activation)
        if estimator is not None:
            wanted.setdefault(estimator, {})[name] = activation
    ranges: dict[str, tuple[float, float]] = {}
    for estimator, formats in wanted.items():
        ranges |= observe_ranges(model, towers, data, dict(layers), formats, estimator=estimator)
    return {name: SeenInput(first[name], ranges.get(name)) for name in static}


def _inputs(
    arithmetic: Arithmetic,
    layer: Layer,
    activation: ActivationFormat | None,
    seen: SeenInput | None,
) -> TrainedInputs | None:
    if activation is None:
        return None
    if seen is None:
        convolution = isinstance(layer, nn.Conv2d)
        return DynamicQuantizer(activation, over="image" if convolution else "features")
    return arithmetic.inputs(activation, seen)


def _reached(model: nn.Module, towers: Towers, calibration: Calibration) -> tuple[str, ...]:
    """Return the names of the parameters that features depend on, but for steps."""
    steps = set(step_names(model))
    named = {
        name: parameter
        for name, parameter in model.named_parameters()
        if name not in steps and parameter.is_floating_point()
    }
    flags = [parameter.requires_grad for parameter in named.values()]
    found: set[str] = set()
    with torch.enable_grad():
        for parameter in named.values():
            parameter.requires_grad_(True)
        for encode, batches in tower_batches(model, towers, calibration):
            total = encode(next(batches)[:1]).float().sum()
            grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
            found |= {name for name, grad in zip(named, grads, strict=True) if grad is not None}
    for parameter, flag in zip(named.values(), flags, strict=True):
        parameter.requires_grad_(flag)
    return tuple(name for name in named if name in found and in_towers(name, towers))
