"""Which models and quantizers of a study's table are shown."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipq.cases import FP32
from clipq.errors import UnknownNameError, listed
from clipq.globs import matches_any, unmatched

if TYPE_CHECKING:
    from clipq.study import StudyRow

__all__ = ["chosen_rows", "declare_choice"]

_SHOWN = 8


def declare_choice(action: argparse.ArgumentParser) -> None:
    """Add the options that choose rows."""
    for name, example in (("model", "'vit-*'"), ("quantizer", "'*w4a8*'")):
        action.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="GLOB",
            help=f"only these {name}s, such as {example} (repeatable)",
        )


def chosen_rows(rows: Sequence[StudyRow], options: argparse.Namespace) -> list[StudyRow]:
    """Return the rows that the options choose, FP32's of every model among them.

    Args:
        rows: of the table.
        options: with `model` and `quantizer`: globs, or [] for all.

    Raises:
        UnknownNameError: a glob names nothing that is there.
    """
    models = _named("model", options.model, [row.model for row in rows])
    rows = [row for row in rows if row.model in models]
    texts = [row.quantizer for row in rows if row.quantizer != FP32]
    quantizers = {FP32, *_named("quantizer", options.quantizer, texts)}
    return [row for row in rows if row.quantizer in quantizers]


def _named(what: str, globs: Sequence[str], names: Sequence[str]) -> set[str]:
    for glob in unmatched(globs, names):
        known = listed(list(dict.fromkeys(names)), most=_SHOWN) or "none"
        raise UnknownNameError(
            f"--{what} {glob}: no {what} of this study is called so", hint=f"there are: {known}"
        )
    return {name for name in names if not globs or matches_any(name, globs)}
