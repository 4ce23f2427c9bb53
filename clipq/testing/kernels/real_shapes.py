"""Shapes at which a kernel is compared with its reference: what models have, and what lies beside.

A kernel takes other paths where a length is a multiple of a tile or of a vector, where there is one
row, where there are more tiles than a GPU runs at once. Four families meet them:

- ladders: each of rows, depth and columns in turn through every length that matters, CLIP's widths
  and those one beside a tile's among them, the other two small;
- a covering design: any two of rows, depth, columns, dimensions, dtype and options in all their
  alignment classes;
- waves: more rows, and more tiles of rows and columns, than a GPU runs at once;
- layers: rows, depth and columns of CLIP's linear layers together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "LENGTHS",
    "LEVELS",
    "LONG",
    "Levels",
    "Shape",
    "column_ladder",
    "depth_ladder",
    "layers",
    "leading",
    "row_ladder",
    "waves",
]

_BESIDE_TILES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257)
_HEADS = (80, 88, 104)
"""Widths of a head beside 64: ViT-H, ViT-g, ViT-bigG."""
_WIDTHS = (512, 640, 768, 1024, 1280, 1408, 1664, 2048, 2560, 3072, 4096, 5120, 6144, 8192)
"""Of CLIP's towers and of the hidden layers between them, B to bigG."""
LENGTHS = tuple(
    sorted(
        {*_BESIDE_TILES, *_HEADS, *_WIDTHS, 37, 130, 192, 320, 384}
        | {511, 513, 769, 1000, 1023, 1025, 2047, 2049, 4095, 4097, 4099, 5121}
    )
)
"""Of rows of x, or of a weight's columns."""
_TALL = tuple(
    sorted(
        {*_BESIDE_TILES, 5, 50, 77, 197, 263, 264, 265, 511, 512, 513, 577}
        | {1023, 1024, 1025, 2111, 2112, 2113, 4097}
    )
)
"""Rows: about tiles, about 2 and 16 on each of 132 processors; tokens of an image, of a text."""
_LEFT_OUT = {3, 7, 9, 31, 63, 127, 255, 88, 104, 130, 384, 511, 513, 1023, 1408, 2047, 2049}
_LEFT_OUT |= {4095, 4097, 6144, 8192, 5121, 263, 264, 265, 769, 2111, 2112}
"""Lengths that an interpreter has no time for."""
_VOCABULARY = 49408

LONG = 16384
"""Depth beyond which a kernel may refuse; what it does not refuse must be right."""
_FEW_BEYOND = (20480, 32769)
_BEYOND = (20480, 32768, 32769, 50000, 65536, 65537, 100003, 124928, 131071)


@dataclass(frozen=True, slots=True)
class Levels:
    """Lengths of a covering design: each of an alignment class of its own, or beside a tile's."""

    rows: tuple[int, ...]
    depths: tuple[int, ...]
    columns: tuple[int, ...]


LEVELS: Mapping[str, Levels] = {
    "cpu": Levels(
        (1, 2, 5, 16, 17, 64, 77, 128, 129, 256, 257),
        (1, 37, 50, 64, 80, 96, 127, 128, 129, 256, 320, 512, 768, 1000, 1024),
        (1, 7, 16, 33, 64, 77, 128, 129, 256, 257, 320, 512),
    ),
    # Nearly every call there is of another kind, for which a kernel is compiled anew.
    "cuda": Levels(
        (1, 5, 16, 17, 64, 128, 129, 257),
        (37, 50, 64, 80, 96, 128, 129, 256, 768, 1000),
        (7, 16, 33, 64, 77, 128, 257, 320),
    ),
    # One program after the other, each in milliseconds.
    "interpreter": Levels(
        (1, 5, 16, 77, 257),
        (37, 64, 96, 128, 768),
        (7, 16, 64, 77, 257),
    ),
}
"""By what computes."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a call is.

    Args:
        rows: of x, over all leading dimensions.
        depth: length of a row of x, K.
        columns: of the product, N, where there is one.
        dims: dimensions of x.
        programs: how many an interpreter may run for it.

    >>> Shape(154, 768, 3072, dims=3).leading
    (11, 14)
    """

    rows: int
    depth: int
    columns: int = 8
    dims: int = 2
    programs: int = 24

    @property
    def leading(self) -> tuple[int, ...]:
        return leading(self.rows, self.dims - 1)


