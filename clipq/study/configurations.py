"""What a candidate's text says of it: method, format, towers and seed; its record, if it learnt.

A *configuration* is a candidate without its seed: `quarot:w8a8,seed=0@vision` and the same with
`seed=1` are one configuration, drawn twice. Rounding to nearest draws nothing, so that its
configuration has one candidate, and no more would be known from a second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from clipq.cases import TUNED

__all__ = ["Configuration", "configuration"]

_DRAWING = ("noise", "quarot", "raana")
"""Methods that draw something where their text names no seed: noise, the signs of a rotation."""

_NUMBER = r"(?:mx)?(?:fp|nf|e)?(\d+)"
_FORMAT = re.compile(rf"w{_NUMBER}[^a]*(?:a{_NUMBER})?")
_FLOATS = {"e4m3": "8", "e5m2": "8"}


@dataclass(frozen=True, slots=True, order=True)
class Configuration:
    """A candidate without its seed.

    Args:
        text: of the candidate, without ``seed=`` and with its suffix.
        method: its name.
        bits: bits of weights and activations, such as ``w4a8``; "" where the text names none.
        towers: ``vision``, ``text`` or ``both``.
        tuned: whether its logit scale was tuned.
        trained: whether it was trained (QAT), which draws the order of its data.
        draws: whether a seed changes anything.

    >>> found, seed = configuration("lsq:w4a8,objective=distil,seed=2@vision", trained=True)
    >>> found.text, seed
    ('lsq:w4a8,objective=distil@vision', 2)
    >>> found.bits, found.trained, found.draws, found.with_tuning().text
    ('w4a8', True, True, 'lsq:w4a8,objective=distil@vision+logit-scale')
    """

    text: str
    method: str = field(compare=False)
    bits: str = field(compare=False)
    towers: str = field(compare=False)
    tuned: bool = field(compare=False)
    trained: bool = field(compare=False)
    draws: bool = field(compare=False)

    @property
    def activation_bits(self) -> int | None:
        """Bits of activations; None where they stay in float."""
        _, a, bits = self.bits.partition("a")
        return int(bits) if a else None

    def with_tuning(self) -> Configuration:
        """Return the same with a tuned logit scale."""
        return replace(self, text=f"{_split(self.text)[0]}{TUNED}", tuned=True)

    def in_towers(self, towers: str) -> Configuration:
        """Return the same method and format in other towers."""
        body, suffix = _split(self.text)
        body = body.partition("@")[0]
        at = "" if towers == "both" else f"@{towers}"
        return replace(self, text=f"{body}{at}{suffix}", towers=towers)


def configuration(text: str, *, trained: bool = False) -> tuple[Configuration, int]:
    """Return the configuration of a candidate's text, and its seed (0 where none is named).

    Args:
        text: of the quantizer.
        trained: whether its record holds a trained state.

    >>> configuration("rtn:w8a8")[0].draws, configuration("quarot:w8a8")[0].draws
    (False, True)
    >>> configuration("lsq:w4a8,steps=0")[0].trained, configuration("lsq:w4a8,steps=0")[0].draws
    (False, False)
    >>> [configuration(each)[0].bits for each in ("rtn:we4m3ae4m3", "rtn:w4g32", "raana,bits=3.3")]
    ['w8a8', 'w4', '']
    """
    body, suffix = _split(text)
    head, at, towers = body.partition("@")
    named, *options = head.split(",")
    method, _, number_format = named.partition(":")
    seeds = [option for option in options if option.startswith("seed=")]
    rest = [option for option in options if option not in seeds]
    without = ",".join([named, *rest]) + at + towers + suffix
    draws = trained or method in _DRAWING or bool(seeds) or "rotation=hadamard" in rest
    found = Configuration(
        *(without, method, _bits(number_format), towers or "both"),
        tuned=bool(suffix),
        trained=trained,
        draws=draws,
    )
    seed = seeds[0].removeprefix("seed=") if seeds else "0"
    return found, int(seed) if seed.isdecimal() else 0


def _split(text: str) -> tuple[str, str]:
    body = text.removesuffix(TUNED)
    return body, text[len(body) :]


def _bits(number_format: str) -> str:
    for name, bits in _FLOATS.items():
        number_format = number_format.replace(name, bits)
    match = _FORMAT.match(number_format)
    if match is None:
        return ""
    return f"w{match[1]}" + (f"a{match[2]}" if match[2] else "")
