"""Number formats of weights, activations and attention as small values with a text form.

Grammar, all lower case, nothing optional left implicit in the canonical form::

    format     = weight [ activation ] [ attention ]
    weight     = "w" number [ "t" | "g" size ] [ "z" ] [ "p" ]
    activation = "a" number [ "d" [ "g" size ] ] [ "z" ] [ "p" ]
    attention  = [ "k" bits ] [ "s" bits ]
    number     = bits | "e4m3" | "e5m2" | "nf4" | "mxfp8" | "mxfp4"

| part | meaning |
|---|---|
| `w4` | 4-bit integer weights (2 to 8), one scale per output channel |
| `we4m3`, `wnf4` ... | another number than an integer, see `Number` |
| `t` | one scale for the whole weight tensor |
| `g64` | one scale per 64 along the input dimension (a convolution's row is in·kh·kw) |
| `z` | asymmetric: an integer zero point beside the scale; without it symmetric |
| `p` | scales are powers of two, rounded up |
| `a8` | 8-bit activations (2 to 8), one static scale per tensor, range from calibration |
| `d`, `dg64` | dynamic: one scale per token, or per 64 features of a token, from the token itself |
| `k8` | both operands of the attention products: queries, keys and values, dynamic per token |
| `s8` | attention probabilities (softmax), unsigned over [0, 1] |

`Format.parse` accepts exactly what `str` prints: ``str(Format.parse(text)) == text``.
This module never imports torch: planning needs formats, not tensors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from clipq.errors import QuantizerError, did_you_mean

__all__ = ["ActivationFormat", "AttentionFormat", "Format", "Number", "WeightFormat"]

Number = Literal["int", "e4m3", "e5m2", "nf4", "mxfp8", "mxfp4"]
"""What a code means.

- ``int``: an integer times the scale, two's complement;
- ``e4m3``, ``e5m2``: 8-bit floats (OCP FP8; largest values 448 and 57,344), times the scale;
- ``nf4``: one of 16 quantiles of a normal distribution, times the absolute maximum (QLoRA);
- ``mxfp8``, ``mxfp4``: blocks of 32 e4m3 or e2m1 floats that share a power of two (OCP MX).
"""

GRAMMAR = "w<number>[t|g<size>][z][p][a<number>[d[g<size>]][z][p]][k<bits>][s<bits>]"
_EXAMPLES = (
    f"a format reads {GRAMMAR}, for example w8, w8a8, w4g32z, w8ta8z, w4a8d, wnf4g64, "
    "we4m3ae4m3, wmxfp4amxfp8 or w8a8k8s8"
)
_BITS = {"e4m3": 8, "e5m2": 8, "nf4": 4, "mxfp8": 8, "mxfp4": 4}
_MX_BLOCK = 32
_NUMBER = "(0|[1-9][0-9]*)"
_KIND = f"(?:{_NUMBER}|({'|'.join(_BITS)}))"
_PATTERN = re.compile(
    f"w{_KIND}(?:(t)|g{_NUMBER})?(z)?(p)?"
    f"(?:a{_KIND}(?:(d)(?:g{_NUMBER})?)?(z)?(p)?)?(?:k{_NUMBER})?(?:s{_NUMBER})?"
)


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How weights are stored.

    Args:
        bits: 2 to 8; for numbers other than ``int`` it follows from the number.
        granularity: what shares a scale: an output ``"channel"``, the whole ``"tensor"``, or, as a
            number, a group of that many consecutive inputs of one output channel.
        asymmetric: whether an integer zero point accompanies the scale.
        number: what a code means.
        power_of_two: whether scales are rounded up to powers of two.

    >>> str(WeightFormat(bits=4, granularity=32, asymmetric=True))
    'w4g32z'
    """

    bits: int
    granularity: Literal["channel", "tensor"] | int = "channel"
    asymmetric: bool = False
    number: Number = "int"
    power_of_two: bool = False

    def __post_init__(self) -> None:
        _check_number("weight", self.number, self.bits, self.asymmetric, self.power_of_two)
        size = self.granularity
        if isinstance(size, int) and size < 1:
            raise QuantizerError(
                f"weight group size {size} is not positive", hint="choose a group of 1 or more"
            )
        if not isinstance(size, int) and size not in ("channel", "tensor"):
            raise QuantizerError(
                f"weight granularity {size!r} is unknown",
                hint='choose "channel", "tensor" or a group size',
            )
        if self.number in ("mxfp8", "mxfp4") and size != _MX_BLOCK:
            raise QuantizerError(
                f"{self.number} weights with granularity {size!r}",
                hint=f"its blocks have {_MX_BLOCK} values; write w{self.number} alone",
            )

    def __str__(self) -> str:
        size = {"channel": "", "tensor": "t"}.get(str(self.granularity), f"g{self.granularity}")
        size = "" if self.number.startswith("mx") else size
        return f"w{_spelled(self.number, self.bits)}{size}{_flags(self)}"


