"""Which layers are quantized to which format: globs, ends kept in float, a table of formats."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated

from clipq.errors import QuantizerError
from clipq.quant.formats import Format
from clipq.quant.options import CommonOptions
from clipq.shapes import Document, Meta, Text

__all__ = ["read_table", "select_formats", "select_layers"]

_Formats = dict[str, Annotated[Text, Meta(description='a text such as "w4a8", or "float"')]]


def select_formats(
    names: list[str], number_format: Format, options: CommonOptions
) -> dict[str, Format]:
    """Return the format of each layer that is quantized, in the order of `names`.

    Args:
        names: layers in the order in which they run.
        number_format: for layers that no table names.
        options: what is included, excluded and kept.

    Raises:
        QuantizerError: a glob matches no layer, the table cannot be read, or nothing is left.
    """
    table = read_table(options.table) if options.table else {}
    formats: dict[str, Format] = {}
    for name in select_layers(names, options, also=table):
        layer_format = next(
            (f for glob, f in table.items() if fnmatchcase(name, glob)), number_format
        )
        if layer_format is not None:
            formats[name] = layer_format
    if not formats:
        raise _nothing_left()
    return formats


def select_layers(
    names: list[str], options: CommonOptions, *, also: Iterable[str] = ()
) -> list[str]:
    """Return the layers that `include`, `exclude` and `ends` leave, in the order of `names`.

    Args:
        names: layers in the order in which they run.
        options: what is included, excluded and kept.
        also: further globs that must match something.

    Raises:
        QuantizerError: a glob matches no layer, or nothing is left.
    """
    for glob in (*options.include, *options.exclude, *also):
        if not any(fnmatchcase(name, glob) for name in names):
            raise QuantizerError(
                f"{glob!r} matches no layer",
                hint=f"layers are called like {names[0]!r} or {names[-1]!r}"
                if names
                else "the towers have no layers",
            )
    ends = _ends(names) if options.float_ends else set()
    left = [
        name
        for name in names
        if name not in ends
        and _matches(name, options.include)
        and not _matches(name, options.exclude)
    ]
    if not left:
        raise _nothing_left()
    return left


def read_table(path: str) -> dict[str, Format | None]:
    """Return the formats by glob; ``"float"`` leaves matching layers alone, as None.

    Raises:
        QuantizerError: the file is missing, no TOML, or a format cannot be read.
    """
    fix = 'write lines such as "visual.*.mlp.*" = "w8a8", or = "float"'
    lines = Document(path, "TOML", QuantizerError, fix).read(_Formats)
    return {glob: None if text == "float" else Format.parse(text) for glob, text in lines.items()}


def _nothing_left() -> QuantizerError:
    return QuantizerError(
        "no layer is left to quantize", hint="widen include, or shorten exclude and the table"
    )


def _ends(names: list[str]) -> set[str]:
    """Return the first and the last layer of each tower."""
    ends: set[str] = set()
    for vision in (True, False):
        tower = [name for name in names if name.startswith("visual.") == vision]
        ends |= {*tower[:1], *tower[-1:]}
    return ends


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
