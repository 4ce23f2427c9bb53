"""A quantized model any of whose layers can be put back to float, and how much each distorts.

Layers are put back in the coordinates in which they were rounded: with every one of them in float
the model computes what FP32 computes, smoothed or rotated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.apply import quantize
from clipq.quant.coverage import count_operations
from clipq.quant.methods import Calibration
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear
from clipq.quant.pipeline import stages
from clipq.quant.spec import QuantizerSpec
from clipq.quant.surgery import Layer, keeping_float_layers
from clipq.quant.towers import named_sites, tower_batches

__all__ = ["Distortion", "Mixture"]


@dataclass(frozen=True, slots=True)
class Distortion:
    """How far a quantized layer's output is from the float layer's, over calibration data.

    Args:
        own: SQNR in dB where the layer alone is quantized: its input is the float model's.
        total: SQNR in dB in the quantized model, whose earlier layers add theirs.
        cosine: between the two outputs of `total`, in -1 … 1.
    """

    own: float
    total: float
    cosine: float


class Mixture:
    """A quantized model with layers that can be switched to float and back.

    Args:
        model: an open_clip model; left as it is.
        spec: what to quantize with.
        calibration: data for the method, and for `distortions`.

    Attributes:
        model: the quantized copy, with the layers switched as `keep_float` said last.
        layers: names of what can be switched, in the order in which it was quantized.

    Raises:
        QuantizerError: as `quantize` does, or the method brings modules of its own.
    """

    def __init__(
        self, model: nn.Module, spec: QuantizerSpec | str, calibration: Calibration
    ) -> None:
        spec = QuantizerSpec.parse(spec)
        with keeping_float_layers() as kept:
            self.model = quantize(model, spec, calibration).model
        if not kept:
            raise QuantizerError(
                f"quantizer {str(spec)!r} brings modules of its own, whose layers cannot be put "
                "back to float one by one",
                hint="methods that build on clipq.quant.surgery.replace_layers allow it",
            )
        self._spec, self._calibration = spec, calibration
        self._float: dict[str, Layer] = dict(kept)
        self._rounded = {name: self.model.get_submodule(name) for name in kept}
        names = {module: name for name, module in self._rounded.items()}
        self._sites = [
            (parent, attribute, names[child])
            for _, parent, attribute, child in named_sites(self.model, spec.towers)
            if child in names
        ]
        self.layers = tuple(kept)

    def blocks(self) -> dict[str, tuple[str, ...]]:
        """Return the layers by the block that they share, such as ``visual.blocks.3``."""
        blocks: dict[str, tuple[str, ...]] = {}
        for stage in stages(list(self.layers)):
            parts = [name.split(".") for name in stage]
            shared = 0
            while len(stage) > 1 and all(p[: shared + 1] == parts[0][: shared + 1] for p in parts):
                shared += 1
            blocks[".".join(parts[0][:shared]) if shared else stage[0]] = tuple(stage)
        return blocks

    def keep_float(self, names: Iterable[str]) -> None:
        """Put these layers into float, and all others into their quantized form.

        Raises:
            QuantizerError: a name is not among `layers`.
        """
        chosen = set(names)
        unknown = sorted(chosen - set(self.layers))
        if unknown:
            raise QuantizerError(
                f"no quantized layer is called {unknown[0]!r}",
                hint=f"layers are called like {self.layers[0]!r}",
            )
        for parent, attribute, name in self._sites:
            setattr(parent, attribute, (self._float if name in chosen else self._rounded)[name])

    def macs(self) -> dict[str, int]:
        """Return the multiply-accumulates of each layer, for one image and one text."""
        self.keep_float(())

        def run() -> None:
            for encode, batches in self._towers():
                encode(next(batches)[:1])

        counted = count_operations(self.model, run).quantized
        return {name: counted.get(name, 0) for name in self.layers}

    def distortions(self) -> dict[str, Distortion]:
        """Return each layer's distortion; the calibration data pass through both models.

        A layer used twice is measured over both uses. All layers are quantized afterwards.
        """
        sums = {name: _Sums() for name in self.layers}
        outputs: dict[str, list[Tensor]] = {}

        def keep(name: str) -> Any:
            def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
                outputs.setdefault(name, []).append(output.detach())
                # `forward`, not a call: the input has passed the transform's hook already.
                alone = cast(QuantizedLinear | QuantizedConv2d, self._rounded[name])
                sums[name].own(output, alone.forward(inputs[0]))

            return hook

        def compare(name: str) -> Any:
            def hook(_: nn.Module, __: Any, output: Tensor) -> None:
                sums[name].total(outputs[name].pop(0), output)

            return hook

        for encode, batches in self._towers():
            for batch in batches:
                outputs.clear()
                self.keep_float(self.layers)
                self._hooked(self._float, keep, partial(encode, batch))
                self.keep_float(())
                self._hooked(self._rounded, compare, partial(encode, batch))
        return {name: sums[name].result() for name in self.layers}

    def _towers(self) -> Iterator[tuple[Callable[[Tensor], Tensor], Iterator[Tensor]]]:
        return tower_batches(self.model, self._spec.towers, self._calibration)

    @torch.no_grad()
    def _hooked(
        self, modules: Mapping[str, nn.Module], hook: Callable[[str], Any], run: Callable[[], Any]
    ) -> None:
        with ExitStack() as stack:
            for name, module in modules.items():
                stack.enter_context(module.register_forward_hook(hook(name)))
            run()


class _Sums:
    """Sums over outputs, in double precision."""

    def __init__(self) -> None:
        self._own = [0.0, 0.0]
        self._total = [0.0, 0.0]
        self._products = [0.0, 0.0]

    def own(self, reference: Tensor, output: Tensor) -> None:
        self._add(self._own, reference.double(), output.double())

    def total(self, reference: Tensor, output: Tensor) -> None:
        exact, quantized = reference.double(), output.double()
        self._add(self._total, exact, quantized)
        self._products[0] += float((exact * quantized).sum())
        self._products[1] += float(quantized.square().sum())

    def result(self) -> Distortion:
        norms = math.sqrt(self._total[0] * self._products[1])
        cosine = self._products[0] / norms if norms else math.nan
        return Distortion(_decibel(*self._own), _decibel(*self._total), cosine)

    @staticmethod
    def _add(sums: list[float], reference: Tensor, output: Tensor) -> None:
        sums[0] += float(reference.square().sum())
        sums[1] += float((output - reference).square().sum())


def _decibel(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal else -math.inf
