"""What a candidate's text says of it: method, format, towers and seed; its record, if it learnt.

A *configuration* is a candidate without its seed: `quarot:w8a8,seed=0@vision` and the same with
`seed=1` are one configuration, drawn twice. Rounding to nearest draws nothing, so that its
configuration has one candidate, and no more would be known from a second. Where a part of the
calibration split is drawn, how many samples is the configuration's, and which of them a seed.
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
_PARTS = re.compile(rf"(.*?)({re.escape(TUNED)})?( \(calibration: \d+ samples\))?")
"""Body, tuning and calibration draw of a configuration's text."""
_FLOATS = {"e4m3": "8", "e5m2": "8"}


@dataclass(frozen=True, slots=True, order=True)
class Configuration:
    """A candidate without its seed.

    Args:
        text: of the candidate, without ``seed=`` and with its suffix; with how many samples it was
            calibrated on, where these are a part of the split.
        method: its name.
        bits: bits of weights and activations, such as ``w4a8``; "" where the text names none.
        towers: ``vision``, ``text`` or ``both``.
        tuned: whether its logit scale was tuned.
        trained: whether it was trained (QAT), which draws the order of its data.
        draws: whether a seed changes anything.
        samples: of the calibration split that it sees; 0 for all of them.

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
    samples: int = field(default=0, compare=False)

    @property
    def activation_bits(self) -> int | None:
        """Bits of activations; None where they stay in float."""
        _, a, bits = self.bits.partition("a")
        return int(bits) if a else None

    def with_tuning(self) -> Configuration:
        """Return the same with a tuned logit scale."""
        body, _, calibration = _split(self.text)
        return replace(self, text=f"{body}{TUNED}{calibration}", tuned=True)

    def in_towers(self, towers: str) -> Configuration:
        """Return the same method and format in other towers."""
        body, tuning, calibration = _split(self.text)
        body = body.partition("@")[0]
        at = "" if towers == "both" else f"@{towers}"
        return replace(self, text=f"{body}{at}{tuning}{calibration}", towers=towers)


def configuration(
    text: str, *, trained: bool = False, samples: int = 0, drawn: int = 0
) -> tuple[Configuration, int]:
    """Return the configuration of a candidate's text, and its seed (0 where none is named).

    Args:
        text: of the quantizer.
        trained: whether its record holds a trained state.
        samples: of the calibration split that it saw; 0 for all of them.
        drawn: the seed of the draw of these samples. A seed of the text that differs from it was
            asked for by itself and stays in the configuration's text.

    >>> configuration("rtn:w8a8")[0].draws, configuration("quarot:w8a8")[0].draws
    (False, True)
    >>> configuration("lsq:w4a8,steps=0")[0].trained, configuration("lsq:w4a8,steps=0")[0].draws
    (False, False)
    >>> [configuration(each)[0].bits for each in ("rtn:we4m3ae4m3", "rtn:w4g32", "raana,bits=3.3")]
    ['w8a8', 'w4', '']
    >>> found, seed = configuration("rtn:w8a8@vision+logit-scale", samples=64, drawn=3)
    >>> found.text, found.draws, seed
    ('rtn:w8a8@vision+logit-scale (calibration: 64 samples)', True, 3)
    >>> found.in_towers("both").text
    'rtn:w8a8+logit-scale (calibration: 64 samples)'
    >>> configuration("quarot:w8a8,seed=1", samples=64, drawn=3)[0].text
    'quarot:w8a8,seed=1 (calibration: 64 samples)'
    """
    body, tuning, _ = _split(text)
    head, at, towers = body.partition("@")
    named, *options = head.split(",")
    method, _, number_format = named.partition(":")
    seeds = [option for option in options if option.startswith("seed=")]
    fixed = samples > 0 and seeds not in ([], [f"seed={drawn}"])
    rest = [option for option in options if fixed or option not in seeds]
    without = ",".join([named, *rest]) + at + towers + tuning
    if samples:
        without += f" (calibration: {samples} samples)"
    draws = trained or method in _DRAWING or bool(seeds) or "rotation=hadamard" in rest
    found = Configuration(
        *(without, method, _bits(number_format), towers or "both"),
        tuned=bool(tuning),
        trained=trained,
        draws=draws or samples > 0,
        samples=samples,
    )
    if samples:
        return found, drawn
    seed = seeds[0].removeprefix("seed=") if seeds else "0"
    return found, int(seed) if seed.isdecimal() else 0


def _split(text: str) -> tuple[str, str, str]:
    """Return the body of a text, its tuning and its calibration draw; "" of what it lacks."""
    match = _PARTS.fullmatch(text)
    body, tuning, calibration = match.groups("") if match else (text, "", "")
    return body, tuning, calibration


def _bits(number_format: str) -> str:
    for name, bits in _FLOATS.items():
        number_format = number_format.replace(name, bits)
    match = _FORMAT.match(number_format)
    if match is None:
        return ""
    return f"w{match[1]}" + (f"a{match[2]}" if match[2] else "")
