"""Number formats of weights and activations as small values with a text form.

Grammar, all lower case, nothing optional left implicit in the canonical form::

    format     = "w" bits [ "t" | "g" size ] [ "z" ] [ "a" bits [ "d" ] [ "z" ] ]

| part | meaning |
|---|---|
| `w4` | 4-bit weights (2 to 8), one scale per output channel |
| `t` | one scale for the whole weight tensor |
| `g64` | one scale per group of 64 along the input dimension (a convolution's row is in·kh·kw) |
| `z` | asymmetric: an integer zero point beside the scale; without it symmetric |
| `a8` | 8-bit activations (4 to 8), one static scale per tensor, range from calibration |
| `d` | dynamic: one scale per token, range from the token itself |

`Format.parse` accepts exactly what `str` prints: ``str(Format.parse(text)) == text``.
This module never imports torch: planning needs formats, not tensors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from clipq.errors import QuantizerError

__all__ = ["ActivationFormat", "Format", "WeightFormat"]

GRAMMAR = "w<bits>[t|g<size>][z][a<bits>[d][z]]"
_EXAMPLES = f"a format reads {GRAMMAR}, for example w8, w8a8, w4g32z, w8ta8z or w4a8d"
_NUMBER = "(0|[1-9][0-9]*)"
_PATTERN = re.compile(f"w{_NUMBER}(?:(t)|g{_NUMBER})?(z)?(?:a{_NUMBER}(d)?(z)?)?")


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How weights are stored.

    Args:
        bits: 2 to 8.
        granularity: what shares a scale: an output ``"channel"``, the whole ``"tensor"``, or, as a
            number, a group of that many consecutive inputs of one output channel.
        asymmetric: whether an integer zero point accompanies the scale.
    """

    bits: int
    granularity: Literal["channel", "tensor"] | int = "channel"
    asymmetric: bool = False

    def __post_init__(self) -> None:
        _check_bits("weight", self.bits, low=2, high=8)
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

    def __str__(self) -> str:
        size = {"channel": "", "tensor": "t"}.get(str(self.granularity), f"g{self.granularity}")
        return f"w{self.bits}{size}{'z' if self.asymmetric else ''}"


@dataclass(frozen=True, slots=True)
class ActivationFormat:
    """How the inputs of linear layers are rounded.

    Args:
        bits: 4 to 8.
        dynamic: one scale per token from the token itself; otherwise one calibrated scale.
        asymmetric: whether an integer zero point accompanies the scale.
    """

    bits: int
    dynamic: bool = False
    asymmetric: bool = False

    def __post_init__(self) -> None:
        _check_bits("activation", self.bits, low=4, high=8)

    def __str__(self) -> str:
        return f"a{self.bits}{'d' if self.dynamic else ''}{'z' if self.asymmetric else ''}"


@dataclass(frozen=True, slots=True)
class Format:
    """Number format of a quantized model: weights, and activations unless they stay float.

    >>> Format.parse("w4g32za8d").weight
    WeightFormat(bits=4, granularity=32, asymmetric=True)
    >>> Format.parse("w4g32za8d").bits_class
    'w4a8'
    """

    weight: WeightFormat
    activation: ActivationFormat | None = None

    @classmethod
    def parse(cls, text: str) -> Format:
        """Read the text form.

        Raises:
            QuantizerError: `text` does not follow the grammar or a number is out of range.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise QuantizerError(f"number format {text!r} cannot be read", hint=_EXAMPLES)
        bits, tensor, group, zero, act_bits, dynamic, act_zero = match.groups()
        granularity: Literal["channel", "tensor"] | int = "tensor" if tensor else "channel"
        weight = WeightFormat(int(bits), int(group) if group else granularity, bool(zero))
        if act_bits is None:
            return cls(weight)
        return cls(weight, ActivationFormat(int(act_bits), bool(dynamic), bool(act_zero)))

    def __str__(self) -> str:
        return f"{self.weight}{self.activation or ''}"

    @property
    def bits_class(self) -> str:
        """Bit widths alone (`w8a8`, `w4`): the row of a tolerance table."""
        return f"w{self.weight.bits}{f'a{self.activation.bits}' if self.activation else ''}"


def _check_bits(what: str, bits: int, *, low: int, high: int) -> None:
    if not low <= bits <= high:
        raise QuantizerError(
            f"{what} bits {bits} are outside {low} to {high}",
            hint=f"choose {what} bits from {low} to {high}; leave a part out to keep it in float",
        )