@dataclass(frozen=True, slots=True)
class ActivationFormat:
    """How the inputs of linear layers are rounded.

    Args:
        bits: 2 to 8; for numbers other than ``int`` it follows from the number.
        dynamic: one scale per token from the token itself; otherwise one calibrated scale.
        asymmetric: whether an integer zero point accompanies the scale.
        number: what a code means; ``mxfp8`` and ``mxfp4`` are dynamic by nature.
        power_of_two: whether scales are rounded up to powers of two.
        group: features of a token that share a dynamic scale; None for all of them.

    >>> str(ActivationFormat(bits=8, dynamic=True)), str(ActivationFormat(8, number="e4m3"))
    ('a8d', 'ae4m3')
    """

    bits: int
    dynamic: bool = False
    asymmetric: bool = False
    number: Number = "int"
    power_of_two: bool = False
    group: int | None = None

    def __post_init__(self) -> None:
        _check_number("activation", self.number, self.bits, self.asymmetric, self.power_of_two)
        if self.group is not None and (self.group < 1 or not self.dynamic):
            raise QuantizerError(
                f"activation group {self.group}{'' if self.dynamic else ' with a static scale'}",
                hint="groups of 1 or more features have dynamic scales, for example a8dg64",
            )
        mx = self.number in ("mxfp8", "mxfp4")
        if mx and (self.group != _MX_BLOCK or not self.dynamic):
            raise QuantizerError(
                f"{self.number} activations with group {self.group}",
                hint=f"its blocks have {_MX_BLOCK} values and are dynamic; write a{self.number}",
            )
        if self.number == "nf4":
            raise QuantizerError(
                "nf4 activations: its quantiles fit normally distributed weights only",
                hint="choose a4, a4d, amxfp4 or 8 bits for activations",
            )

    def __str__(self) -> str:
        scale = ("d" if self.dynamic else "") + (f"g{self.group}" if self.group else "")
        scale = "" if self.number.startswith("mx") else scale
        return f"a{_spelled(self.number, self.bits)}{scale}{_flags(self)}"


@dataclass(frozen=True, slots=True)
class AttentionFormat:
    """How the products of two activations inside attention are rounded; integers only.

    Args:
        operands: bits of queries, keys and values (2 to 8), symmetric, one scale per token and
            head; None leaves them in float.
        probabilities: bits of the attention probabilities (2 to 8), unsigned over [0, 1]; None
            leaves them in float.

    >>> str(AttentionFormat(operands=8, probabilities=8))
    'k8s8'
    """

    operands: int | None = None
    probabilities: int | None = None

    def __post_init__(self) -> None:
        if self.operands is None and self.probabilities is None:
            raise QuantizerError(
                "an attention format that rounds nothing", hint="give k8, s8 or both, or leave it"
            )
        for what, bits in (("operand", self.operands), ("probability", self.probabilities)):
            if bits is not None:
                _check_bits(f"attention {what}", bits, low=2, high=8)

    def __str__(self) -> str:
        operands = "" if self.operands is None else f"k{self.operands}"
        return operands + ("" if self.probabilities is None else f"s{self.probabilities}")


