"""What every kind of storage shares: text files, images, and what ids and classes must be."""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from clipq.data.shards import Checksums
from clipq.errors import ProbeError
from clipq.provenance import sha256_file
from clipq.shapes import Document

__all__ = [
    "CLASSES",
    "IMAGES",
    "TEMPLATES",
    "as_rgb",
    "check_classes",
    "check_ids",
    "decode_image",
    "read_lines",
]

IMAGES = ("webp", "png", "jpg", "jpeg")
"""Endings of image files, lower case."""
_FORMATS = ("WEBP", "PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM")
# Others are never looked for: Pillow would hand an EPS to Ghostscript, which runs its program.
CLASSES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"


def decode_image(encoded: bytes, where: str) -> Image.Image:
    """Return the decoded image as RGB.

    Of an animation, the first frame; transparency is dropped, as CLIP's preprocessing drops it; 16
    bits a channel are scaled to 8, not cut off; EXIF orientation is not applied.

    Raises:
        ProbeError: it does not decode, or is a decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                # Said by a warning as well, which another thread may have switched off.
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            image.load()
            return as_rgb(image)
    except Exception as error:  # decoders fed with damaged bytes raise nearly anything
        raise ProbeError(
            f"{where}: the image does not decode: {error}", hint="replace or remove the sample"
        ) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Return a picture of any mode as RGB; 16 bits a channel are scaled to 8."""
    if image.mode.startswith("I"):  # 16 bits a channel: Pillow would cut all above 255 off
        values = np.asarray(image).astype(np.float64) / 257.0
        image = Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def read_lines(path: Path, checksums: Checksums | None) -> tuple[str, ...]:
    """Return a text file's lines; a blank one between others would shift every later label."""
    text = Document(path, "UTF-8", ProbeError, "the layout needs this file, in UTF-8").text()
    lines = [line.strip() for line in text.strip().split("\n")]
    if checksums is not None:
        checksums.verify(path, sha256_file(path))
    if not all(lines):
        raise ProbeError(
            f"{path}: line {lines.index('') + 1} is empty", hint="one entry a line, none blank"
        )
    return tuple(lines)


def check_ids(name: str, folder: Path | str, ids: list[str]) -> None:
    """Refuse an empty probe, and ids that repeat.

    Raises:
        ProbeError: there is no sample, or two share an id.
    """
    if not ids:
        raise ProbeError(f"probe {name!r}: {folder} holds no sample", hint="fill it")
    repeated, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise ProbeError(
            f"probe {name!r}: sample id {repeated!r} occurs {count} times in {folder}",
            hint="ids identify samples when models are compared: make them unique, and, in a tar, "
            "keep the files of one sample together",
        )


def check_classes(
    name: str, folder: Path | str, classnames: tuple[str, ...], labels: list[int]
) -> None:
    """Refuse classes without a sample, which would only draw predictions.

    Raises:
        ProbeError: there are some.
    """
    absent = sorted(set(range(len(classnames))) - set(labels))
    if absent:
        raise ProbeError(
            f"probe {name!r}: class count does not match: of {len(classnames)} class names, "
            f"{len(absent)} have no sample in {folder} "
            f"(first: {classnames[absent[0]]!r})",
            hint="list exactly the classes that occur",
        )
