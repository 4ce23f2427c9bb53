"""Matched noise: FP32 with Gaussian noise of rounding's size on each layer, as a control.

`noise:w4a8` rounds nothing. Where `rtn:w4a8` would put a rounded layer, FP32's layer stays and its
output gets zero-mean Gaussian noise. Its variance is, for each output feature j of layer l,

    σ²_lj = E[(ŷ_lj - y_lj)²],    y = W x + b,    ŷ = Ŵ x̂ + b

over the samples and positions of the calibration split, x being FP32's own input of the layer: the
error that rounding adds at that layer, its mean included. So noise and quantizer differ in what
the error depends on, and not in how large it is. If a quantizer gains something over FP32 that the
noise of the same format does not, error of that size is not why.

A sample's noise is a function of the sample, the layer and the option `seed` (0) alone; see
`clipq.quant.drawn_noise`. Ours: a control for the study's claim about robustness to noise and blur,
of which its authors later said that noise of the same size does not show it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.drawn_noise import gaussian, sample_keys
from clipq.quant.methods import Calibration, quantizers
from clipq.quant.modules import quantized_twin
from clipq.quant.options import SELECTION, CommonOptions, read_number
from clipq.quant.pipeline import Prepared
from clipq.quant.spec import QuantizerSpec
from clipq.quant.surgery import Layer, input_quantizer
from clipq.quant.towers import encode_batches, tower_batches
from clipq.quant.weights import quantize_weight

__all__ = ["noise"]

_REASON = "a control: layers stay in float, and their outputs get noise of rounding's size"
_OPTIONS = ("range", "wrange", "table", "seed", *SELECTION)


@quantizers.register("noise", version=1, draws=True, exceptions={"float": _REASON})
def noise(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Add noise in place to every layer that the format would round; needs a format."""
    number_format = spec.require_format()
    spec.read_options(_OPTIONS)
    options = CommonOptions.read(spec)
    seed = int(read_number(spec, "seed", 0, low=0, high=2**31 - 1))
    if number_format.attention is not None:
        raise QuantizerError(
            f"quantizer {str(spec)!r}: noise stands for rounded layers, not for rounded attention",
            hint="leave out `k` and `s` of the format",
        )
    prepared = Prepared.of(model, spec, calibration, options)
    layers = prepared.layers()
    sizes = _error_sizes(prepared, layers, options)
    axes = _sample_axes(model, spec, calibration, layers)
    towers = {top: _Samples() for top in ("visual", "text")}
    for name, layer in layers.items():
        samples = towers["visual" if name.startswith("visual.") else "text"]
        adder = _Noise(f"{seed}/{name}", sizes[name], axes[name], samples)
        layer.add_module("noise", adder)  # beside the layer, so that it moves and is copied along
        layer.register_forward_hook(_add_noise)
    _watch_inputs(model, towers)
    return model


class _Samples(nn.Module):
    """Which samples a tower is encoding: their keys, and how often each place was visited."""

    keys: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.visits: Counter[str] = Counter()

    def given(self, inputs: Tensor) -> None:
        self.keys = sample_keys(inputs)
        self.visits.clear()


class _Noise(nn.Module):
    """The noise of one layer.

    Args:
        place: names it.
        size: standard deviation per output feature, shaped as the features of one sample are.
        axis: of the output along which samples lie; None where all samples share one output.
        samples: which are being encoded.
    """

    size: Tensor

    def __init__(self, place: str, size: Tensor, axis: int | None, samples: _Samples) -> None:
        super().__init__()
        self.place, self.axis, self.samples = place, axis, samples
        self.register_buffer("size", size)

    def forward(self, output: Tensor) -> Tensor:
        """Return the output with noise."""
        keys = self.samples.keys
        if keys is None:
            raise QuantizerError(
                "noise was asked for before its tower was given an input",
                hint="encode with encode_image and encode_text",
            )
        visit = self.samples.visits[self.place]
        self.samples.visits[self.place] += 1
        place = f"{self.place}/{visit}"
        if self.axis is None:
            drawn = gaussian(torch.zeros_like(keys[:1]), place, tuple(output.shape))[0]
        else:
            count = output.shape[self.axis] // len(keys)
            whole = output.movedim(self.axis, 0)
            own = (*((count,) if count > 1 else ()), *whole.shape[1:])
            drawn = gaussian(keys, place, own).reshape(whole.shape).movedim(0, self.axis)
        return output + (drawn * self.size).to(output.dtype)


