"""What a model is shown is what open_clip's own transform makes of the same image, bit for bit."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from clipq.data import Images, Probe, materialise, probe_from_images
from clipq.data.corruption import corrupted
from clipq.data.decoding import as_rgb, decode_image
from clipq.data.pixel_remarks import pixel_remarks
from clipq.data.sealed_images import load
from clipq.errors import ProbeError
from clipq.models.preprocess import MOST_PIXELS, Preprocess
from clipq.settings import CorruptionSettings

SIZES = ((16, 16), (23, 17), (9, 31), (1, 5), (64, 40))
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV",
         "I", "I;16", "I;16B", "F")  # fmt: skip
"""Every mode of Pillow that open_clip takes."""
CONFIGS = (
    PreprocessCfg(size=16),
    PreprocessCfg(size=16, resize_mode="longest", interpolation="bilinear", fill_color=7),
    PreprocessCfg(size=16, resize_mode="squash"),
    PreprocessCfg(size=(12, 18)),
)
ORIENTATION = 274


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """Noise in every channel, an alpha channel and values above 8 bits included."""
    width, height = size
    random = np.random.default_rng([width, height])
    noise = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    noise[: height // 2, :, 3] = 0  # there something lies under full transparency
    if mode in ("RGBA", "RGBa", "CMYK"):
        return Image.frombytes(mode, size, noise.tobytes())
    if mode in ("YCbCr", "LAB", "HSV"):
        return Image.frombytes(mode, size, noise[..., :3].tobytes())
    if mode.startswith("I;16"):
        return Image.frombytes(mode, size, noise[..., :2].tobytes())
    if mode == "I":
        return Image.fromarray(noise[..., 0].astype(np.int32) * 3 - 100)
    if mode == "F":
        return Image.fromarray(noise[..., 0].astype(np.float32) * 1.7 - 40)
    if mode == "RGB":
        return Image.fromarray(noise[..., :3].copy())
    return Image.frombytes("RGBA", size, noise.tobytes()).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_orientation(value: int) -> dict[str, object]:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return {"exif": exif}


FILES: dict[str, Callable[[tuple[int, int]], bytes]] = {
    **{
        f"png {mode}": lambda size, mode=mode: saved(picture(mode, size), "PNG")
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    },
    "png P, a colour transparent": lambda size: saved(picture("P", size), "PNG", transparency=3),
    "png P, alphas": lambda size: saved(picture("P", size), "PNG", transparency=bytes(range(200))),
    "png L, a grey transparent": lambda size: saved(picture("L", size), "PNG", transparency=3),
    "png RGB, a colour transparent": lambda size: saved(
        picture("RGB", size), "PNG", transparency=(1, 2, 3)
    ),
    "png 1, black transparent": lambda size: saved(picture("1", size), "PNG", transparency=0),
    **{
        f"jpeg {mode}": lambda size, mode=mode: saved(picture(mode, size), "JPEG")
        for mode in ("L", "RGB", "CMYK", "YCbCr")
    },
    **{
        f"{kind} orientation {turned}": lambda size, kind=kind, turned=turned: saved(
            picture("RGB", size), kind, **with_orientation(turned)
        )
        for kind in ("JPEG", "PNG", "WEBP", "TIFF")
        for turned in (3, 6)
    },
    **{
        f"tiff {mode}": lambda size, mode=mode: saved(picture(mode, size), "TIFF")
        for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16",
                     "I;16B", "F")
    },
    **{f"webp {mode}": lambda size, mode=mode: saved(picture(mode, size), "WEBP")
       for mode in ("RGB", "RGBA")},
    **{f"gif {mode}": lambda size, mode=mode: saved(picture(mode, size), "GIF")
       for mode in ("L", "P", "RGB", "RGBA")},
    "gif P, transparent": lambda size: saved(picture("P", size), "GIF", transparency=3),
    "gif of two": lambda size: saved(
        picture("RGB", size), "GIF", save_all=True, append_images=[Image.new("RGB", size)]
    ),
    **{f"bmp {mode}": lambda size, mode=mode: saved(picture(mode, size), "BMP")
       for mode in ("1", "L", "P", "RGB", "RGBA")},
    **{f"ppm {mode}": lambda size, mode=mode: saved(picture(mode, size), "PPM")
       for mode in ("1", "L", "RGB", "I", "F")},
}  # fmt: skip


def shown(config: PreprocessCfg, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what clipq makes of a decoded image, and open_clip's transform of the same."""
    transform = image_transform_v2(config, is_train=False)
    preprocess = Preprocess(transform, config)
    pixels = preprocess.to_uint8(image)
    return preprocess.normalise(pixels[None])[0], transform(image)


