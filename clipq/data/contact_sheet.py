"""A picture of a probe to look at: a grid of samples with their classes."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from clipq.data.decoding import as_rgb
from clipq.data.probe import Probe
from clipq.files import write_atomically

__all__ = ["contact_sheet", "spread_indices"]

_CELL, _TEXT, _GAP = 112, 26, 6


def spread_indices(labels: Sequence[int], count: int) -> list[int]:
    """Return up to `count` positions, taking classes in turn, in ascending order."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        by_class[label].append(position)
    queues = [by_class[label] for label in sorted(by_class)]
    spread: list[int] = []
    depth = 0
    while len(spread) < count and any(depth < len(queue) for queue in queues):
        spread += [queue[depth] for queue in queues if depth < len(queue)][: count - len(spread)]
        depth += 1
    return sorted(spread)


def contact_sheet(probe: Probe, path: Path, *, count: int = 48, columns: int = 8) -> list[str]:
    """Write a PNG of up to `count` samples, each with its class (or id) and group.

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
    wanted = set(spread_indices(probe.labels.tolist(), count))
    shown = [
        (position, _thumbnail(image))
        for position, image in enumerate(probe.images())
        if position in wanted
    ]
    rows = -(-len(shown) // columns)
    width = columns * (_CELL + _GAP) + _GAP
    sheet = Image.new("RGB", (width, rows * (_CELL + _TEXT + _GAP) + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for cell, (position, thumbnail) in enumerate(shown):
        left = _GAP + cell % columns * (_CELL + _GAP)
        top = _GAP + cell // columns * (_CELL + _TEXT + _GAP)
        offset = (_CELL - thumbnail.width) // 2, (_CELL - thumbnail.height) // 2
        sheet.paste(thumbnail, (left + offset[0], top + offset[1]))
        for line, text in enumerate(_caption(probe, position)):
            fitted = _fitted(text, draw, font)
            draw.text((left, top + _CELL + 1 + 12 * line), fitted, fill="black", font=font)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    write_atomically(path, stream.getvalue())
    return [probe.ids[position] for position, _ in shown]


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
    return name, probe.groups[position]


def _fitted(
    text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    """Return `text`, shortened to the width of a cell."""
    fitted, length = text, len(text)
    while length and draw.textlength(fitted, font=font) > _CELL:
        length -= 1
        fitted = f"{text[:length]}..."
    return fitted
