"""Whether a file's first bytes are those of an image, whatever the file is called."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["HEAD_BYTES", "first_bytes", "starts_as_image"]

HEAD_BYTES = 256
"""So many bytes are looked at."""
_STARTS = (
    b"\x89PNG\r\n\x1a\n",
    b"\x8aMNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"GIF87a",
    b"GIF89a",
    b"II*\x00",  # TIFF, and the raw formats of cameras that are TIFF
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
    b"IIU\x00",  # Panasonic
    b"IIRO",  # Olympus
    b"FUJIFILMCCD-RAW",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",  # JPEG 2000, then its code stream
    b"\xff\x4f\xff\x51",
    b"\x00\x00\x00\x0cJXL \r\n\x87\n",  # JPEG XL, then its code stream
    b"\xff\x0a",
    b"8BPS\x00",
    b"gimp xcf ",
    b"qoif",
    b"DDS ",
    b"#?RADIANCE",
    b"\x76\x2f\x31\x01",  # OpenEXR
    b"SIMPLE  =",  # FITS
    b"P7\nWIDTH",
)
_BRANDS = frozenset(b"heic heix heim heis hevc hevx mif1 msf1 avif avis crx".split())
_PNM = re.compile(rb"P[1-6]\s+(#[^\n]*\n\s*)*[0-9]+\s")
_BMP = re.compile(rb"BM.{4}\x00{4}.{4}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00{3}", re.DOTALL)


def starts_as_image(head: bytes) -> bool:
    """Whether a file that starts so is an image of a common format, readable by clipq or not.

    Of formats with a signature; a Targa or an SVG file has none.

    Args:
        head: its first `HEAD_BYTES` bytes, or all where it has fewer.

    >>> starts_as_image(b"GIF89a..."), starts_as_image(b"BMW and other makers")
    (True, False)
    """
    return (
        head.startswith(_STARTS)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12].strip() in _BRANDS)
        or head[128:132] == b"DICM"
        or bool(_PNM.match(head) or _BMP.match(head))
    )


def first_bytes(path: Path) -> bytes:
    """Return a file's first `HEAD_BYTES` bytes; none where it is a broken link, a pipe or a device.

    Raises:
        OSError: it cannot be read.

    >>> first_bytes(Path("LICENSE")).split()[0]
    b'Apache'
    """
    if not path.is_file():
        return b""  # a pipe would be waited for
    with path.open("rb", buffering=0) as stream:
        return stream.read(HEAD_BYTES)
