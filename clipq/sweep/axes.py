"""The axes of one `[[sweep]]`, resolved against the settings, and their combinations, lazily."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product

from clipq.cases import Candidate
from clipq.errors import ClipqError, SweepError, did_you_mean
from clipq.quant import Format, QuantizerSpec, quantizers
from clipq.settings import Settings
from clipq.sweep.sweep_blocks import SweepBlock, option_axis

__all__ = ["Axes", "Combination", "resolve"]

Combination = Mapping[str, str]
"""A value, as text, for each axis."""
_GLOB = "*?["


@dataclass(frozen=True, slots=True)
class Axes:
    """What a block's product is over.

    Args:
        block: as the plan has it.
        where: names it in messages.
        models: in the settings' order.
        dimensions: each a list of what it gives: values of one axis, or of several that are zipped.
        seeds: None where the plan says nothing of them.

    >>> axes = Axes(SweepBlock(), "here", ("vit",), (({"methods": "rtn"},), ({"formats": "w8"},)))
    >>> list(axes.combinations("vit")), axes.size
    ([{'models': 'vit', 'methods': 'rtn', 'formats': 'w8'}], 1)
    """

    block: SweepBlock
    where: str
    models: tuple[str, ...]
    dimensions: tuple[tuple[Combination, ...], ...]
    seeds: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """How many combinations there are of what the block itself gives, before filters."""
        return len(self.models) * math.prod(map(len, self.dimensions))

    def combinations(self, model: str) -> Iterator[Combination]:
        """Yield each combination of a model, with what a `when` adds, before filters.

        Raises:
            SweepError: two of `when` give the same axis to one combination.
        """
        for parts in product(*self.dimensions):
            values = {"models": model}
            for part in parts:
                values.update(part)
            yield from self._extended(values) if self.block.when else (values,)

    def _extended(self, values: dict[str, str]) -> Iterator[Combination]:
        more: dict[str, tuple[str, ...]] = {}
        for when in self.block.when:
            if not when.match(values):
                continue
            for axis, given in when.axes():
                if axis in more:
                    shown = ", ".join(f"{name} = {value}" for name, value in values.items())
                    raise SweepError(
                        f"{self.where}: two [[sweep.when]] give {axis} for {shown}",
                        hint="narrow one match, or put their values into one",
                    )
                more[axis] = given
        for given in product(*more.values()):
            yield values | dict(zip(more, given, strict=True))


def resolve(block: SweepBlock, settings: Settings, where: str) -> Axes:
    """Return the axes of a block, every value known and in canonical form.

    Args:
        block: as the plan has it.
        settings: whose models and artifacts it is about.
        where: names it in messages.

    Raises:
        SweepError: an unknown name, an empty or repeated axis, a zip that does not fit.

    >>> from pathlib import Path
    >>> from clipq.settings import load_settings
    >>> settings = load_settings(Path("clipq.toml"))
    >>> axes = resolve(SweepBlock(("vit-*",), ("rtn",), ("w8", "w4")), settings, "here")
    >>> axes.models, axes.size
    (('vit-clean', 'vit-noisy'), 4)
    """
    names = [model.name for model in settings.models]
    models = set(_matched("model", block.models, names, where))
    given = dict(block.axes())
    _check_kind(given, where)
    for when in block.when:
        for axis, values in when.axes():
            _check_values(axis, values, f"{where}, when")
            if axis in given:
                raise SweepError(
                    f"{where}: {axis} is given by the block and by its [[sweep.when]]",
                    hint="leave it out of the block, and give the others theirs by another `when`",
                )
    for number, match in enumerate(
        [*(when.match for when in block.when), *(f.match for f in (*block.skip, *block.only))]
    ):
        if not list(match.asked()):
            raise SweepError(
                f"{where}: match number {number + 1} says nothing",
                hint="name an axis and values, e.g. match = { methods = ['gptq'] }",
            )
    if "methods" in given:
        given["methods"] = _matched("quantizer method", given["methods"], quantizers.names(), where)
        if "formats" in given:
            given["formats"] = tuple(_format(text, where) for text in given["formats"])
    else:
        own = sorted(models)
        given["quantizers"] = tuple(
            _quantizer(text, settings, own, [axis for axis in given if axis != "quantizers"], where)
            for text in given["quantizers"]
        )
    for axis, values in given.items():
        _check_values(axis, values, where)
    if block.drawn is not None:
        _check_values("seeds", tuple(map(str, block.drawn)), where)
    _check_samples(block, settings.calibration.samples, where)
    ordered = tuple(name for name in names if name in models)
    return Axes(block, where, ordered, tuple(_zipped(block, given, where)), block.drawn)


def _check_kind(given: Mapping[str, Sequence[str]], where: str) -> None:
    if ("quantizers" in given) == ("methods" in given):
        said = "both methods and" if "methods" in given else "neither methods nor"
        raise SweepError(
            f"{where} names {said} quantizers",
            hint="give methods with formats, or whole texts as quantizers; another [[sweep]] "
            "takes the other",
        )
    if "quantizers" in given and "formats" in given:
        raise SweepError(
            f"{where} gives formats beside quantizers, whose texts hold them",
            hint="give methods and formats instead, or write the formats into the texts",
        )
    for axis in given:
        if axis == option_axis("seed"):
            raise SweepError(
                f"{where} gives seed as an option",
                hint="write seeds = 5, or seeds = [1, 7]: it counts only where something is drawn",
            )


def _check_values(axis: str, values: Sequence[str], where: str) -> None:
    if not values:
        raise SweepError(
            f"{where}: {axis} = [] makes an empty product",
            hint=f"give {axis} a value, or leave it out",
        )
    for at, value in enumerate(values):
        if value in values[:at]:
            raise SweepError(f"{where}: {axis} holds {value!r} twice", hint="give each value once")


def _check_samples(block: SweepBlock, most: int, where: str) -> None:
    """Refuse a part of the calibration data that is no part; its real size is known when read."""
    for given in (block.calibration, *(when.calibration for when in block.when)):
        for samples in given or ():
            if most and samples >= most:
                raise SweepError(
                    f"{where}: calibration = {samples} of the {most} samples that settings take",
                    hint=f"give fewer than {most}, or 0 for all of them",
                )


def _matched(kind: str, globs: Sequence[str], known: Sequence[str], where: str) -> tuple[str, ...]:
    """Return what some names and globs stand for, each in its place; repeats are kept for later."""
    if not globs:
        raise SweepError(f"{where}: no {kind} is named", hint=did_you_mean("", known))
    found: list[str] = []
    for glob in globs:
        own = [name for name in known if fnmatchcase(name, glob)]
        if not own:
            raise SweepError(f"{where}: unknown {kind} {glob!r}", hint=did_you_mean(glob, known))
        if len(own) == 1 and own[0] in found and not set(glob) & set(_GLOB):
            raise SweepError(f"{where}: {kind} {glob!r} is given twice", hint="give each name once")
        found += [name for name in own if name not in found]
    return tuple(found)


def _format(text: str, where: str) -> str:
    try:
        return str(Format.parse(text))
    except ClipqError as error:
        raise SweepError(f"{where}: {error.problem}", hint=error.hint) from error


def _quantizer(
    text: str, settings: Settings, models: Sequence[str], others: Sequence[str], where: str
) -> str:
    """Return a whole text in canonical form; an artifact's name as it is."""
    owners = [artifact.model for artifact in settings.artifacts if artifact.name == text]
    try:
        spec = QuantizerSpec.parse(text)
        is_artifact = any(settings.artifact(Candidate(model, str(spec))) for model in models)
        if owners and not is_artifact:
            raise SweepError(
                f"{where}: artifact {text!r} is one of {', '.join(owners)}, not of this block",
                hint="add its model, or leave it out",
            )
        if spec.is_reference:
            raise SweepError(
                f"{where}: quantizer {text!r} is the reference itself",
                hint="FP32 is measured with every model; name quantizers",
            )
        if not is_artifact and spec.method != "fp32" and spec.method not in quantizers:
            known = [*quantizers.names(), *(artifact.name for artifact in settings.artifacts)]
            raise SweepError(
                f"{where}: unknown quantizer method or artifact {spec.method!r}",
                hint=did_you_mean(spec.method, known),
            )
    except SweepError:
        raise
    except ClipqError as error:
        raise SweepError(
            f"{where}: quantizer {text!r}: {error.problem}", hint=error.hint
        ) from error
    held = [option_axis(name) for name, _ in spec.options]
    held += ["towers"] if "@" in text else []
    held += ["logit_scale"] if spec.tuned else []
    fixed = [axis for axis in others if axis in held]
    if is_artifact or spec.method == "fp32":
        fixed = [axis for axis in others if axis != "calibration"]
    if fixed:
        raise SweepError(
            f"{where}: {fixed[0]} is an axis, and quantizer {text!r} has its own",
            hint="put it into a [[sweep]] of its own",
        )
    return str(spec)


