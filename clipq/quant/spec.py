"""A quantizer as a value: method, format, options and towers, with a canonical text form.

    method[:format][,key=value...][@vision|@text][+logit-scale]

>>> spec = QuantizerSpec.parse("smoothquant:w8a8,alpha=0.5@vision")
>>> spec.method, str(spec.format), spec.options, spec.towers
('smoothquant', 'w8a8', (('alpha', '0.5'),), 'vision')
>>> str(QuantizerSpec.parse("mine,steps=9,lr=1e-3@both"))
'mine,lr=1e-3,steps=9'

`fp32` is the reserved name of the unquantized reference; ``+logit-scale`` at the end always says
that the logit scale is tuned. This module never imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, cast

from clipq.cases import FP32, TUNED
from clipq.errors import QuantizerError, did_you_mean
from clipq.quant.formats import Format

__all__ = ["QuantizerSpec", "Towers"]

Towers = Literal["both", "vision", "text"]

_TOWERS = ("both", "vision", "text")
_METHOD = re.compile("[a-z][a-z0-9_-]*([+][a-z0-9_-]+)*")  # rot+lsq: one after the other
_KEY = re.compile("[a-z][a-z0-9_]*")
_VALUE = re.compile("[A-Za-z0-9._+*?/-]+")
_GRAMMAR = (
    "a quantizer reads method[:format][,key=value...][@vision|@text][+logit-scale], "
    "for example rtn:w8a8, rtn:w4g32@vision or mine,steps=9"
)


@dataclass(frozen=True, slots=True)
class QuantizerSpec:
    """What to quantize with: `parse` and `str` are inverse to each other on canonical text.

    Args:
        method: registered name of the algorithm, or `fp32` for the unquantized reference.
        format: number format; None where the method brings its own.
        options: the method's options, kept sorted by key; values are text.
        towers: the towers to quantize.
        tuned: whether the logit scale is tuned afterwards.

    >>> spec = QuantizerSpec.parse("smoothquant:w8a8,alpha=0.5@vision+logit-scale")
    >>> spec.method, spec.format_class, dict(spec.options), spec.towers, spec.tuned
    ('smoothquant', 'w8a8', {'alpha': '0.5'}, 'vision', True)
    >>> str(spec.base)
    'smoothquant:w8a8,alpha=0.5@vision'
    """

    method: str
    format: Format | None = None
    options: tuple[tuple[str, str], ...] = ()
    towers: Towers = "both"
    tuned: bool = False

    def __post_init__(self) -> None:
        for part in (self.method, *(value for _, value in self.options)):
            if part.endswith(TUNED):
                raise QuantizerError(
                    f"{part!r} in quantizer {self.method!r} ends as a tuned logit scale does",
                    hint=f"write {TUNED} once, at the very end; {_GRAMMAR}",
                )
        _check(_METHOD, self.method, "method name")
        for key, value in self.options:
            _check(_KEY, key, f"option name (of {self.method!r})")
            _check(_VALUE, value, f"value of option {key!r}")
        keys = [key for key, _ in self.options]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise QuantizerError(
                f"option {repeated[0]!r} of quantizer {self.method!r} is given more than once",
                hint="give each option once",
            )
        if self.towers not in _TOWERS:
            raise QuantizerError(
                f"towers {self.towers!r} of quantizer {self.method!r} are unknown",
                hint=did_you_mean(self.towers, _TOWERS) if "," not in self.towers else _GRAMMAR,
            )
        object.__setattr__(self, "options", tuple(sorted(self.options)))
        if self.method == FP32 and (self.format or self.options or self.towers != "both"):
            raise QuantizerError(
                f"{str(self)!r} qualifies fp32, the reserved name of the unquantized reference",
                hint="write fp32 alone, or name a method such as rtn",
            )

    @classmethod
    def parse(cls, text: str | QuantizerSpec) -> QuantizerSpec:
        """Read the text form; a spec is returned as it is.

        Raises:
            QuantizerError: `text` does not follow the grammar, or a part of it makes no sense.
        """
        return text if isinstance(text, cls) else _parsed(str(text))

    def __str__(self) -> str:
        number_format = f":{self.format}" if self.format else ""
        options = "".join(f",{key}={value}" for key, value in self.options)
        towers = "" if self.towers == "both" else f"@{self.towers}"
        return f"{self.method}{number_format}{options}{towers}{TUNED if self.tuned else ''}"

    @property
    def is_reference(self) -> bool:
        """Whether this names the unquantized model, its logit scale as it is."""
        return self.method == FP32 and not self.tuned

    @property
    def base(self) -> QuantizerSpec:
        """What makes the towers: the same without the tuning of the logit scale."""
        return replace(self, tuned=False)

    @property
    def format_class(self) -> str:
        """Bit widths (`w8a8`), or ``"custom"`` where the method brings its own format."""
        return self.format.bits_class if self.format else "custom"

    def require_format(self) -> Format:
        """Return the format, for methods that cannot do without one."""
        if self.format is None:
            raise QuantizerError(
                f"quantizer {str(self)!r} names no number format",
                hint=f"name one, for example {self.method}:w8a8",
            )
        return self.format

    def read_options(self, allowed: Iterable[str] = ()) -> dict[str, str]:
        """Return the options as a dictionary; an option outside `allowed` is an error."""
        allowed = sorted(allowed)
        for key, _ in self.options:
            if key not in allowed:
                raise QuantizerError(
                    f"quantizer method {self.method!r} has no option {key!r}",
                    hint=did_you_mean(key, allowed),
                )
        return dict(self.options)


@lru_cache(maxsize=1024)  # a gate reads the same few texts once per case
def _parsed(text: str) -> QuantizerSpec:
    whole = text.removesuffix(TUNED)
    body, at, towers = whole.partition("@")
    head, *pairs = body.split(",")
    method, colon, number_format = head.partition(":")
    if whole.endswith(TUNED) or number_format.endswith(TUNED):
        raise QuantizerError(
            f"quantizer {text!r} says {TUNED} before its end",
            hint=f"write it once, at the very end; {_GRAMMAR}",
        )
    options = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise QuantizerError(
                f"option {pair!r} in quantizer {text!r} has no value", hint=_GRAMMAR
            )
        options.append((key, value))
    return QuantizerSpec(
        method=method,
        format=Format.parse(number_format) if colon else None,
        options=tuple(options),
        towers=cast(Towers, towers) if at else "both",
        tuned=whole != text,
    )


def _check(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.fullmatch(text):
        raise QuantizerError(
            f"{text!r} is no {what}", hint=f"it must match {pattern.pattern}; {_GRAMMAR}"
        )
