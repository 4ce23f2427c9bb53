"""A sample that a probe holds twice is found, whatever its file is called or encoded as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipq.data import Pictures, open_probe, unreadable_images
from clipq.errors import ProbeError

PIXELS = np.random.default_rng(0).integers(0, 4, (6, 5, 3), dtype=np.uint8) * 80


def write(root: Path) -> Path:
    """Write six pictures, four of which show the same, and one is its grey version."""
    (root / "d" / "images").mkdir(parents=True)
    same = Image.fromarray(PIXELS)
    alpha = same.copy()
    alpha.putalpha(255)
    for name, image in {
        "1.png": same,
        "2.bmp": same,
        "3.png": alpha,
        "4.png": same.quantize(64),
        "5.png": same.convert("L"),
        "6.png": same.transpose(Image.Transpose.ROTATE_90),
    }.items():
        image.save(root / "d" / "images" / name)
    return root / "d"


def listed(root: Path, *lines: str):
    (root / "d" / "list.txt").write_text("\n".join(lines))
    return open_probe(name="p", role="ood", source="imagelist:d", split="list.txt", base_dir=root)


def test_pictures_of_the_same_pixels_are_named(tmp_path):
    root = write(tmp_path)
    probe = listed(
        tmp_path, *(f"images/{path.name} 0" for path in sorted((root / "images").iterdir()))
    )
    pictures = Pictures()
    assert unreadable_images(probe, tell=pictures.tell) == []
    assert pictures.repeated() == [[0, 1, 2, 3]]
    assert pictures.remarks(probe.ids) == [
        "4 of 6 images have the pixels of another one: images/1.png = images/2.bmp = images/3.png "
        "= images/4.png"
    ]


@pytest.mark.parametrize("other", ["images/./1.png", "images//1.png", "images/../images/1.png"])
def test_a_path_written_two_ways_is_one_sample(tmp_path, other):
    write(tmp_path)
    with pytest.raises(ProbeError, match=r"'images/1\.png' and .*1\.png', which are the same"):
        listed(tmp_path, "images/1.png 0", "images/5.png 0", f"{other} 0")


def test_many_repeats_are_one_short_sentence():
    pictures = Pictures()
    for position in range(100):
        pictures.tell(position, Image.new("L", (2, 2), position // 10))
    (remark,) = pictures.remarks([str(position) for position in range(100)])
    assert remark.startswith("100 of 100 images have the pixels of another one: 0 = 1 = 2 = 3 = 4 ")
    assert remark.endswith(" and 5 more; and 5 more such")
