"""What `clipq probe check` says of images that a model is shown otherwise than a viewer shows them.

Nothing is wrong with them: open_clip's preprocessing, and therefore every zero-shot number that
anybody reports, takes them so. But whoever looks at the files sees something else.
"""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from clipq.data.decoding import opened
from clipq.data.probe import Probe

__all__ = ["pixel_remarks"]

_TRANSPARENT = "are transparent in places"
_DEEP = "hold more than 8 bits a channel"
_TURNED = "have an EXIF orientation"
_MEANING = {
    _TRANSPARENT: "open_clip drops the alpha channel after the resize, so that what lies under "
    "transparency, often black, decides what the model sees; where that is not meant, paste them "
    "onto a background of your choice",
    _DEEP: "open_clip cuts off all that is above 255, which leaves most of them white; scale them "
    "to 8 bits",
    _TURNED: "open_clip does not apply it, so that the model sees them turned; save them upright",
}
_ORIENTATION = 274
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_NOTABLE = 0.01
"""Share of images from which transparency, depth or orientation is worth a sentence."""


def pixel_remarks(probe: Probe) -> Iterator[str]:
    """Yield a sentence for each thing that open_clip does to images and a viewer does not.

    Of most images the header alone is read; those with an alpha channel are decoded, for one that
    hides nothing is no matter. Versions of one image count once, damaged images not at all.

    Args:
        probe: whose images are looked at, all of them.

    >>> from clipq.data import Images, probe_from_images
    >>> clear = Images([Image.new("RGBA", (8, 8), (255, 0, 0, 0))])
    >>> list(pixel_remarks(probe_from_images(clear, name="icons", role="ood")))
    ['1 of 1 images are transparent in places, 0 first: open_clip drops the alpha channel ...']
    """
    found: dict[str, list[str]] = {remark: [] for remark in _MEANING}
    seen: set[str] = set()
    for position, encoded in enumerate(probe.read_encoded()):
        if probe.sample_hashes[position] in seen:
            continue
        seen.add(probe.sample_hashes[position])
        for remark in _remarkable(probe, encoded):
            found[remark].append(probe.ids[position])
    for remark, samples in found.items():
        if samples and len(samples) >= _NOTABLE * len(seen):
            yield (
                f"{len(samples):,} of {len(seen):,} images {remark}, {samples[0]} first: "
                f"{_MEANING[remark]}"
            )


def _remarkable(probe: Probe, encoded: bytes) -> Iterator[str]:
    try:
        image = opened(encoded) if probe.unpack is None else probe.unpack(encoded, "")
        if _hides(image):
            yield _TRANSPARENT
        if image.mode[0] in "IF":
            yield _DEEP
        if image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) != 1:
            yield _TURNED
    except Exception:  # a damaged image, which is counted and named where it is decoded
        return


def _hides(image: Image.Image) -> bool:
    """Return whether a pixel is transparent, in whole or in part."""
    if image.mode not in _ALPHA and "transparency" not in image.info:
        return False
    alpha = image if image.mode in _ALPHA else image.convert("RGBA")
    return alpha.getchannel(alpha.mode[-1]).point(lambda value: value < 255).getbbox() is not None
