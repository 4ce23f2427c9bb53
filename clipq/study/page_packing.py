"""What the study's page is given: a study document, checked, and packed by columns.

A document has an object per configuration and column, so that it can be read; the page has a list
per column, and each text once. 1,600 configurations of 30 columns are less than 5 MB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from clipq.errors import StudyError
from clipq.shapes import Document, Finite, Meta, Text, one_of

__all__ = ["Packed", "pack"]

_DIGITS = 6  # more than any cell shows; the document keeps every digit
_DRAWN_DIGITS = 5
_ENERGY_DIGITS = 3
_TEXTS = ("id", "quantizer", "kind", "method", "bits", "towers")
_FACTS = ("calibration_samples", "seeds")
_NUMBERS = ("value", "change", "low", "high", "sampling", "drawn", "seeds", "margin")

_Number = Annotated[Finite | None, Meta(description="a finite number or null")]
_Energies = tuple[_Number, ...] | None
_Any = Annotated[Any, Meta(description="anything")]
_Objects = tuple[dict[str, _Any], ...]


@dataclass(frozen=True, slots=True)
class _Interval:
    value: Finite
    low: Finite
    high: Finite


@dataclass(frozen=True, slots=True)
class _Spectrum:
    rank: tuple[Finite, ...]
    signal: tuple[_Number, ...]


@dataclass(frozen=True, slots=True)
class _Model:
    name: Text
    fp32: dict[str, _Number]
    probes: dict[str, tuple[str, ...]]
    bias: _Interval | None = None
    spectrum: _Spectrum | None = None
    source: str | None = None
    weights_sha256: str | None = None
    calibration: dict[str, _Any] | None = None


@dataclass(frozen=True, slots=True)
class _Column:
    key: Text
    title: Text
    metric: Text
    better: Annotated[str, one_of("higher", "lower")]
    role: str
    unit: str
    distance: str | None = None
    level: bool = False


@dataclass(frozen=True, slots=True)
class _Cost:
    key: Text
    title: Text
    unit: str


@dataclass(frozen=True, slots=True)
class _Value:
    value: _Number
    change: _Number
    low: _Number
    high: _Number
    sampling: _Number
    drawn: _Number
    seeds: int | None
    better: bool
    worse: bool
    by_seed: tuple[_Number, ...]
    margin: _Number


@dataclass(frozen=True, slots=True)
class _Configuration:
    id: Text
    model: Text
    quantizer: Text
    kind: Annotated[str, one_of("ptq", "qat", "noise")]
    method: Text
    bits: str | None
    towers: str
    tuned: bool
    trained: bool
    draws: bool
    calibration_samples: int | None
    seeds: tuple[int, ...]
    units: tuple[str, ...]
    costs: dict[str, _Number]
    values: dict[str, _Value]
    residual: _Energies = None


@dataclass(frozen=True, slots=True)
class _Study:
    schema: Annotated[str, one_of("clipq-study/1")]
    kind: Annotated[str, one_of("study")]
    models: tuple[_Model, ...]
    columns: tuple[_Column, ...]
    costs: tuple[_Cost, ...]
    configurations: tuple[_Configuration, ...]
    claims: _Objects
    towers: str
    provenance: dict[str, _Any]
    figures: _Objects
    advice: dict[str, _Any]


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed study, and what its page says where scripts do not run.

    Args:
        plain: for the page's script.
        models: how many.
        configurations: how many, over all models.
        units: how many different ones.
        numbers: cells of the table.
        answers: claims of all models, each with its answer.
    """

    plain: dict[str, Any]
    models: int
    configurations: int
    units: int
    numbers: int
    answers: tuple[tuple[str, str], ...]