def test_every_file_is_shown_as_open_clip_shows_it():
    """Each kind of file in five sizes is opened by clipq and by Pillow alone, for four settings."""
    transforms = [image_transform_v2(config, is_train=False) for config in CONFIGS]
    ours = [Preprocess(*both) for both in zip(transforms, CONFIGS, strict=True)]
    compared, modes = 0, set()
    for name, make in FILES.items():
        for size in SIZES:
            content = make(size)
            theirs = Image.open(io.BytesIO(content))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = [transform(theirs) for transform in transforms]
                warnings.simplefilter("error")  # alphas in palettes come without Pillow's warning
                decoded = decode_image(content, name)
                pixels = [preprocess.to_uint8(decoded) for preprocess in ours]
            for preprocess, found, wanted in zip(ours, pixels, expected, strict=True):
                assert torch.equal(preprocess.normalise(found[None])[0], wanted), (name, size)
            compared += 1
            modes.add(decoded.mode)
    assert compared >= 200
    assert {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "LAB", "I", "I;16", "I;16B",
            "F"} <= modes  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=["shortest", "longest", "squash", "oblong"])
def test_every_picture_in_memory_is_shown_as_open_clip_shows_it(config, tmp_path):
    """Modes that no format stores, from memory through the file of prepared images."""
    transform = image_transform_v2(config, is_train=False)
    pictures = [picture(mode, size) for mode in MODES for size in SIZES]
    pictures += [Image.new("P", (20, 17)), Image.new("PA", (20, 17))]
    pictures[-2].info["transparency"] = bytes(range(5))
    probe = probe_from_images(Images(pictures), name="noise", role="ood")
    materialise(probe, Preprocess(transform, config).to_uint8, tmp_path / "images.npy")
    stored = load(tmp_path / "images.npy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.stack([transform(image) for image in pictures])
    for index, image in enumerate(pictures):
        ours = Preprocess(transform, config).normalise(stored[index : index + 1])[0]
        assert torch.equal(ours, expected[index]), image
    assert "transparency" in pictures[-2].info, "the caller's picture was changed"


def test_rgb_before_the_resize_would_be_another_image():
    """That the order matters is what the two tests above rest on."""
    config = CONFIGS[0]
    for mode in ("1", "P", "PA", "LA", "RGBA", "CMYK", "HSV", "F"):
        ours, expected = shown(config, picture(mode, (64, 40)))
        early, _ = shown(config, picture(mode, (64, 40)).convert("RGB"))
        assert torch.equal(ours, expected)
        assert not torch.equal(early, expected), mode


def one(image: Image.Image) -> Probe:
    return probe_from_images(Images([image, Image.new("RGB", (4, 4))]), name="p", role="ood")


def test_pictures_are_told_apart_by_all_that_open_clip_sees():
    rgb = picture("RGB", (9, 31))
    variants = [rgb, rgb.convert("RGBA"), rgb.convert("RGBX"), rgb.convert("L"), rgb.convert("P")]
    other = rgb.convert("P")
    other.putpalette([255 - value for value in other.getpalette()])
    hashes = {one(image).sample_hashes[0] for image in [*variants, other]}
    assert len(hashes) == 6
    assert one(rgb).sample_hashes == one(np.asarray(rgb)).sample_hashes


def test_what_open_clip_refuses_is_named(tmp_path):
    with pytest.raises(ProbeError, match=r"image 0: open_clip.* refuses an image of mode La"):
        one(picture("RGBa", (5, 4)).convert("RGBA").convert("LA").convert("La"))
    thin = Preprocess(image_transform_v2(CONFIGS[1], is_train=False), CONFIGS[1])
    message = r"probe 'p', sample '0': an image of mode L and 1 x 400 pixels: .* refuses it"
    with pytest.raises(ProbeError, match=message) as caught:
        materialise(one(Image.new("L", (1, 400))), thin.to_uint8, tmp_path / "images.npy")
    assert "ordinary size" in caught.value.hint
    for config in (CONFIGS[0], CONFIGS[1], CONFIGS[3]):
        preprocess = Preprocess(image_transform_v2(config, is_train=False), config)
        with pytest.raises(ProbeError, match=r"0 x 5 pixels: .* refuses it"):
            preprocess.to_uint8(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    ("size", "config", "made"),
    [
        ((1, 4000), PreprocessCfg(), "224 x 896,000"),
        ((4000, 1), PreprocessCfg(), "896,000 x 224"),
        ((5000, 1), PreprocessCfg(size=(224, 240)), "1,120,000 x 224"),
    ],
)
def test_a_strip_whose_resize_would_fill_the_memory_is_refused_before_it(size, config, made):
    preprocess = Preprocess(image_transform_v2(config, is_train=False), config)
    with pytest.raises(ProbeError, match=f"would be resized to {made} before the crop"):
        preprocess.to_uint8(Image.new("RGB", size))


def test_the_bound_is_of_what_the_resize_would_make():
    tallest = MOST_PIXELS // 16**2
    config = CONFIGS[0]
    preprocess = Preprocess(image_transform_v2(config, is_train=False), config)
    assert preprocess.to_uint8(Image.new("1", (1, 900))).shape == (16, 16, 3)
    with pytest.raises(ProbeError, match="before the crop"):
        preprocess.to_uint8(Image.new("1", (1, tallest + 1)))
    squash = Preprocess(image_transform_v2(CONFIGS[2], is_train=False), CONFIGS[2])
    assert squash.to_uint8(Image.new("1", (1, tallest + 1))).shape == (16, 16, 3)


def test_strips_are_counted_among_the_images_that_cannot_be_used(tmp_path):
    strips = Images([Image.new("RGB", (1, 4000))] * 2 + [Image.new("RGB", (8, 8))])
    probe = probe_from_images(strips, name="p", role="ood")
    preprocess = Preprocess(image_transform_v2(PreprocessCfg(), is_train=False), PreprocessCfg())
    with pytest.raises(ProbeError, match="2 of 3 images cannot be used: probe 'p', sample '0'"):
        materialise(probe, preprocess.to_uint8, tmp_path / "images.npy")


def test_corruptions_see_rgb_whatever_the_image_is():
    originals = [picture(mode, (23, 17)) for mode in MODES]
    labels = [0] * len(originals)
    probe = probe_from_images(Images(originals, labels, ["a"]), name="c", role="corruption")
    covered = corrupted(probe, CorruptionSettings(("occlusion",), (3,)))
    for image, original, mode in zip(covered.images(), originals, MODES, strict=True):
        assert (image.mode, image.size) == ("RGB", (23, 17)), mode
        shown, below = np.asarray(image), np.asarray(as_rgb(original))
        square = (shown == 127).all(axis=2)
        assert 49 <= square.sum() < 60  # a few pixels are of that grey by themselves
        assert np.array_equal(shown[~square], below[~square]), mode


class TestRemarks:
    def remarks(self, *contents: bytes, unpack: object = None) -> list[str]:
        probe = one(Image.new("RGB", (4, 4)))
        for name, value in {
            "ids": tuple(f"{index}.png" for index in range(len(contents))),
            "sample_hashes": tuple(str(index) for index in range(len(contents))),
            "read_encoded": lambda: iter(contents),
            "unpack": unpack,
        }.items():
            object.__setattr__(probe, name, value)
        return list(pixel_remarks(probe))

    def test_rgb_is_not_remarked_upon(self):
        assert self.remarks(*[saved(picture(mode, (9, 9)), "PNG") for mode in ("RGB", "L")]) == []

    def test_an_alpha_channel_that_hides_nothing_is_not_remarked_upon(self):
        assert self.remarks(saved(picture("RGB", (9, 9)).convert("RGBA"), "PNG")) == []

    def test_transparent_images_are_counted_and_said_to_show_what_lies_below(self):
        hiding = [saved(picture(mode, (9, 9)), "PNG") for mode in ("RGBA", "LA")]
        hiding += [FILES["png P, alphas"]((9, 9)), FILES["gif P, transparent"]((64, 40))]
        (remark,) = self.remarks(*hiding, saved(picture("RGB", (9, 9)), "PNG"))
        assert remark.startswith("4 of 5 images are transparent in places, 0.png first: ")
        assert "what lies under" in remark

    def test_more_than_8_bits_and_turned_photographs_are_named(self):
        deep, turned = self.remarks(
            saved(picture("I;16", (9, 9)), "PNG"),
            saved(picture("RGB", (9, 9)), "JPEG", **with_orientation(6)),
            saved(picture("F", (9, 9)), "TIFF"),
            saved(picture("RGB", (9, 9)), "TIFF", **with_orientation(6)),  # Pillow turns it
        )
        assert deep.startswith("2 of 4 images hold more than 8 bits a channel, 0.png first: ")
        assert turned.startswith("1 of 4 images have an EXIF orientation, 1.png first: ")

    def test_corrupted_versions_of_an_image_count_once(self):
        base = probe_from_images(
            Images([picture("RGBA", (9, 9)), picture("RGB", (9, 9))], [0, 1], ["a", "b"]),
            name="c",
            role="corruption",
        )
        settings = CorruptionSettings(("occlusion",), (3, 4))
        (remark,) = pixel_remarks(corrupted(base, settings))
        assert remark.startswith("1 of 2 images are transparent")

    def test_an_image_that_does_not_decode_is_left_to_those_who_name_it(self):
        assert self.remarks(b"no image", saved(picture("RGBA", (9, 9)), "PNG")[:60]) == []


def test_reading_a_file_keeps_its_mode_for_paths_as_well(tmp_path: Path):
    from clipq.data import open_probe

    folder = tmp_path / "d" / "test" / "a"
    folder.mkdir(parents=True)
    picture("RGBA", (23, 17)).save(folder / "0.png")
    probe = open_probe(name="d", role="shift", source="folder:d", split="test", base_dir=tmp_path)
    assert next(probe.images()).mode == "RGBA"
