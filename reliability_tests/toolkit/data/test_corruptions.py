"""Corrupted images: the same in every order, evenly dealt out, and their own originals' leakage."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipq.data import Probe, check_disjoint, open_declared, open_probe
from clipq.data.corruption import KINDS, corrupt, corrupted, kinds_matching
from clipq.errors import ProbeError
from clipq.settings import CorruptionSettings, ProbeSettings

FIXTURES = Path(__file__).parents[3] / "fixtures"
DECLARED = ProbeSettings(
    "c",
    "corruption",
    "webdataset:data/shapes",
    samples=48,
    corruption=CorruptionSettings(("*",), (1, 3, 5)),
)


@pytest.fixture(scope="module")
def probe() -> Probe:
    return open_declared(DECLARED, base_dir=FIXTURES)


def image(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_harms_more_with_severity_and_follows_its_seed_alone(kind):
    smooth = Image.fromarray(np.linspace(30, 220, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8))
    smooth.paste(image(3, (8, 8)), (12, 12))
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    changes = []
    for severity in (1, 5):
        first = np.asarray(corrupt(smooth, kind, severity, seed=11)).astype(int)
        random.seed(severity)
        torch.manual_seed(severity)
        again = np.asarray(corrupt(smooth, kind, severity, seed=11)).astype(int)
        assert np.array_equal(first, again)
        assert first.shape == (32, 32, 3)
        changes.append(np.abs(first - np.asarray(smooth)).mean())
    torch.random.set_rng_state(state[0])
    corrupt(smooth, kind, 3, seed=5)
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])
    assert 0 < changes[0] < changes[1] or kind in ("elastic_transform", "glass_blur")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(33, 47), (224, 224)])
def test_sizes_are_kept_up_to_imagenet_s(kind, size):
    assert corrupt(image(1, size), kind, 4, seed=0).size == size[::-1]


def test_larger_images_are_brought_to_imagenet_c_s_size():
    assert corrupt(image(1, (300, 500)), "fog", 2, seed=0).size == (224, 224)


def test_every_image_at_every_kind_and_severity(probe):
    assert len(probe) == 48 * 16 * 3
    assert Counter(probe.groups) == dict.fromkeys(KINDS, 48 * 3)
    assert set(Counter(probe.clusters).values()) == {48}
    assert len(set(probe.ids)) == len(probe)
    assert probe.ids[0].endswith("~gaussian_noise~1")
    first = [np.asarray(i) for i, _ in zip(probe.images(), range(60), strict=False)]
    again = [np.asarray(i) for i, _ in zip(probe.images(), range(60), strict=False)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_draws_deal_pairs_out_evenly_whatever_the_order():
    settings = replace(DECLARED, samples=160, corruption=CorruptionSettings(("*",), (1, 5), 2))
    dealt = open_declared(settings, base_dir=FIXTURES)
    pairs = Counter(tuple(name.split("~")[1:]) for name in dealt.ids)
    assert len(dealt) == 320
    assert set(pairs.values()) == {10}
    assert set(Counter(dealt.clusters).values()) == {2}


def test_an_image_is_corrupted_alike_alone_and_among_others(probe):
    few = open_declared(
        replace(DECLARED, corruption=CorruptionSettings(("snow",), (3,))), base_dir=FIXTURES
    )
    alone = dict(zip(few.ids, few.images(), strict=True))
    for name, shown in zip(probe.ids, probe.images(), strict=True):
        if name in alone:
            assert np.array_equal(np.asarray(shown), np.asarray(alone.pop(name)))
    assert not alone


def test_originals_are_found_in_the_calibration_split(probe):
    original = open_probe(
        name="leak", role="calibration", source="webdataset:data/shapes", split="test",
        base_dir=FIXTURES,
    )  # fmt: skip
    with pytest.raises(ProbeError, match="shares"):
        check_disjoint(original, probe)


def test_what_is_corrupted_how_is_part_of_the_fingerprint(probe):
    other = replace(DECLARED, corruption=CorruptionSettings(("*",), (1, 3, 4)))
    assert open_declared(other, base_dir=FIXTURES).fingerprint != probe.fingerprint
    assert open_declared(DECLARED, base_dir=FIXTURES).fingerprint == probe.fingerprint


def test_names_are_matched_and_unknown_ones_refused(probe):
    assert kinds_matching(("*_noise",)) == ("gaussian_noise", "shot_noise", "impulse_noise")
    with pytest.raises(ProbeError, match=r"no corruption 'snwo'[\s\S]*did you mean 'snow'"):
        kinds_matching(("snwo",))
    with pytest.raises(ProbeError, match="both corruptions and a group"):
        corrupted(probe, CorruptionSettings(("fog",)))


def test_occlusion_covers_the_promised_share():
    white = Image.fromarray(np.full((50, 50, 3), 255, np.uint8))
    for severity, side in zip((1, 2, 3, 4, 5), (10, 15, 20, 25, 30), strict=True):
        covered = np.asarray(corrupt(white, "occlusion", severity, seed=severity)) == 127
        assert covered.all(axis=2).sum() == side * side