def leading(rows: int, count: int) -> tuple[int, ...]:
    """Return `count` factors of `rows`, as near to each other as they come.

    >>> leading(17017, 3), leading(257, 2)
    ((17, 13, 77), (1, 257))
    """
    if count == 1:
        return (rows,)
    ideal = rows ** (1 / count)
    divisors = [d for d in range(1, rows + 1) if rows % d == 0] if rows < 2**17 else [1]
    first = min(divisors, key=lambda d: (abs(d - ideal), d))
    return (first, *leading(rows // first, count - 1))


def depth_ladder(depths: Sequence[int], *, beyond: bool, few: bool) -> Iterator[Shape]:
    """Yield each depth once, with few rows and columns of changing alignment.

    Args:
        depths: those up to the widest layer's.
        beyond: whether to go on to 131,071.
        few: whether to leave some out.
    """
    for i, depth in enumerate(_chosen(depths, few=few)):
        rows = (1, 2, 3, 6)[i % 4] if depth < 1000 else 1 + i % 2
        yield Shape(rows, depth, (8, 5, 16, 33, 64)[i % 5], dims=2 + i % 3)
    longest = (_FEW_BEYOND if few else _BEYOND) if beyond else ()
    for i, depth in enumerate(longest):
        yield Shape(1 + i % 2, depth, 1 + i % 3)


def row_ladder(*, few: bool) -> Iterator[Shape]:
    """Yield each number of rows once."""
    for i, rows in enumerate(_chosen(_TALL, few=few)):
        depth, wide = (8, 33, 64, 24)[i % 4], (8, 1, 33, 16, 7)[i % 5]
        yield Shape(rows, depth, wide, dims=2 + i % 3, programs=64)


def column_ladder(*, few: bool) -> Iterator[Shape]:
    """Yield each number of columns once, up to a vocabulary's where none is left out."""
    for i, wide in enumerate((*_chosen(LENGTHS, few=few), *(() if few else (_VOCABULARY,)))):
        rows = (1, 2, 3, 17)[i % 4] if wide < 1000 else 1 + i % 2
        yield Shape(rows, (32, 33, 64)[i % 3], wide, dims=2 + i % 3)


def _chosen(lengths: Sequence[int], *, few: bool) -> Sequence[int]:
    return [length for length in lengths if length not in _LEFT_OUT] if few else lengths


def waves(*, columns: bool) -> Iterator[Shape]:
    """Yield more rows, or tiles, than run at once: on 132 processors, on 160, in 16 bits."""
    for i, rows in enumerate((132 * 128 + 121, 65565)):
        yield Shape(rows, (8, 16)[i], 8, dims=4 - i, programs=300)
    # 132 programs of one row, 16 each; or 17 by 17 tiles of 128 by 128.
    yield Shape(2113, 32 if columns else 768, 2113, programs=300)


def layers(*, columns: bool) -> Iterator[Shape]:
    """Yield the layers of a block of CLIP ViT-B, L and H, at the tokens of two images or texts."""
    for i, (width, tokens) in enumerate(((512, 77), (768, 50), (1024, 257), (1280, 257))):
        if not columns:
            for depth in (width, 4 * width):
                yield Shape(2 * tokens, depth, dims=3)
            continue
        rows = 2 * tokens if width < 1024 else tokens
        yield Shape(rows, width, 4 * width, dims=3)
        yield Shape(rows, 4 * width, width, dims=3)
        yield Shape(1 + i % 2, width, 3 * width)
