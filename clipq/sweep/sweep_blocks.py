"""What one `[[sweep]]` of a plan may say: axes, what goes together, and what matches what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from clipq.globs import matches_any
from clipq.shapes import Finite, Meta, Text, Texts, one_of, whole

__all__ = ["TOWERS", "AxisMatch", "BlockFilter", "SweepBlock", "WhenBlock", "option_axis"]

TOWERS = ("both", "vision", "text")
_SCALES = ("own", "tuned")

_Count = Annotated[int, whole(0)]
_Towers = Annotated[
    tuple[Annotated[str, one_of(*TOWERS)], ...], Meta(description=f"a list of {', '.join(TOWERS)}")
]
_Scales = Annotated[
    tuple[Annotated[str, one_of(*_SCALES)], ...],
    Meta(description=f"a list of {', '.join(_SCALES)}"),
]
_Counts = Annotated[tuple[_Count, ...], Meta(description="a list of whole numbers >= 0")]
_Times = Annotated[int, whole(1)]
_Seeds = Annotated[
    _Times | tuple[_Count, ...],
    Meta(description="a whole number >= 1, how many, or a list of whole numbers >= 0, which"),
]
_Value = Text | int | Finite
_Values = Annotated[tuple[_Value, ...], Meta(description="a list of texts and numbers")]
_Options = Annotated[Mapping[str, _Values], Meta(description="a table of lists, one per option")]
_Zips = Annotated[tuple[Texts, ...], Meta(description="a list of lists of names of axes")]


def option_axis(name: str) -> str:
    """Return what the axis of a quantizer's option is called.

    >>> option_axis("alpha")
    'options.alpha'
    """
    return f"options.{name}"


@dataclass(frozen=True, slots=True)
class AxisMatch:
    """Which combinations something is about: each axis that is given has one of these values.

    Texts are globs; a combination that lacks an axis does not match it.

    >>> match = AxisMatch(methods=("gptq",), formats=("w8*",))
    >>> match({"methods": "gptq", "formats": "w8a8"}), match({"methods": "gptq"})
    (True, False)
    """

    models: Texts = ()
    methods: Texts = ()
    formats: Texts = ()
    quantizers: Texts = ()
    towers: Texts = ()
    calibration: _Counts = ()
    logit_scale: Texts = ()
    options: _Options = field(default_factory=dict)

    def __call__(self, values: Mapping[str, str]) -> bool:
        return all(
            axis in values and matches_any(values[axis], globs) for axis, globs in self.asked()
        )

    def asked(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the axes that it is about, each with its globs."""
        for axis in ("models", "methods", "formats", "quantizers", "towers", "logit_scale"):
            if globs := getattr(self, axis):
                yield axis, globs
        if self.calibration:
            yield "calibration", tuple(map(str, self.calibration))
        for name, values in self.options.items():
            yield option_axis(name), tuple(map(str, values))


@dataclass(frozen=True, slots=True)
class WhenBlock:
    """A `[[sweep.when]]`: more axes for combinations that match.

    >>> when = WhenBlock(AxisMatch(methods=("smoothquant",)), options={"alpha": (0.3, 0.5)})
    >>> list(when.axes())
    [('options.alpha', ('0.3', '0.5'))]
    """

    match: AxisMatch
    towers: _Towers | None = None
    calibration: _Counts | None = None
    logit_scale: _Scales | None = None
    options: _Options = field(default_factory=dict)

    def axes(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the axes that it gives, each with its values as texts."""
        if self.towers is not None:
            yield "towers", self.towers
        for name, values in self.options.items():
            yield option_axis(name), tuple(map(str, values))
        if self.calibration is not None:
            yield "calibration", tuple(map(str, self.calibration))
        if self.logit_scale is not None:
            yield "logit_scale", self.logit_scale


@dataclass(frozen=True, slots=True)
class BlockFilter:
    """A `[[sweep.skip]]` or `[[sweep.only]]`.

    >>> BlockFilter(AxisMatch(towers=("text",))).match({"towers": "both"})
    False
    """

    match: AxisMatch


@dataclass(frozen=True, slots=True)
class SweepBlock:
    """A `[[sweep]]`: a product of axes, of which None were not given.

    Args:
        models: names or globs of the settings' models.
        methods: names or globs of quantizer methods.
        formats: number formats, in canonical text.
        quantizers: whole texts, or artifacts of the settings, in the place of methods and formats.
        towers: which towers are quantized.
        seeds: how many, from 0 on, or which.
        calibration: how many samples of the calibration split a quantizer sees; 0 for all.
        logit_scale: ``own``, ``tuned`` on image-caption pairs, or both.
        options: of the quantizer's text, an axis each.
        zip: axes that go together instead of in all combinations.
        when: more axes for some combinations.
        skip: combinations that are left out.
        only: combinations that alone are kept.

    >>> block = SweepBlock(methods=("rtn",), formats=("w8", "w4"), options={"ends": ("float",)})
    >>> list(block.axes())
    [('methods', ('rtn',)), ('formats', ('w8', 'w4')), ('options.ends', ('float',))]
    """

    models: Texts = ("*",)
    methods: Texts | None = None
    formats: Texts | None = None
    quantizers: Texts | None = None
    towers: _Towers | None = None
    seeds: _Seeds | None = None
    calibration: _Counts | None = None
    logit_scale: _Scales | None = None
    options: _Options = field(default_factory=dict)
    zip: _Zips = ()
    when: tuple[WhenBlock, ...] = ()
    skip: tuple[BlockFilter, ...] = ()
    only: tuple[BlockFilter, ...] = ()

    def axes(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the axes that it gives but for models and seeds, each with its values as texts."""
        for axis in ("quantizers", "methods", "formats", "towers"):
            if (values := getattr(self, axis)) is not None:
                yield axis, values
        for name, values in self.options.items():
            yield option_axis(name), tuple(map(str, values))
        if self.calibration is not None:
            yield "calibration", tuple(map(str, self.calibration))
        if self.logit_scale is not None:  # last, so that what is trained is tuned right after
            yield "logit_scale", self.logit_scale

    @property
    def drawn(self) -> tuple[int, ...] | None:
        """The seeds; None where the plan says nothing of them.

        >>> SweepBlock(seeds=3).drawn, SweepBlock(seeds=(7, 9)).drawn
        ((0, 1, 2), (7, 9))
        """
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds
