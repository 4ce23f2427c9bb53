"""Contact sheets show what a probe holds."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from clipq.data import caption_font
from clipq.data.contact_sheet import _caption, contact_sheet, spread_indices
from clipq.data.probe import Probe
from clipq.errors import ProbeError


def _encoded(image) -> bytes:
    stream = io.BytesIO()
    kind = "TIFF" if image.mode == "CMYK" else "PNG"
    image.save(stream, kind)
    return stream.getvalue()


def probe(images, labels, *, role="in-distribution", groups=None) -> Probe:
    return Probe(
        name="p",
        role=role,
        classnames=("cat", "a class with a name that fits no cell of any sheet at all"),
        templates=("a {c}",),
        ids=tuple(f"s{i}" for i in range(len(labels))),
        labels=np.array(labels),
        groups=tuple(groups or [""] * len(labels)),
        captions=None,
        sample_hashes=(),
        fingerprint="",
        read_encoded=lambda: (_encoded(image) for image in images),
    )


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=60), st.integers(1, 20))
def test_samples_are_spread_over_the_classes(labels, count):
    found = spread_indices(labels, count)
    assert len(found) == len(set(found))
    shown = [labels[i] for i in found]
    kinds = len(set(labels))
    assert len(set(shown[:kinds])) == min(kinds, count), "a class comes twice before another"
    assert len(set(shown)) == min(kinds, count)
    if kinds > count:
        return
    assert len(found) == min(count, len(labels))
    for label in set(labels):
        left = labels.count(label) - shown.count(label)
        # Whoever has samples left was served as often as anyone, or once less.
        assert not left or shown.count(label) >= max(map(shown.count, set(labels))) - 1


def test_a_sheet_shows_many_classes_and_all_of_a_probe_without_them(tmp_path):
    assert spread_indices([i // 100 for i in range(400)], 48)[:4] == [0, 100, 200, 300]
    of_many = [i // 10 for i in spread_indices([i // 10 for i in range(1000)], 10)]
    assert of_many == list(range(0, 100, 10))
    images = [Image.new("RGB", (8, 8))] * 9
    groups = ["a"] * 6 + ["b"] * 3
    shown = contact_sheet(
        probe(images, [-1] * 9, role="ood", groups=groups), tmp_path / "s.png", count=4
    )
    assert shown == ["s0", "s6", "s3", "s7"]


SCRIPTS = {
    "Latin": "Müller-Straße",
    "Greek": "γάτα",
    "Cyrillic": "кошка",
    "Chinese": "猫",
    "Japanese": "ねこ",
    "Korean": "고양이",
    "Arabic": "قطة",
    "Hebrew": "חתול",
    "Devanagari": "बिल्ली",
    "Thai": "แมว",
    "emoji": "😀👩‍🚀❤️",
    "private": "\ue000",
}


@pytest.mark.parametrize("fonts", ["of the system", "none"])
@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_no_caption_is_drawn_as_boxes(text, fonts, monkeypatch):
    if fonts == "none":
        monkeypatch.setattr(caption_font, "_holders", lambda code: ())
    caption_font._font.cache_clear()
    parts = list(caption_font._parts(text, 11))
    assert parts
    for part, font in parts:
        absent = bytes(font.getmask("\U0010fffe"))
        assert all(bytes(font.getmask(x)) != absent for x in part if not x.isspace()), part
    shown = "".join(part for part, _ in parts)
    if fonts == "none" and text not in ("Müller-Straße", "кошка", "γάτα"):
        assert shown.startswith("[")
    sheet = Image.new("L", (900, 24), "white")
    draw = ImageDraw.Draw(sheet)
    caption_font.draw_text(draw, (2, 2), text, size=11)
    assert (np.asarray(sheet) < 128).any()
    fitted = caption_font.fitted_text(draw, text * 30, size=11, width=112)
    assert fitted.endswith("...")
    caption_font._font.cache_clear()


def test_what_no_font_has_is_named(monkeypatch):
    monkeypatch.setattr(caption_font, "_holders", lambda code: ())
    caption_font._font.cache_clear()
    assert caption_font.shown_text("a 😀\n猫") == "a [grinning face] [U+732B]"
    caption_font._font.cache_clear()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P", "1", "I;16"])
@pytest.mark.parametrize("size", [(32, 32), (7, 300), (500, 20)])
def test_every_kind_of_image_is_drawn(tmp_path, mode, size):
    images = [Image.new(mode, size) for _ in range(3)]
    shown = contact_sheet(
        probe(images, [0, 1, 0], groups=["a", "b", "c"]), tmp_path / "a" / "s.png"
    )
    assert shown == ["s0", "s1", "s2"], "classes take turns"
    with Image.open(tmp_path / "a" / "s.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.size[0] > 8 * 112
        assert len(np.unique(np.asarray(sheet))) > 1


def test_pixels_and_captions_are_those_of_the_samples(tmp_path):
    red = [Image.new("RGB", (32, 32), "red")]
    contact_sheet(probe(red, [-1], role="ood"), tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as sheet:
        pixels = np.asarray(sheet)
    assert (pixels[62, 62] == (255, 0, 0)).all()
    below = pixels[6 + 112 : 6 + 112 + 14, 6:60]
    assert (below < 128).any(), "there is no caption"


def test_what_lies_under_transparency_is_shown_as_a_model_is_shown_it(tmp_path):
    contact_sheet(probe([Image.new("RGBA", (32, 32), (255, 0, 0, 0))], [0]), tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.getpixel((62, 62)) == (255, 0, 0)


def test_an_image_that_does_not_decode_is_an_error(tmp_path):
    made = probe([], [0, 0])
    encoded = [_encoded(Image.new("RGB", (8, 8))), b"no image"]
    object.__setattr__(made, "read_encoded", lambda: iter(encoded))
    with pytest.raises(ProbeError, match="does not decode"):
        contact_sheet(made, tmp_path / "s.png")
    assert not (tmp_path / "s.png").exists()


def test_a_pair_is_shown_with_its_first_caption():
    pair = replace(probe([None], [-1]), captions=("a cat\na pet",))
    assert _caption(pair, 0) == ("s0", "a cat")
    assert _caption(replace(pair, labels=np.array([0])), 0) == ("cat", "")