@dataclass(frozen=True, slots=True)
class Format:
    """Number format of a quantized model: weights, and activations unless they stay float.

    >>> Format.parse("w4g32za8d").weight.granularity
    32
    >>> Format.parse("wmxfp4amxfp8k8").bits_class
    'w4a8'
    """

    weight: WeightFormat
    activation: ActivationFormat | None = None
    attention: AttentionFormat | None = None

    @classmethod
    def parse(cls, text: str) -> Format:
        """Read the text form.

        Raises:
            QuantizerError: `text` does not follow the grammar or a number is out of range.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise QuantizerError(f"number format {text!r} cannot be read", hint=_EXAMPLES)
        parts = match.groups()
        operands, probabilities = (None if part is None else int(part) for part in parts[12:])
        attention = None
        if operands is not None or probabilities is not None:
            attention = AttentionFormat(operands, probabilities)
        return cls(_weight(*parts[:6]), _activation(*parts[6:12]), attention)

    def __str__(self) -> str:
        return f"{self.weight}{self.activation or ''}{self.attention or ''}"

    @property
    def bits_class(self) -> str:
        """Bit widths alone (`w8a8`, `w4`): the row of a tolerance table."""
        return f"w{self.weight.bits}{f'a{self.activation.bits}' if self.activation else ''}"


def _weight(
    bits: str | None,
    kind: str | None,
    tensor: str | None,
    group: str | None,
    zero: str | None,
    power: str | None,
) -> WeightFormat:
    width, number = _bits_and_number(bits, kind)
    granularity: Literal["channel", "tensor"] | int = "channel"
    if tensor or group:
        granularity = "tensor" if group is None else int(group)
        _refuse_implied(number, "w", tensor or f"g{group}")
    elif number in ("mxfp8", "mxfp4"):
        granularity = _MX_BLOCK
    return WeightFormat(width, granularity, bool(zero), number, bool(power))


def _activation(
    bits: str | None,
    kind: str | None,
    dynamic: str | None,
    group: str | None,
    zero: str | None,
    power: str | None,
) -> ActivationFormat | None:
    if bits is None and kind is None:
        return None
    width, number = _bits_and_number(bits, kind)
    size = None if group is None else int(group)
    if dynamic:
        _refuse_implied(number, "a", dynamic)
    mx = number in ("mxfp8", "mxfp4")
    return ActivationFormat(
        width,
        bool(dynamic) or mx,
        bool(zero),
        number,
        bool(power),
        _MX_BLOCK if mx else size,
    )


def _bits_and_number(bits: str | None, kind: str | None) -> tuple[int, Number]:
    if kind is None:
        return int(bits or 0), "int"
    return _BITS[kind], cast(Number, kind)


def _refuse_implied(number: Number, letter: str, given: str) -> None:
    if number in ("mxfp8", "mxfp4"):
        raise QuantizerError(
            f"{letter}{number} followed by {given!r}: its blocks of {_MX_BLOCK} are part of it",
            hint=f"write {letter}{number} alone",
        )


def _check_number(
    what: str, number: Number, bits: int, asymmetric: bool, power_of_two: bool
) -> None:
    if number == "int":
        _check_bits(what, bits, low=2, high=8)
        return
    if number not in _BITS:
        raise QuantizerError(
            f"{what} number {number!r} is unknown", hint=did_you_mean(number, ["int", *_BITS])
        )
    if bits != _BITS[number]:
        raise QuantizerError(
            f"{bits}-bit {number} {what}s", hint=f"{number} has {_BITS[number]} bits"
        )
    if asymmetric:
        raise QuantizerError(
            f"asymmetric {number} {what}s", hint="only integers have a zero point; drop the z"
        )
    if power_of_two and number.startswith("mx"):
        raise QuantizerError(
            f"{number} {what}s with p", hint="their scales are powers of two already; drop the p"
        )


def _check_bits(what: str, bits: int, *, low: int, high: int) -> None:
    if not low <= bits <= high:
        raise QuantizerError(
            f"{what} bits {bits} are outside {low} to {high}",
            hint=f"choose {what} bits from {low} to {high}; leave a part out to keep it in float",
        )


def _spelled(number: Number, bits: int) -> str:
    return str(bits) if number == "int" else number


def _flags(part: WeightFormat | ActivationFormat) -> str:
    return ("z" if part.asymmetric else "") + ("p" if part.power_of_two else "")
