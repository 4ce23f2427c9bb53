"""Images as open_clip's preprocessing meets them: decoded, in the mode that their file has.

open_clip resizes first and converts to RGB afterwards. Both orders agree on grey and RGB pixels
alone: a palette or a bilevel image is resized by its nearest pixels, an alpha channel weighs the
colours, CMYK is mixed in its own space. So nothing is converted here; whoever needs RGB before the
resize, as corruptions do, asks `as_rgb` for it.
"""

from __future__ import annotations

import io
import math
import warnings

from PIL import Image

from clipq.errors import ProbeError

__all__ = ["PIXELS_VERSION", "as_rgb", "check_mode", "decode_image", "opened"]

PIXELS_VERSION = 2
"""Part of every key in the cache that pixels go into: bumped when an image decodes differently."""
_FORMATS = ("WEBP", "PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM")
# Others are never looked for: Pillow would hand an EPS to Ghostscript, which runs its program.


def decode_image(encoded: bytes, where: str) -> Image.Image:
    """Return the decoded image in its own mode, as `PIL.Image.open` gives it to open_clip.

    Of an animation, the first frame; EXIF orientation is not applied (but TIFF's is, by Pillow).

    Args:
        encoded: the file's content.
        where: what a message calls the image.

    Raises:
        ProbeError: it does not decode, is a decompression bomb, or is of a mode that open_clip's
            preprocessing refuses.

    >>> stream = io.BytesIO()
    >>> Image.new("CMYK", (8, 6)).save(stream, "TIFF")
    >>> decode_image(stream.getvalue(), "a print").mode
    'CMYK'
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = opened(encoded)
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                # Said by a warning as well, which another thread may have switched off.
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            image.load()
    except Exception as error:  # decoders fed with damaged bytes raise nearly anything
        raise ProbeError(
            f"{where}: the image does not decode: {error}", hint="replace or remove the sample"
        ) from error
    if isinstance(image.info.get("transparency"), bytes):
        del image.info["transparency"]  # Pillow ignores it where RGB is made, and warns of that
    check_mode(image, where)
    return image


def opened(encoded: bytes) -> Image.Image:
    """Return an image of which the header alone was read: its mode, size and `info`.

    >>> stream = io.BytesIO()
    >>> Image.new("LA", (8, 6)).save(stream, "PNG")
    >>> opened(stream.getvalue())
    <PIL.PngImagePlugin.PngImageFile image mode=LA size=8x6 at ...>
    """
    return Image.open(io.BytesIO(encoded), formats=_FORMATS)


def check_mode(image: Image.Image, where: str) -> None:
    """Refuse an image that open_clip can neither resize nor convert to RGB.

    Raises:
        ProbeError: it is of such a mode.

    >>> check_mode(Image.new("La", (8, 6)), "a mask")
    Traceback (most recent call last):
    clipq.errors.ProbeError: a mask: open_clip's preprocessing refuses an image of mode La: ...
      fix: save it as RGB, or as another mode that Pillow converts to RGB
    """
    if image.mode == "RGB":
        return
    try:
        pixel = image.crop((0, 0, 1, 1)).resize((2, 2), Image.Resampling.BICUBIC)
        as_rgb(pixel)
    except (ValueError, OSError, KeyError) as error:
        raise ProbeError(
            f"{where}: open_clip's preprocessing refuses an image of mode {image.mode}: {error}",
            hint="save it as RGB, or as another mode that Pillow converts to RGB",
        ) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB, by Pillow's own conversion.

    What lies under transparency is shown, more than 8 bits a channel are cut off at 255: what
    open_clip's conversion makes of them.

    >>> as_rgb(Image.new("RGBA", (1, 1), (200, 30, 90, 0))).getpixel((0, 0))
    (200, 30, 90)
    """
    if image.mode == "RGB":
        return image
    if isinstance(image.info.get("transparency"), bytes):
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")
