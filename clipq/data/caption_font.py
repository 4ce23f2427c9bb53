"""Text drawn in any script: each part in a font of this machine that has its letters.

Pillow's own font has few scripts, and a missing letter is a box that says nothing. For what it
lacks, fontconfig is asked which installed font has the letter; where there is no fontconfig, a few
fonts that systems come with are tried. A letter that no font has is written as what it is: a symbol
by its name, any other as its code point.
"""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

from PIL import ImageDraw, ImageFont, features

__all__ = ["draw_text", "fitted_text", "shown_text"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_SECONDS = 10
# Pillow looks for them where the system keeps its fonts.
_USUAL = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf"),
    *(
        "arial.ttf",
        "segoeui.ttf",
        "msyh.ttc",
        "Nirmala.ttf",
        "seguisym.ttf",
        "AppleSDGothicNeo.ttc",
    ),
)
_ABSENT = "\U0010fffe"  # which no font has


def draw_text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, *, size: int
) -> None:
    """Draw a line of text in black.

    Args:
        draw: where.
        place: left end and top in pixels.
        text: in any script; what cannot be drawn is written out, as `shown_text` says.
        size: of the letters in pixels.

    >>> from PIL import Image
    >>> image = Image.new("L", (80, 20), "white")
    >>> draw_text(ImageDraw.Draw(image), (2, 2), "cat", size=11)
    >>> image.getextrema()[0] < 128
    True
    """
    left, top = place
    for part, font in _parts(text, size):
        # On one base line, whatever the font.
        draw.text((left, top + size), _ordered(part), fill="black", font=font, anchor="ls")
        left += draw.textlength(_ordered(part), font=font)


def fitted_text(draw: ImageDraw.ImageDraw, text: str, *, size: int, width: float) -> str:
    """Return a text that is shortened with dots to what fits.

    Args:
        draw: where it is to be drawn.
        text: in any script.
        size: of the letters in pixels.
        width: in pixels.

    >>> from PIL import Image
    >>> draw = ImageDraw.Draw(Image.new("L", (80, 20)))
    >>> fitted_text(draw, "a class with a long name", size=11, width=60).endswith("...")
    True
    """

    def length(shown: str) -> float:
        return sum(draw.textlength(_ordered(part), font=font) for part, font in _parts(shown, size))

    fitted, kept = text, len(text)
    while kept and length(fitted) > width:
        kept -= 1
        fitted = f"{text[:kept]}..."
    return fitted


def shown_text(text: str, *, size: int = 11) -> str:
    """Return what of a text is drawn: letters that no font here has are written out.

    >>> shown_text("cat"), shown_text("\\U0010fffe")
    ('cat', '[U+10FFFE]')
    """
    return "".join(part for part, _ in _parts(text, size))


def _parts(text: str, size: int) -> Iterator[tuple[str, Font]]:
    """Yield the text in parts, each with the font that draws it."""
    usual = ImageFont.load_default(size)
    drawn: list[tuple[str, Font]] = []
    for letter in unicodedata.normalize("NFC", text):
        if unicodedata.category(letter) in ("Cc", "Zl", "Zp"):
            letter = " "
        joins = unicodedata.combining(letter) or letter in "\u200c\u200d" or _is_variant(letter)
        font = drawn[-1][1] if joins and drawn else _font(letter, size)
        if joins and drawn and not _has(font, letter):
            continue  # it only shapes its neighbours
        drawn.append((letter, font) if font is not None else (_written_out(letter), usual))
    for _, part in groupby(drawn, key=lambda each: id(each[1])):
        found = list(part)
        yield "".join(letter for letter, _ in found), found[0][1]


def _is_variant(letter: str) -> bool:
    return "\ufe00" <= letter <= "\ufe0f" or "\U0001f3fb" <= letter <= "\U0001f3ff"


def _written_out(letter: str) -> str:
    symbol = unicodedata.category(letter).startswith("S")
    name = unicodedata.name(letter, "").lower()
    return f"[{name}]" if symbol and name else f"[U+{ord(letter):04X}]"


@lru_cache(maxsize=4096)
def _font(letter: str, size: int) -> Font | None:
    """Return the font for a letter; None where no font has it."""
    usual = ImageFont.load_default(size)
    if letter.isspace() or _has(usual, letter):
        return usual
    for path in _holders(ord(letter)):
        font = _loaded(path, size)
        if font is not None and _has(font, letter):
            return font
    return None


@lru_cache(maxsize=64)
def _loaded(path: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(path, size)
    except OSError:
        return None  # not installed, or of pictures in one size, as colour emoji are


@lru_cache(maxsize=1024)
def _holders(code: int) -> tuple[str, ...]:
    """Return fonts that may have a letter, plain ones first."""
    program = shutil.which("fc-list")
    if program is None:
        return _USUAL
    query = [program, f":charset={code:x}", "--format=%{file}\\n"]
    try:
        done = subprocess.run(query, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return _USUAL
    found = {line for line in done.stdout.decode(errors="replace").splitlines() if line}
    special = ("bold", "italic", "oblique", "mono", "serif", "condensed", "light", "thin", "black")
    return tuple(sorted(found, key=lambda path: (sum(x in path.lower() for x in special), path)))


def _has(font: Font | None, letter: str) -> bool:
    """Whether a font draws a letter otherwise than one that it lacks."""
    if font is None:
        return False
    return _picture(font, letter) != _picture(font, _ABSENT)


def _picture(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _ordered(text: str) -> str:
    """Return letters as they are drawn: without a shaping library, from right to left where so."""
    if features.check("raqm"):
        return text
    backwards = [unicodedata.bidirectional(letter) in ("R", "AL", "NSM") for letter in text]
    return text[::-1] if text and all(backwards) else text
