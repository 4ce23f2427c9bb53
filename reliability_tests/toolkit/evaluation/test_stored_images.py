"""Decoded images that were damaged on the disk are decoded again, not blamed on a quantizer."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from clipq.data import Images, SealedImages, probe_from_images
from clipq.errors import CacheError
from clipq.evaluation.cache import Cache
from clipq.evaluation.inputs import Inputs
from clipq.settings import load_settings

REPOSITORY = Path(__file__).parents[3]


class AsTheyAre:
    """Preprocessing that changes nothing."""

    identity = "none"
    to_uint8 = staticmethod(np.asarray)


@pytest.fixture
def pictures():
    return np.random.default_rng(1).integers(0, 256, (150, 5, 4, 3), np.uint8)


@pytest.fixture
def make(tmp_path, pictures):
    """Inputs whose in-distribution images are `pictures`, as another process would open them."""
    settings = load_settings(REPOSITORY / "clipq.toml")
    name = settings.in_distribution.name
    given = Images(pictures, np.zeros(len(pictures), np.int64), ("one",))
    probe = probe_from_images(given, name=name, role="in-distribution")

    def inputs() -> Inputs:
        made = Inputs(settings, Cache(tmp_path), opened={name: probe})
        made.probes = {name: probe}  # no other is opened
        return made

    return inputs


def read(inputs, how):
    (name,) = inputs.probes
    if how == "at once":
        return inputs.images(name, AsTheyAre)
    return np.concatenate(list(inputs.blocks(name, AsTheyAre, 40)))


@pytest.mark.parametrize("how", ["at once", "in blocks"])
def test_zeroed_images_are_named_and_made_again(make, tmp_path, pictures, how):
    assert np.array_equal(read(make(), how), pictures)
    (path,) = tmp_path.rglob("*.npy")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle:-2000] = bytes(len(content) - 2000 - middle)
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"\.npy is made again: .*images 64 to 127 are not those"):
        assert np.array_equal(read(make(), how), pictures)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read(make(), how), pictures)


def test_the_first_images_are_checked_without_the_rest(make, tmp_path, pictures):
    (name,) = make().probes
    read(make(), "at once")
    (path,) = tmp_path.rglob("*.npy")
    content = bytearray(path.read_bytes())
    content[128 + 140 * 60] ^= 255  # of image 140
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(make().images(name, AsTheyAre, first=100), pictures[:100])
    stored = SealedImages(path, key=path.stem)
    stored.verify(0, 128)
    with pytest.raises(CacheError, match="images 128 to 149"):
        stored.verify(128, 150)


def test_images_of_another_probe_are_not_taken_for_these(make, tmp_path, pictures):
    read(make(), "at once")
    (path,) = tmp_path.rglob("*.npy")
    other = path.with_name(f"{'0' * 64}.npy")
    shutil.copy(path, other)
    with pytest.raises(CacheError, match="not of '000"):
        SealedImages(other, key=other.stem)
