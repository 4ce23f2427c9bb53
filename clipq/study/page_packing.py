"""What the study's page is given: a study document, checked, and packed by columns.

A document has an object per configuration and column, so that it can be read; the page has a list per
column, each text and each list of units once. 1,600 configurations of 30 columns are then 4 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from clipq.errors import StudyError
from clipq.shapes import Document, Finite, Meta, Text, one_of

__all__ = ["Packed", "pack"]

SCHEMA = "clipq-study/1"
_DIGITS = 6  # more than any cell shows; the document keeps every digit
_DRAWN_DIGITS = 5
_ENERGY_DIGITS = 3
_TEXTS = ("id", "model", "text", "method", "bits", "towers", "kind")
_NUMBERS = ("value", "low", "high", "change", "change_low", "change_high")

_Number = Annotated[Finite | None, Meta(description="a finite number or null")]
_Any = Annotated[Any, Meta(description="anything")]


@dataclass(frozen=True, slots=True)
class _Interval:
    value: Finite
    low: Finite
    high: Finite


@dataclass(frozen=True, slots=True)
class _Model:
    name: Text
    fp32: dict[str, _Number]
    confidence_bias: _Interval | None = None


@dataclass(frozen=True, slots=True)
class _Column:
    name: Text
    title: Text
    unit: str
    direction: Annotated[str, one_of("higher", "lower", "zero", "none")]
    role: str = ""
    metric: str = ""
    probes: tuple[Text, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Finite
    low: _Number
    high: _Number
    change: _Number
    change_low: _Number
    change_high: _Number
    better: bool | None
    units: tuple[Text, ...]
    drawn: tuple[Finite, ...] = ()


@dataclass(frozen=True, slots=True)
class _Spectrum:
    rank: tuple[Finite, ...]
    signal: tuple[Finite, ...]
    residual: tuple[Finite, ...]


@dataclass(frozen=True, slots=True)
class _Configuration:
    id: Text
    model: Text
    text: Text
    method: Text
    bits: str
    towers: str
    kind: Annotated[str, one_of("ptq", "qat", "noise")]
    calibration: int
    seeds: tuple[int, ...]
    units: tuple[Text, ...]
    cost: dict[str, _Number]
    values: dict[str, _Entry]
    spectrum: _Spectrum | None = None


@dataclass(frozen=True, slots=True)
class _Study:
    schema: Annotated[str, one_of(SCHEMA)]
    title: Text
    models: tuple[_Model, ...]
    columns: tuple[_Column, ...]
    configurations: tuple[_Configuration, ...]
    claims: tuple[dict[str, _Any], ...]
    adviser: dict[str, dict[str, _Any]]
    provenance: dict[str, _Any]
    kind: str = "page"


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed study, and what its page says where scripts do not run.

    Args:
        plain: for the page's script.
        title: of the study.
        models: how many.
        configurations: how many, over all models.
        units: how many different ones.
        cells: values of units in columns.
        answers: claims of all models with their answers.
    """

    plain: dict[str, Any]
    title: str
    models: int
    configurations: int
    units: int
    cells: int
    answers: tuple[tuple[str, str], ...]


def pack(document: Mapping[str, Any]) -> Packed:
    """Check a study document and return it packed.

    Raises:
        StudyError: it is no study document: a key, a type or a number is wrong, or a configuration
            names a model or a column that there is not.
    """
    source = Document("the study", "JSON", StudyError, fix="make it anew: clipq study page")
    found = source.shaped(_listed(document), _Study)
    _check(source, found)
    texts: dict[str, int] = {}

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    rows = found.configurations
    plain = {
        "title": found.title,
        "models": [_plain(model) for model in found.models],
        "columns": [_plain(column) for column in found.columns],
        "configurations": {
            **{name: [text(getattr(row, name)) for row in rows] for name in _TEXTS},
            "calibration": [row.calibration for row in rows],
            "seeds": [list(row.seeds) for row in rows],
            "units": [[text(unit) for unit in row.units] for row in rows],
            "cost": {
                name: [_short(row.cost.get(name)) for row in rows]
                for name in dict.fromkeys(name for row in rows for name in row.cost)
            },
            "spectrum": [_spectrum(row.spectrum) for row in rows],
        },
        "cells": {column.name: _cells(column.name, rows, text) for column in found.columns},
        "claims": [dict(claim) for claim in found.claims],
        "adviser": {model: dict(said) for model, said in found.adviser.items()},
        "provenance": dict(found.provenance),
    }
    return Packed(
        plain={**plain, "texts": list(texts)},
        title=found.title,
        models=len(found.models),
        configurations=len(rows),
        units=len({unit for row in rows for unit in row.units}),
        cells=sum(len(entry.units) for row in rows for entry in row.values.values()),
        answers=tuple(
            (f"{claim.get('claim')} {claim.get('part') or ''}".strip(), str(claim.get("answer")))
            for claim in found.claims
            if claim.get("model") is None
        ),
    )