def _zipped(
    block: SweepBlock, given: Mapping[str, Sequence[str]], where: str
) -> Iterator[tuple[Combination, ...]]:
    """Yield the dimensions of the product: an axis each, zipped ones together."""
    together: dict[str, Sequence[str]] = {}
    for group in block.zip:
        for axis in group:
            if axis not in given:
                raise SweepError(
                    f"{where}: zip names {axis!r}, which is no axis of the block",
                    hint=did_you_mean(axis, given) + "; models and seeds are never zipped",
                )
            if axis in together:
                raise SweepError(
                    f"{where}: zip names {axis!r} twice", hint="name each axis once, in one list"
                )
            together[axis] = group
        lengths = {axis: len(given[axis]) for axis in group}
        if len(set(lengths.values())) != 1:
            shown = ", ".join(f"{axis} has {count}" for axis, count in lengths.items()) or "none"
            raise SweepError(
                f"{where}: zip of axes of unequal lengths: {shown}",
                hint="give zipped axes equally many values: the first go together, and so on",
            )
    done: set[str] = set()
    for axis in given:
        if axis in done:
            continue
        own = together.get(axis, (axis,))
        done.update(own)
        yield tuple(
            dict(zip(own, values, strict=True))
            for values in zip(*(given[name] for name in own), strict=True)
        )
