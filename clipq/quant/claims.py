"""Whether a quantized model is what its format says, counted in the products that it runs.

While one image and one text pass through the towers, both operands of every product with a weight
are looked at, in whatever module it happens. A method that names a format claims that they lie on
that format's levels. Three things contradict it: an operand on more levels than the format has
codes, which was not rounded; a weight, or a module of clipq's own, of fewer bits than the format
has; an input that clipq's own module rounds to another format. What a method does otherwise on
purpose it declares when it is registered, and reports show it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from clipq.errors import QuantizerError, did_you_mean, listed
from clipq.quant.attention import AttentionProducts
from clipq.quant.coverage import Operations, Product
from clipq.quant.formats import Format
from clipq.quant.levels import input_on_levels, integer_bits, weight_on_levels
from clipq.quant.methods import Method
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear
from clipq.quant.spec import QuantizerSpec, Towers
from clipq.quant.towers import in_towers

__all__ = [
    "EXCEPTIONS",
    "Claim",
    "ClaimCounter",
    "chooses_layers",
    "declared_exceptions",
    "is_coarse",
]

EXCEPTIONS = ("float", "levels", "nearest")
"""What a method may declare: layers left in float; weights or inputs off the levels of the format,
because scales were folded back for example; features further from FP32 than rounding to nearest."""
_SELECTION = {"include", "exclude", "ends", "table"}
_NEGLIGIBLE = 0.01  # of a tower's multiply-accumulates
_FEWEST_WEIGHTS, _SHORTEST_ROW = 256, 8  # below these, that few levels are used means nothing


@dataclass(frozen=True, slots=True)
class Claim:
    """What became of a quantizer's claim to be of a format.

    Args:
        counted: share of the weight-bearing multiply-accumulates, 0 to 1, whose weights were seen.
        held: share of them whose weights have as few levels as the format has codes.
        in_float: weights that have more, by name.
        contradictions: one line each; empty where the model is what it is said to be.
    """

    counted: float
    held: float
    in_float: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return the claim as strict-JSON values."""
        return {
            "counted": self.counted,
            "held": self.held,
            "in_float": list(self.in_float),
        }


def declared_exceptions(method: Method, spec: QuantizerSpec) -> dict[str, str]:
    """Return what a method declared under ``exceptions`` when it was registered, by kind.

    Raises:
        QuantizerError: a kind is unknown, or no reason is given.

    >>> from clipq.quant.methods import find_method
    >>> declared_exceptions(find_method("rtn:w8"), QuantizerSpec.parse("rtn:w8"))
    {}
    """
    found = getattr(method, "exceptions", {})
    if not isinstance(found, Mapping):
        raise QuantizerError(
            f"quantizer method {spec.method!r} declares exceptions {found!r}, not a mapping",
            hint='write exceptions={"float": "why"} where it is registered',
        )
    for kind, reason in found.items():
        if kind not in EXCEPTIONS:
            raise QuantizerError(
                f"quantizer method {spec.method!r} declares an exception {kind!r}",
                hint=did_you_mean(str(kind), EXCEPTIONS),
            )
        if not isinstance(reason, str) or not reason.strip():
            raise QuantizerError(
                f"quantizer method {spec.method!r} gives no reason for its exception {kind!r}",
                hint="say why in a few words; reports show them",
            )
    return dict(found)


def chooses_layers(spec: QuantizerSpec) -> bool:
    """Whether options leave layers in float, or give them formats of their own.

    >>> chooses_layers(QuantizerSpec.parse("rtn:w4,ends=float"))
    True
    """
    return bool(_SELECTION & {key for key, _ in spec.options})


