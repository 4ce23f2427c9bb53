"""Combinations of axes become candidates with seeds: a seed where something random changes, only.

Something random changes where a quantizer draws (`clipq.quant.randomness`), and where it sees a
part of the calibration data and looks at them. A quantizer that does not look has one unit whatever
its calibration is said to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from clipq.cases import Candidate
from clipq.errors import ClipqError, SweepError
from clipq.quant import Format, QuantizerSpec
from clipq.quant.randomness import calibrates, draws
from clipq.settings import Settings
from clipq.sweep.axes import Axes, Combination
from clipq.sweep.units import CalibrationDraw

__all__ = ["DRAWS", "NOTHING", "SUBSET", "Planned", "expand"]

NOTHING = "nothing random changes"
DRAWS = "the method draws or is trained"
SUBSET = "a part of the calibration data is drawn"

_BEHIND = ("objective", "table")
"""Options that name code or a file, whose content decides results as well."""
_DEFAULT = (0,)
_OPTION = "options."


@dataclass(frozen=True, slots=True)
class Planned:
    """One candidate of a combination, without what its settings and files decide.

    Args:
        model: its name.
        method: of its quantizer, with what names the code and data behind it; an artifact's name.
        quantizer: canonical text.
        calibration: which samples the quantizer sees.
        reason: why it has the seeds that it has.
        merged: whether other values of calibration come to the same.
    """

    model: str
    method: str
    quantizer: str
    calibration: CalibrationDraw
    reason: str
    merged: bool


@dataclass(frozen=True, slots=True)
class _Quantizer:
    """A quantizer: its text of each seed, alike where it draws nothing, and what it hangs on."""

    method: str
    texts: tuple[str, ...]
    draws: bool
    calibrates: bool


def expand(
    axes: Axes, values: Combination, settings: Settings, *, artifacts: frozenset[str] = frozenset()
) -> Iterator[Planned]:
    """Yield the candidates of a combination, one per seed that counts.

    An artifact is one of its own model alone: for another model there is none.

    Args:
        axes: of the block.
        values: one for each axis.
        settings: whose artifacts may be meant.
        artifacts: names of all artifacts that there are.

    Raises:
        SweepError: the values make no quantizer.
    """
    model = values["models"]
    samples = int(values.get("calibration", 0))
    text = values.get("quantizers", "")
    if text.partition("+")[0] in artifacts:
        if settings.artifact(Candidate(model, text)) is not None:
            drawn = CalibrationDraw()
            yield Planned(model, text, text, drawn, NOTHING, merged=samples > 0)
        return
    found = _made(
        values.get("methods", ""),
        values.get("formats", ""),
        text,
        values.get("towers", ""),
        values.get("logit_scale", "") == "tuned",
        tuple((k, v) for k, v in values.items() if k.startswith(_OPTION)),
        axes.seeds,
        axes.where,
    )
    subset = samples > 0 and found.calibrates
    merged = samples > 0 and not found.calibrates
    if not subset and not found.draws:
        drawn = CalibrationDraw()
        yield Planned(model, found.method, found.texts[0], drawn, NOTHING, merged=merged)
        return
    reason = " and ".join([DRAWS] * found.draws + [SUBSET] * subset)
    for seed, own in zip(axes.seeds or _DEFAULT, found.texts, strict=True):
        drawn = CalibrationDraw(samples, seed) if subset else CalibrationDraw()
        yield Planned(model, found.method, own, drawn, reason, merged=merged)


@lru_cache(maxsize=16384)  # the same quantizer of every model and calibration
def _made(
    method: str,
    number_format: str,
    text: str,
    towers: str,
    tuned: bool,
    options: tuple[tuple[str, str], ...],
    seeds: tuple[int, ...] | None,
    where: str,
) -> _Quantizer:
    own = tuple((axis.removeprefix(_OPTION), value) for axis, value in options)
    try:
        if text:
            spec = QuantizerSpec.parse(text)
            spec = replace(
                spec,
                options=(*spec.options, *own),
                towers=towers or spec.towers,  # type: ignore[arg-type]  # of the known ones
                tuned=tuned or spec.tuned,
            )
        else:
            spec = QuantizerSpec(
                method,
                Format.parse(number_format) if number_format else None,
                own,
                towers or "both",  # type: ignore[arg-type]
                tuned,
            )
        drawn = draws(spec) and all(key != "seed" for key, _ in spec.options)
        texts = [str(spec)] * len(seeds or _DEFAULT)
        # A literal text stays as it is written where the plan says nothing of seeds.
        if drawn and (not text or seeds is not None):
            every = (("seed", str(seed)) for seed in seeds or _DEFAULT)
            texts = [str(replace(spec, options=(*spec.options, one))) for one in every]
        return _Quantizer(_method_of(spec), tuple(texts), drawn, calibrates(spec))
    except ClipqError as error:
        said = text or f"{method}:{number_format}"
        raise SweepError(
            f"{where}: quantizer {said!r}: {error.problem}", hint=error.hint
        ) from error


def _method_of(spec: QuantizerSpec) -> str:
    """Return a quantizer's method, with all that says which code and data stand behind it.

    >>> _method_of(QuantizerSpec.parse("lsq:w4a8,objective=distil,seed=1@vision+logit-scale"))
    'lsq,objective=distil+logit-scale'
    """
    behind = tuple(option for option in spec.options if option[0] in _BEHIND)
    return str(QuantizerSpec(spec.method, options=behind, tuned=spec.tuned))
