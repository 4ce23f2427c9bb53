"""Columns of a Hugging Face data set: found by their names, and whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from clipq.errors import ProbeError, did_you_mean

__all__ = ["attribute_column", "class_names", "column_of", "present"]


def column_of(known: Sequence[str], columns: Sequence[str], name: str, what: str) -> str:
    """Return the first of the known names that a column has.

    Args:
        known: what such a column is called.
        columns: the names that there are.
        name: of the probe, for messages.
        what: the column holds, for messages.

    Raises:
        ProbeError: there is none.

    >>> column_of(("image", "img"), ["label", "img"], "p", "images")
    'img'
    """
    for column in known:
        if column in columns:
            return column
    raise ProbeError(
        f"probe {name!r}: no column of {what} among {', '.join(columns)}",
        hint=f"rename the column: one of {', '.join(known)}",
    )


def class_names(table: Any, label: str, name: str) -> tuple[str, ...]:
    """Return the names of the classes that a column's numbers stand for.

    Args:
        table: a `datasets.Dataset`.
        label: the column.
        name: of the probe, for messages.

    Raises:
        ProbeError: it is no `ClassLabel`.

    >>> from types import SimpleNamespace
    >>> table = SimpleNamespace(features={"label": SimpleNamespace(names=["barn_owl", "newt"])})
    >>> class_names(table, "label", "p")
    ('barn owl', 'newt')
    """
    names = getattr(table.features[label], "names", None)
    if not names:
        raise ProbeError(
            f"probe {name!r}: column {label!r} is {table.features[label]}, without class names",
            hint="cast it: dataset.cast_column('label', ClassLabel(names=[...])), and save it",
        )
    return tuple(str(entry).replace("_", " ") for entry in names)


def attribute_column(table: Any, column: str, name: str) -> tuple[str, ...]:
    """Return a column as texts: of texts, numbers, times, truth values or classes, none missing.

    Images and lists are no attribute: what Python writes for one may be where it lies in memory.

    Args:
        table: a `datasets.Dataset`.
        column: of it.
        name: of the probe, for messages.

    Raises:
        ProbeError: there is no such column, it is of another type, or a row has no value.

    >>> from types import SimpleNamespace
    >>> class Table(SimpleNamespace):
    ...     def __getitem__(self, column):
    ...         return self.columns[column]
    >>> feature = SimpleNamespace(names=["light", "dark"])
    >>> table = Table(features={"tone": feature}, columns={"tone": [0, 1, 0]})
    >>> attribute_column(table, "tone", "p")
    ('light', 'dark', 'light')
    """
    if column not in table.features:
        hint = did_you_mean(column, list(table.features))
        raise ProbeError(f"probe {name!r}: no column {column!r}", hint=hint)
    feature = table.features[column]
    names = getattr(feature, "names", None)
    # What `datasets` calls the type of one value.
    single = getattr(feature, "_type", "") == "Value" and "binary" not in feature.dtype
    if not (names or single):
        raise ProbeError(
            f"probe {name!r}: column {column!r} is {feature}: no attribute of a sample",
            hint="name a column of texts, numbers, times, truth values or classes",
        )
    values = present(table[column], column, name)
    if not names:
        return tuple(map(str, values))
    outside = next((row for row, value in enumerate(values) if not 0 <= value < len(names)), None)
    if outside is not None:
        raise ProbeError(
            f"probe {name!r}: row {outside} (the first is 0) has {values[outside]} as {column!r}, "
            f"which names {len(names)} classes",
            hint="-1 stands for a hidden label: leave such rows out, or name another column",
        )
    return tuple(str(names[value]) for value in values)


def present(column: Iterable[Any], what: str, name: str) -> list[Any]:
    """Return a column's values, none of which is null, not a number or empty.

    Args:
        column: the values.
        what: the column is called, for messages.
        name: of the probe, for messages.

    Raises:
        ProbeError: some are; they are counted, and the first row is named.

    >>> present(["a", "b"], "tone", "p")
    ['a', 'b']
    """
    values = list(column)
    missing = [row for row, value in enumerate(values) if _is_missing(value)]
    if missing:
        raise ProbeError(
            f"probe {name!r}: {len(missing)} of {len(values)} rows have no {what!r}, first row "
            f"{missing[0]} (the first is 0): {values[missing[0]]!r}",
            hint="give every row a value, or leave such rows out: dataset.filter(...)",
        )
    return values


def _is_missing(value: Any) -> bool:
    # What is no number equals nothing, not even itself.
    return value is None or value != value or (isinstance(value, str) and not value.strip())