class ClaimCounter:
    """Looks at a model's products, and says what is left of the claim.

    Args:
        spec: names the format.
        exceptions: what the method declared.
        coarse: the float model's weights lie on few levels already, so that few say nothing.
    """

    def __init__(
        self, spec: QuantizerSpec, exceptions: Mapping[str, str], *, coarse: bool = False
    ) -> None:
        self._spec, self._exceptions, self._coarse = spec, exceptions, coarse
        self._format: Format = spec.require_format()
        self._chosen = chooses_layers(spec)
        self._seen: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._float_weights: Counter[str] = Counter()
        self._float_inputs: Counter[str] = Counter()
        self._wrong: dict[str, list[str]] = {}

    def look(self, product: Product) -> None:
        """Take one product into account."""
        if not in_towers(product.name, self._spec.towers):
            return
        ours = isinstance(product.module, QuantizedLinear | QuantizedConv2d)
        self._seen[product.name] += product.macs
        fits = self._weigh(product, ours=ours)  # each time: a slice, or a copy, may be another's
        if fits is not None:
            (self._held if fits else self._float_weights)[product.name] += product.macs
        if ours and not self._chosen:
            self._compare_inputs(product)
        elif not ours and self._format.activation is not None:
            if not product.values.isfinite().all():
                return
            if input_on_levels(product.values, self._format.activation) is False:
                self._float_inputs[product.name] += product.macs

    def result(self, model: nn.Module, float_operations: Operations) -> Claim:
        """Return what was found.

        Args:
            model: the quantized model.
            float_operations: of the model that it was made from.
        """
        total = float_operations.weights
        self._refuse_float(self._float_weights, total, "weights", f"w{self._format.weight.bits}")
        if self._format.activation is not None:
            bits = f"a{self._format.activation.bits}"
            self._refuse_float(self._float_inputs, total, "inputs", bits)
        self._compare_attention(model)
        whole = max(1, total.total())
        return Claim(
            counted=min(1.0, self._seen.total() / whole),
            held=min(1.0, self._held.total() / whole),
            in_float=tuple(sorted(self._float_weights)),
            contradictions=tuple(_line(what, names) for what, names in self._wrong.items()),
        )

    def _weigh(self, product: Product, *, ours: bool) -> bool | None:
        weight, number_format = product.weight, self._format.weight
        if not weight.is_floating_point():
            weight = weight.float()  # codes, in an integer product
        if not weight.isfinite().all():
            return None
        if ours and self._chosen:
            return True  # formats of single layers are the table's
        fits = weight_on_levels(weight, number_format)
        large = weight.numel() >= _FEWEST_WEIGHTS and weight[0].numel() >= _SHORTEST_ROW
        if fits and large and not self._coarse and number_format.number == "int":
            bits = integer_bits(weight, number_format.granularity)
            if bits is not None and bits <= number_format.bits - 2:
                self._add(f"weights of {bits} bits, not {number_format.bits}", product.name)
        if fits is False and ours and "levels" not in self._exceptions:
            self._add(
                f"weights on more levels than {number_format} has, inside clipq's modules",
                product.name,
            )
        return fits

    def _compare_inputs(self, product: Product) -> None:
        claimed = self._format.activation
        found = getattr(getattr(product.module, "inputs", None), "number_format", None)
        if found != claimed:
            texts = [str(x) if x is not None else "float" for x in (found, claimed)]
            self._add(f"inputs rounded to {texts[0]}, not {texts[1]}", product.name)

    def _compare_attention(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            ours = isinstance(module, AttentionProducts) and in_towers(name, self._spec.towers)
            if ours and module.number_format != self._format.attention:
                claimed = self._format.attention or "float"
                self._add(f"attention rounded to {module.number_format}, not {claimed}", name)

    def _refuse_float(
        self, found: Counter[str], total: Counter[str], what: str, claimed: str
    ) -> None:
        if self._chosen or {"float", "levels"} & set(self._exceptions):
            return
        towers: tuple[Towers, ...] = ("vision", "text")
        for tower in towers:
            names = [name for name in found if in_towers(name, tower)]
            whole = sum(macs for name, macs in total.items() if in_towers(name, tower))
            if sum(found[name] for name in names) > _NEGLIGIBLE * whole:
                for name in names:
                    self._add(f"{what} on more levels than {claimed} has codes", name)

    def _add(self, what: str, name: str) -> None:
        names = self._wrong.setdefault(what, [])
        if name not in names:
            names.append(name)


def is_coarse(model: nn.Module, bits: int) -> bool:
    """Whether a weight of a float model lies on so few levels that `bits` could not be missed.

    >>> is_coarse(nn.Linear(64, 64), 8)
    False
    """
    for name, parameter in model.named_parameters():
        large = parameter.dim() >= 2 and parameter.numel() >= _FEWEST_WEIGHTS
        if large and name.endswith(("weight", "proj")) and parameter.isfinite().all():
            used = integer_bits(parameter.detach(), "channel")
            if used is not None and used <= bits - 2:
                return True
    return False


def _line(what: str, names: list[str]) -> str:
    return f"{what}: {listed(names)}"
