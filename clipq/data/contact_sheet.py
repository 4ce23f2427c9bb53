"""A picture of a probe to look at: a grid of samples with their classes."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw

from clipq.data.caption_font import draw_text, fitted_text
from clipq.data.decoding import as_rgb
from clipq.data.probe import Probe
from clipq.files import write_atomically

__all__ = ["contact_sheet", "spread_indices"]

T = TypeVar("T")
_CELL, _TEXT, _GAP, _LETTERS = 112, 28, 6, 11


def spread_indices(kinds: Sequence[Hashable], count: int) -> list[int]:
    """Return up to `count` positions in the order in which to show them: kinds take turns.

    Args:
        kinds: of each sample, its class for example.
        count: how many. Of more kinds than that, some are left out, spread over all of them; of the
            samples of a kind likewise.

    >>> spread_indices([0, 0, 0, 0, 1, 1], 4)
    [0, 4, 2, 5]
    >>> spread_indices([0, 1, 2, 3, 4, 5], 3)
    [0, 2, 4]
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for position, kind in enumerate(kinds):
        members[kind].append(position)
    queues = list(members.values())
    if len(queues) > count:
        queues = _spaced(queues, count)
    shares = [0] * len(queues)
    left = min(count, sum(map(len, queues)))
    while left:
        for which, queue in enumerate(queues):
            if left and shares[which] < len(queue):
                shares[which] += 1
                left -= 1
    chosen = [_spaced(queue, share) for queue, share in zip(queues, shares, strict=True)]
    rounds = zip_longest(*chosen)
    return [position for turn in rounds for position in turn if position is not None]


def _spaced(values: Sequence[T], count: int) -> list[T]:
    """Return `count` of the values, at equal distances."""
    return [values[index * len(values) // count] for index in range(count)]


def contact_sheet(probe: Probe, path: Path, *, count: int = 48, columns: int = 8) -> list[str]:
    """Write a PNG of up to `count` samples, each with its class and group, or its id and caption.

    Classes take turns, so that the first cells are of different ones; where there are none, groups
    do.

    Args:
        probe: whose images are read once, in order.
        path: where to; its folder is made.
        count: samples shown, spread evenly over the classes.
        columns: of the grid.

    Returns:
        The ids of the samples shown.

    Raises:
        ProbeError: an image does not decode.
        CacheError: the file cannot be written.
    """
    kinds = [
        probe.groups[position] if label < 0 else label
        for position, label in enumerate(probe.labels.tolist())
    ]
    order = spread_indices(kinds, count)
    wanted = set(order)
    thumbnails = {
        position: _thumbnail(image)
        for position, image in enumerate(probe.images())
        if position in wanted
    }
    rows = -(-len(order) // columns)
    width = columns * (_CELL + _GAP) + _GAP
    sheet = Image.new("RGB", (width, rows * (_CELL + _TEXT + _GAP) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for cell, position in enumerate(order):
        thumbnail = thumbnails[position]
        left = _GAP + cell % columns * (_CELL + _GAP)
        top = _GAP + cell // columns * (_CELL + _TEXT + _GAP)
        offset = (_CELL - thumbnail.width) // 2, (_CELL - thumbnail.height) // 2
        sheet.paste(thumbnail, (left + offset[0], top + offset[1]))
        for line, text in enumerate(_caption(probe, position)):
            fitted = fitted_text(draw, text, size=_LETTERS, width=_CELL)
            draw_text(draw, (left, top + _CELL + 1 + 12 * line), fitted, size=_LETTERS)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    write_atomically(path, stream.getvalue())
    return [probe.ids[position] for position in order]


def _thumbnail(image: Image.Image) -> Image.Image:
    """Return a small RGB image, resized before it becomes RGB: what lies under transparency shows.

    That is what open_clip's preprocessing makes of it, and so what a model is shown.
    """
    scale = min(_CELL / side for side in image.size)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in image.size]
        return as_rgb(image.resize((size[0], size[1]), Image.Resampling.BICUBIC))
    factor = int(scale)  # small images are enlarged without inventing pixels
    return as_rgb(image).resize(
        (image.width * factor, image.height * factor), Image.Resampling.NEAREST
    )


def _caption(probe: Probe, position: int) -> tuple[str, str]:
    label = int(probe.labels[position])
    name = probe.classnames[label] if label >= 0 else probe.ids[position]
    said = probe.captions[position] if probe.captions is not None and label < 0 else ""
    return name, probe.groups[position] or said.partition("\n")[0]