def pack(document: Mapping[str, Any]) -> Packed:
    """Check a study document and return it packed.

    Raises:
        StudyError: it is no study document: a key, a type or a number is wrong, or it names a model
            or a column that it has not.
    """
    source = Document("the study", "JSON", StudyError, fix="make it anew: clipq study page")
    found = source.shaped(dict(document), _Study)
    _check(source, found)
    rows, known = found.configurations, {column.key for column in found.columns}
    places = {model.name: place for place, model in enumerate(found.models)}
    texts: dict[str, int] = {}

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    facts: dict[str, list[Any]] = {
        name: [text(getattr(row, name) or "") for row in rows] for name in _TEXTS
    }
    facts |= {name: [getattr(row, name) for row in rows] for name in _FACTS}
    facts["model"] = [places[row.model] for row in rows]
    facts["units"] = [[text(unit) for unit in row.units] for row in rows]
    facts["residual"] = [
        row.residual and [_short(each, _ENERGY_DIGITS) for each in row.residual] for row in rows
    ]
    plain = {
        "models": [asdict(model) for model in found.models],
        "columns": [asdict(column) for column in found.columns],
        "costs": [
            asdict(cost) | {"of": _filled([row.costs.get(cost.key) for row in rows])}
            for cost in found.costs
        ],
        "configurations": facts,
        "cells": {column.key: _cells(column.key, rows) for column in found.columns},
        "claims": list(found.claims),
        "figures": list(found.figures),
        "criteria": [key for key in found.advice.get("criteria", ()) if key in known],
        "towers": found.towers,
        "provenance": found.provenance,
        "texts": list(texts),
    }
    return Packed(
        plain=plain,
        models=len(found.models),
        configurations=len(rows),
        units=len({unit for row in rows for unit in row.units if unit}),
        numbers=sum(len(row.values) for row in rows),
        answers=tuple(
            (f"{claim.get('claim')} {claim.get('part') or ''}".strip(), str(claim.get("answer")))
            for claim in found.claims
            if claim.get("model") is None
        ),
    )


def _check(source: Document, study: _Study) -> None:
    """Refuse what is there twice, and names of what there is not."""
    names = {
        "models": [model.name for model in study.models],
        "columns": [column.key for column in study.columns],
        "configurations": [row.id for row in study.configurations],
    }
    for kind, held in names.items():
        for name, times in Counter(held).items():
            if times > 1:
                raise source.fail("", f"{kind} has {name!r} {times} times", "name each once")
    ranks = {
        model.name: len(model.spectrum.rank) if model.spectrum else 0 for model in study.models
    }
    columns = set(names["columns"])
    for place, row in enumerate(study.configurations):
        where = f"configurations[{place}]"
        if row.model not in ranks:
            raise source.fail(where, f"model = {row.model!r}", "models has none of that name")
        for name in row.values:
            if name not in columns:
                raise source.fail(where, f"a value of {name!r}", "columns has none of that key")
        if row.residual is not None and len(row.residual) != ranks[row.model]:
            problem = f"residual has {len(row.residual)} ranks"
            raise source.fail(where, problem, f"its model's spectrum has {ranks[row.model]}")


def _cells(key: str, rows: Sequence[_Configuration]) -> dict[str, list[Any]]:
    """Return a column's numbers: a list per kind of number, with null where there is none."""
    values = [row.values.get(key) for row in rows]
    cells: dict[str, list[Any]] = {
        name: _filled([None if value is None else getattr(value, name) for value in values])
        for name in _NUMBERS
    }
    cells["sure"] = _filled([_sign(value) for value in values])
    cells["by_seed"] = [_drawn(value) for value in values]
    return {name: held for name, held in cells.items() if any(each is not None for each in held)}


def _filled(numbers: Sequence[float | None]) -> list[float | None]:
    """Return numbers in few digits; nothing where all are unknown."""
    found = [_short(each) for each in numbers]
    return found if any(each is not None for each in found) else []


def _drawn(value: _Value | None) -> list[float | None] | None:
    """Return a number per seed where there are several."""
    if value is None or len(value.by_seed) < 2:
        return None
    return [_short(each, _DRAWN_DIGITS) for each in value.by_seed]


def _sign(value: _Value | None) -> int | None:
    return None if value is None else int(value.better) - int(value.worse)


def _short(value: float | None, digits: int = _DIGITS) -> float | None:
    if value is None or isinstance(value, int):
        return value
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