def _check(source: Document, study: _Study) -> None:
    """Refuse names of what there is not, and what is there twice."""
    known = {model.name for model in study.models}
    columns = {column.name for column in study.columns}
    for kind, names in (
        ("models", [model.name for model in study.models]),
        ("columns", [column.name for column in study.columns]),
        ("configurations", [row.id for row in study.configurations]),
    ):
        twice = (
            next((name for name in names if names.count(name) > 1), None)
            if (len(set(names)) < len(names))
            else None
        )
        if twice is not None:
            raise source.fail("", f"{twice!r} is in {kind} twice", "name each once")
    for at, row in enumerate(study.configurations):
        place = f"configurations[{at}]"
        if row.model not in known:
            raise source.fail(place, f"model = {row.model!r}", "models has none of that name")
        for name in row.values:
            if name not in columns:
                raise source.fail(place, f"a value of {name!r}", "columns has none of that name")
        spectrum = row.spectrum
        if spectrum and len({len(getattr(spectrum, f.name)) for f in fields(spectrum)}) > 1:
            raise source.fail(place, "spectrum: lists of different lengths", "one energy per rank")


def _cells(name: str, rows: Iterable[_Configuration], text: Any) -> dict[str, list[Any]]:
    """Return a column's entries as lists: a number, or null, per configuration."""
    entries = [row.values.get(name) for row in rows]
    cells: dict[str, list[Any]] = {
        key: [None if entry is None else _short(getattr(entry, key)) for entry in entries]
        for key in _NUMBERS
    }
    cells["better"] = [None if entry is None else _sign(entry.better) for entry in entries]
    cells["drawn"] = [
        None if entry is None else [_short(each, _DRAWN_DIGITS) for each in entry.drawn]
        for entry in entries
    ]
    # All units of a configuration have all its columns, unless something was left out.
    cells["units"] = [
        None if entry is None or entry.units == row.units else [text(unit) for unit in entry.units]
        for row, entry in zip(rows, entries, strict=True)
    ]
    # Of what is compared, the interval of the change says it all: the value's is the same, moved.
    for key in ("low", "high"):
        compared = cells["change"]
        cells[key] = [
            value if change is None else None
            for value, change in zip(cells[key], compared, strict=True)
        ]
    return {key: held for key, held in cells.items() if any(each is not None for each in held)}


def _spectrum(spectrum: _Spectrum | None) -> list[list[Any]] | None:
    if spectrum is None:
        return None
    return [
        [_short(each, _ENERGY_DIGITS) for each in getattr(spectrum, f.name)]
        for f in fields(spectrum)
    ]


def _sign(better: bool | None) -> int:
    return 0 if better is None else 1 if better else -1


def _plain(value: Any) -> dict[str, Any]:
    return {
        field.name: _plain(held) if isinstance(held, _Interval) else held
        for field in fields(value)
        if (held := getattr(value, field.name)) is not None
    }


def _listed(document: Mapping[str, Any]) -> Any:
    """Return the document as JSON has it: objects and lists."""
    if isinstance(document, Mapping):
        return {key: _listed(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [_listed(value) for value in document]
    return document


def _short(value: float | None, digits: int = _DIGITS) -> float | None:
    if value is None or isinstance(value, int):
        return value
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short
