"""A quantized model any of whose layers can be put back to float, and how much each distorts.

Layers are put back in the coordinates in which they were rounded: with every one of them in float
the model computes what FP32 computes, smoothed or rotated. Of a method that does not build on
`clipq.quant.surgery`, the layers are those that differ from the float model's, and that they compute
what FP32 computes is tried out.
"""

from __future__ import annotations

import copy
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
from clipq.quant.changed_layers import changed_layers
from clipq.quant.coverage import count_operations
from clipq.quant.methods import Calibration
from clipq.quant.pipeline import stages
from clipq.quant.spec import QuantizerSpec
from clipq.quant.surgery import keeping_float_layers
from clipq.quant.towers import named_sites, tower_batches

__all__ = ["Distortion", "Mixture"]


@dataclass(frozen=True, slots=True)
class Distortion:
    """How far a quantized layer's output is from the float layer's, over calibration data.

    Args:
        own: SQNR in dB where the layer alone is quantized: its input is the float model's.
        total: SQNR in dB in the quantized model, whose earlier layers add theirs.
        cosine: between the two outputs of `total`, in -1 … 1.

    All are NaN of a matrix that is no module of its own, whose output cannot be watched.
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
        QuantizerError: as `quantize` does, or with every changed layer in float the model is not
            the float model: the method changes what lies between them, too.
    """

    def __init__(
        self, model: nn.Module, spec: QuantizerSpec | str, calibration: Calibration
    ) -> None:
        spec = QuantizerSpec.parse(spec)
        with keeping_float_layers() as kept:
            self.model = quantize(model, spec, calibration).model
        self._spec, self._calibration = spec, calibration
        self._own = bool(kept)
        self._float: dict[str, nn.Module | Tensor]
        self._rounded: dict[str, nn.Module | Tensor]
        if kept:
            self._float = dict(kept)
            self._rounded = {name: self.model.get_submodule(name) for name in kept}
            names = {module: name for name, module in self._rounded.items()}
            self._sites = [
                (parent, attribute, names[child])
                for _, parent, attribute, child in named_sites(self.model, spec.towers)
                if child in names
            ]
        else:
            changed = changed_layers(self.model, model, spec.towers)
            self._float = {name: each.exact for name, each in changed.items()}
            self._rounded = {name: each.rounded for name, each in changed.items()}
            self._sites = [(*site, name) for name, each in changed.items() for site in each.sites]
        self.layers = tuple(self._float)
        if not kept:
            self._refuse_other_changes(model)

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
        self.keep_float(self.layers)  # a method's own modules may hide their products

        def run() -> None:
            for encode, batches in self._towers():
                encode(next(batches)[:1])

        counted = count_operations(self.model, run).weights
        found = dict.fromkeys(self.layers, 0)
        for name, macs in counted.items():
            # Counted by parameter, such as "visual.conv1.weight"; a layer may hold several.
            parts = name.split(".")
            for length in range(len(parts), 0, -1):
                if (layer := ".".join(parts[:length])) in found:
                    found[layer] += macs
                    break
        return found

    def distortions(self) -> dict[str, Distortion]:
        """Return each layer's distortion; the calibration data pass through both models.

        A layer used twice is measured over both uses. All layers are quantized afterwards.
        """
        sums = {name: _Sums() for name in self.layers}
        outputs: dict[str, list[Tensor]] = {}

        def keep(name: str) -> Any:
            alone = cast(nn.Module, self._rounded[name])
            # `forward`, not a call, of clipq's own: the input has passed its transform's hook.
            run = alone.forward if self._own else alone

            def hook(_: nn.Module, inputs: Any, options: Any, output: Any) -> None:
                exact = _tensor(output)
                outputs.setdefault(name, []).append(exact.detach())
                sums[name].own(exact, _tensor(run(*inputs, **options)))

            return hook

        def compare(name: str) -> Any:
            def hook(_: nn.Module, __: Any, ___: Any, output: Any) -> None:
                sums[name].total(outputs[name].pop(0), _tensor(output))

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
        self,
        modules: Mapping[str, nn.Module | Tensor],
        hook: Callable[[str], Any],
        run: Callable[[], Any],
    ) -> None:
        with ExitStack() as stack:
            for name, module in modules.items():
                if isinstance(module, nn.Module):
                    stack.enter_context(module.register_forward_hook(hook(name), with_kwargs=True))
            run()

    @torch.no_grad()
    def _refuse_other_changes(self, model: nn.Module) -> None:
        """Refuse a method some of whose changes no layer holds, so that none could be blamed."""
        self.keep_float(self.layers)
        reference = copy.deepcopy(model).eval()
        both = (
            tower_batches(x, self._spec.towers, self._calibration) for x in (self.model, reference)
        )
        for (encode, batches), (exactly, _) in zip(*both, strict=True):
            batch = next(batches)
            found, exact = encode(batch).double(), exactly(batch).double()
            off = float((found - exact).norm() / exact.norm())
            if not self.layers or not off <= _tolerance(exactly(batch)):
                raise QuantizerError(
                    f"with all {len(self.layers)} layers that quantizer {str(self._spec)!r} "
                    f"changed put back to float, features lie {off:.2g} of their length from "
                    "FP32's: it changes more than layers, so they cannot be blamed one by one",
                    hint="round layers in place, or replace them by modules that take the same "
                    "input; methods that smooth or rotate build on clipq.quant.surgery",
                )
        self.keep_float(())


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
        if not self._total[0]:
            return Distortion(math.nan, math.nan, math.nan)
        return Distortion(_decibel(*self._own), _decibel(*self._total), cosine)

    @staticmethod
    def _add(sums: list[float], reference: Tensor, output: Tensor) -> None:
        sums[0] += float(reference.square().sum())
        sums[1] += float((output - reference).square().sum())


def _tensor(output: Any) -> Tensor:
    """Return what a module computes; of attention, which returns its weights too, the first."""
    return cast(Tensor, output[0] if isinstance(output, tuple) else output)


def _tolerance(features: Tensor) -> float:
    """Return how far rewritten attention may move features, as a share of their length."""
    return min(0.05, 1000 * torch.finfo(features.dtype).eps)


def _decibel(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal else -math.inf
