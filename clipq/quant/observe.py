"""Watching the inputs of layers while calibration data pass through the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold

from clipq.errors import QuantizerError
from clipq.quant.formats import ActivationFormat
from clipq.quant.methods import Calibration
from clipq.quant.ranges import RangeEstimator, range_estimator
from clipq.quant.spec import Towers
from clipq.quant.towers import encode_batches

__all__ = ["InputStatistics", "input_rows", "observe_ranges", "observe_statistics", "watch"]

_CHUNK = 2**24  # numbers of unfolded input held at once


class _ReachedLast(Exception):  # noqa: N818 - a signal, not an error
    """The last watched layer has run: what follows is not needed."""


def watch(
    model: nn.Module,
    towers: Towers,
    calibration: Calibration,
    layers: dict[str, nn.Module],
    see: Callable[[str, Tensor], None],
    *,
    last: str | None = None,
) -> None:
    """Run the calibration data once; call ``see(layer name, input)`` before each layer runs.

    Args:
        model: whose towers are run.
        towers: which of them.
        calibration: the data.
        layers: what to watch, by name.
        see: what to call.
        last: stop every batch once this layer has run.
    """

    def before(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _module, inputs: see(name, inputs[0].detach())

    def stop(*_: object) -> None:
        raise _ReachedLast

    with ExitStack() as stack, torch.no_grad():
        for name, layer in layers.items():
            stack.enter_context(layer.register_forward_pre_hook(before(name)))
        if last is not None:
            stack.enter_context(layers[last].register_forward_hook(stop))
        for _ in encode_batches(model, towers, calibration, until=_ReachedLast):
            pass


def observe_ranges(
    model: nn.Module,
    towers: Towers,
    calibration: Calibration,
    layers: dict[str, nn.Module],
    formats: dict[str, ActivationFormat],
    *,
    estimator: str,
) -> dict[str, tuple[float, float]]:
    """Return the range of each layer's input, as the estimator chooses it.

    Raises:
        QuantizerError: no data, a non-finite activation, or a layer that never ran.
    """
    estimators: dict[str, RangeEstimator] = {}

    def see(name: str, values: Tensor) -> None:
        _check_finite(name, values)
        if name not in estimators:
            estimators[name] = range_estimator(estimator, formats[name])
        estimators[name].see(values)

    watch(model, towers, calibration, {name: layers[name] for name in formats}, see)
    for name in formats:
        if name not in estimators:
            raise QuantizerError(
                f"{name} never ran on the calibration data, so its input has no range",
                hint="use dynamic activations (a8d), or remove the unused layer from the model",
            )
    return {name: layer_estimator.range() for name, layer_estimator in estimators.items()}


class InputStatistics:
    """What second-order methods know of a layer's input rows x.

    Args:
        gram: sum of x xᵀ over rows (groups, k, k), float32.
        absolute: sum of |x| (groups, k), float32.
        largest: max |x| (groups, k), float32.
        square: sum of x² (groups, k), float32.
        rows: how many.
    """

    def __init__(self) -> None:
        self.gram = torch.zeros(())
        self.absolute = torch.zeros(())
        self.largest = torch.zeros(())
        self.square = torch.zeros(())
        self.rows = 0

    def see(self, layer: nn.Module, values: Tensor, *, gram: bool) -> None:
        """Take a batch of the layer's input; without `gram` the matrix is left out."""
        for rows in input_rows(layer, values):
            size = rows.abs()
            if gram and self.rows:
                self.gram.baddbmm_(rows.transpose(1, 2), rows)  # in place: it may be large
            elif gram:
                self.gram = rows.transpose(1, 2) @ rows
            self.absolute = self.absolute + size.sum(1)
            self.largest = torch.maximum(self.largest.to(size.device), size.amax(1))
            self.square = self.square + size.square_().sum(1)
            self.rows += rows.shape[1]


def observe_statistics(
    model: nn.Module,
    towers: Towers,
    calibration: Calibration,
    layers: dict[str, nn.Module],
    *,
    gram: bool,
    last: str | None = None,
) -> dict[str, InputStatistics]:
    """Return statistics of each layer's input rows; layers that read one tensor share them.

    Raises:
        QuantizerError: no data, a non-finite activation, or a layer that never ran.
    """
    by_layer: dict[str, InputStatistics] = {}
    previous: list[tuple[Tensor, int, InputStatistics, tuple[Any, ...]]] = []

    def see(name: str, values: Tensor) -> None:
        _check_finite(name, values)
        geometry = _geometry(layers[name])
        for tensor, version, statistics, other in previous:
            same = (
                tensor.data_ptr() == values.data_ptr()
                and tensor.shape == values.shape
                and tensor.stride() == values.stride()
                and version == values._version  # an in-place ReLU may lie between
                and geometry == other
            )
            if same and by_layer.setdefault(name, statistics) is statistics:
                return
        statistics = by_layer.setdefault(name, InputStatistics())
        statistics.see(layers[name], values, gram=gram)
        # Kept, so that its address is not given to another tensor meanwhile.
        previous[:] = [*previous[-1:], (values, values._version, statistics, geometry)]

    watch(model, towers, calibration, layers, see, last=last)
    previous.clear()
    for name in layers:
        if name not in by_layer:
            raise QuantizerError(
                f"{name} never ran on the calibration data, so nothing is known of its input",
                hint="exclude it, or use a method that needs no calibration",
            )
    return by_layer


def input_rows(layer: nn.Module, values: Tensor) -> Iterator[Tensor]:
    """Yield the rows that the flattened weight multiplies: float32, (groups, n, k).

    A linear layer has one group and k = in; a convolution's row is one window, k = in/groups·kh·kw.
    """
    if not isinstance(layer, nn.Conv2d):
        yield values.reshape(1, -1, values.shape[-1]).float()
        return
    margins = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = pad(values.float(), margins, mode=mode)
    windows = padded[0].numel() * layer.kernel_size[0] * layer.kernel_size[1]
    for part in torch.split(padded, max(1, _CHUNK // max(1, windows))):
        columns = unfold(part, layer.kernel_size, layer.dilation, 0, layer.stride)
        rows = columns.transpose(1, 2).flatten(0, 1)
        yield rows.reshape(len(rows), layer.groups, -1).transpose(0, 1)


def _geometry(layer: nn.Module) -> tuple[Any, ...]:
    if not isinstance(layer, nn.Conv2d):
        return ()
    return (
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.padding_mode,
    )


def _check_finite(name: str, values: Tensor) -> None:
    low, high = (float(x) for x in torch.aminmax(values.float()))
    if not (-torch.inf < low <= high < torch.inf):
        raise QuantizerError(
            f"the input of {name} reaches [{low}, {high}] on the calibration data",
            hint="check images, texts and weights for NaN and Inf",
        )