def _add_noise(layer: nn.Module, _: tuple[Any, ...], output: Tensor) -> Tensor:
    return cast(Tensor, layer.noise(output))  # type: ignore[operator]


def _watch_inputs(model: nn.Module, towers: dict[str, _Samples]) -> None:
    """Let each tower's samples be known from what the tower is given."""
    texts = getattr(model, "text", None)
    entrances = {
        "visual": getattr(model, "visual", None),
        "text": texts if isinstance(texts, nn.Module) else getattr(model, "token_embedding", None),
    }
    for tower, entrance in entrances.items():
        if isinstance(entrance, nn.Module):
            entrance.add_module("noise_samples", towers[tower])
            entrance.register_forward_pre_hook(_note_inputs)


def _note_inputs(entrance: nn.Module, inputs: tuple[Any, ...]) -> None:
    entrance.noise_samples.given(inputs[0])  # type: ignore[operator, union-attr]


@torch.no_grad()
def _error_sizes(
    prepared: Prepared, layers: dict[str, Layer], options: CommonOptions
) -> dict[str, Tensor]:
    """Return the root mean square of what rounding adds to each output feature, by layer."""
    formats = prepared.formats
    ranges = prepared.input_ranges(layers, estimator=options.range)
    twins = {
        name: quantized_twin(
            layer,
            quantize_weight(
                layer.weight.detach(),
                formats[name].weight,
                name=name,
                chosen=cast(Any, options.weight_range),
            ),
            input_quantizer(layer, formats[name].activation, ranges.get(name)),
        )
        for name, layer in layers.items()
    }
    squares: dict[str, Tensor] = {}
    rows: Counter[str] = Counter()

    def compare(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        channels = 1 if isinstance(layers[name], nn.Conv2d) else -1

        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            difference = (twins[name](inputs[0]) - output).float().movedim(channels, -1)
            flat = difference.reshape(-1, difference.shape[-1])
            squares[name] = squares.get(name, torch.zeros(())) + flat.double().square().sum(0)
            rows[name] += len(flat)

        return hook

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.enter_context(layer.register_forward_hook(compare(name)))
        for _ in encode_batches(prepared.model, prepared.towers, prepared.calibration):
            pass
    found = {}
    for name, layer in layers.items():
        if name not in squares:
            raise QuantizerError(
                f"{name} never ran on the calibration data, so the size of its error is unknown",
                hint="exclude it, or remove the unused layer from the model",
            )
        size = (squares[name] / rows[name]).sqrt().float()
        found[name] = size[:, None, None] if isinstance(layer, nn.Conv2d) else size
    return found


@torch.no_grad()
def _sample_axes(
    model: nn.Module, spec: QuantizerSpec, calibration: Calibration, layers: dict[str, Layer]
) -> dict[str, int | None]:
    """Return the axis of each layer's output along which samples lie; None where they share it.

    The first sample is encoded alone and then before a copy of itself: what grew is the axis.

    Raises:
        QuantizerError: samples do not lie one after the other.
    """
    alone: dict[str, Tensor] = {}
    twice: dict[str, Tensor] = {}
    for seen, times in ((alone, 1), (twice, 2)):

        def keep(name: str, seen: dict[str, Tensor] = seen) -> Callable[..., None]:
            def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
                seen.setdefault(name, output)

            return hook

        with ExitStack() as stack:
            for name, layer in layers.items():
                stack.enter_context(layer.register_forward_hook(keep(name)))
            for encode, batches in tower_batches(model, spec.towers, calibration):
                first = next(batches)[:1]
                encode(torch.cat([first] * times))
    return {name: _grown(name, alone[name], twice[name]) for name in layers}


def _grown(name: str, alone: Tensor, twice: Tensor) -> int | None:
    if alone.shape == twice.shape:
        return None
    grown = [i for i, (a, b) in enumerate(zip(alone.shape, twice.shape, strict=True)) if a != b]
    if len(grown) == 1 and twice.shape[grown[0]] == 2 * alone.shape[grown[0]]:
        halves = twice.chunk(2, grown[0])
        if all(torch.allclose(half, alone, rtol=1e-3, atol=1e-3) for half in halves):
            return grown[0]
    raise QuantizerError(
        f"samples cannot be told apart in the output of {name}: {tuple(alone.shape)} of one, "
        f"{tuple(twice.shape)} of two",
        hint=f"leave it without noise: exclude={name}",
    )
