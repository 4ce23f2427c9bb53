"""The matched-noise control: noise of rounding's size that belongs to the sample."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from clipq.errors import QuantizerError
from clipq.quant import quantize
from clipq.quant.drawn_noise import gaussian, sample_keys
from clipq.testing import SmallInputs, check_quantizer, small_clip

DRAWS = (64, 4000)


@pytest.fixture(scope="module")
def keys():
    return sample_keys(torch.rand(DRAWS[0], 3, 16, 16, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def drawn(keys):
    return gaussian(keys, "fc", (DRAWS[1],)).double()


def test_numbers_are_standard_gaussian(drawn):
    numbers = drawn.flatten().numpy()
    count = len(numbers)
    assert abs(numbers.mean()) < 4 / math.sqrt(count)
    assert abs(numbers.var() - 1) < 4 * math.sqrt(2 / count)
    assert abs((numbers**4).mean() - 3) < 4 * math.sqrt(96 / count)
    assert stats.kstest(numbers, "norm").pvalue > 1e-3
    beyond = (abs(numbers) > 4).mean()
    assert 0.5 * 6.33e-5 < beyond < 2 * 6.33e-5


def test_samples_layers_and_places_are_independent(keys, drawn):
    def largest(correlations):  # of so many that are nothing but chance
        return abs(correlations).max() * math.sqrt(DRAWS[1])

    between = torch.corrcoef(drawn)
    between.fill_diagonal_(0)
    assert largest(between) < 5
    other = gaussian(keys, "proj", (DRAWS[1],)).double()
    assert largest((drawn * other).mean(1)) < 5
    assert largest((drawn.square() - 1).mul(other.square() - 1).mean(1) / 2) < 6
    for lag in (1, 2, 3, DRAWS[1] // 2):  # halves are the sines and cosines of the same words
        assert largest((drawn[:, lag:] * drawn[:, :-lag]).mean(1)) < 5 * math.sqrt(2)


def test_a_pixel_or_a_token_more_is_another_sample():
    pixels = torch.rand(1, 3, 8, 8).repeat(193, 1, 1, 1)
    for place in range(192):
        pixels[place + 1].view(-1)[place] += 1e-6
    tokens = torch.arange(6).reshape(3, 2)
    swapped = torch.stack([pixels[0], pixels[0].flip(0)])
    for given in (pixels, tokens, swapped):
        assert len({tuple(row) for row in sample_keys(given).tolist()}) == len(given)
    assert (sample_keys(torch.tensor([[0.0]])) == sample_keys(torch.tensor([[-0.0]]))).all()


@pytest.mark.parametrize("name", ["vit", "modified-resnet", "siglip", "swin-v2", "coca"])
def test_features_depend_on_the_sample_and_not_on_its_batch(name):
    inputs = SmallInputs(count=7)
    model = small_clip(name)
    noisy = quantize(model, "noise:w4a4", inputs.calibration).model
    for encode, plain, batches in (
        (noisy.encode_image, model.encode_image, inputs.calibration.images()),
        (noisy.encode_text, model.encode_text, inputs.calibration.texts()),
    ):
        batch = torch.cat(list(batches))
        with torch.no_grad():
            whole, back = encode(batch), encode(batch.flip(0)).flip(0)
            single = torch.cat([encode(one[None]) for one in batch])
            moved = (whole - plain(batch)).norm() / whole.norm()
        torch.testing.assert_close(back, whole, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(single, whole, rtol=1e-4, atol=1e-5)
        assert moved > 1e-3


def test_noise_has_the_size_of_the_error_that_rounding_makes():
    """Of the first layer, whose input is the same in both: output by output."""
    inputs = SmallInputs(count=64)
    model = small_clip()
    outputs = {}
    for text in ("noise:w4a4@vision", "rtn:w4a4@vision"):
        made = quantize(model, text, inputs.calibration).model
        seen = outputs.setdefault(text, [])
        made.visual.conv1.register_forward_hook(lambda *given, seen=seen: seen.append(given[2]))
        with torch.no_grad():
            for batch in inputs.calibration.images():
                made.encode_image(batch)
    exact = [model.visual.conv1(batch) for batch in inputs.calibration.images()]
    noise, error = (
        (torch.cat(outputs[text]) - torch.cat(exact)).square().mean((0, 2, 3)).sqrt()
        for text in outputs
    )
    count = 64 * torch.cat(exact)[0, 0].numel()
    assert ((noise / error - 1).abs() < 5 / math.sqrt(2 * count)).all()


def test_it_says_that_it_quantizes_nothing_and_why():
    made = quantize(small_clip(), "noise:w8a8", SmallInputs().calibration)
    assert made.coverage.share == 0.0
    assert "control" in made.exceptions["float"]
    assert made.coverage.uncovered


def test_another_seed_is_other_noise_of_the_same_size():
    inputs = SmallInputs()
    batch = next(inputs.calibration.images())
    features = [
        quantize(small_clip(), f"noise:w4a4,seed={seed}", inputs.calibration).model
        for seed in (0, 0, 1)
    ]
    with torch.no_grad():
        same, again, other = (model.encode_image(batch) for model in features)
    assert torch.equal(same, again)
    assert not torch.allclose(same, other, rtol=1e-3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("noise", "format"),
        ("noise:w8a8k8", "attention"),
        ("noise:w8a8,seed=-1", "seed"),
        ("noise:w8a8,bias=correct", "bias"),
    ],
)
def test_what_noise_cannot_stand_for_is_refused(text, words):
    with pytest.raises(QuantizerError, match=words):
        quantize(small_clip(), text, SmallInputs().calibration)


@pytest.mark.parametrize("check", check_quantizer("noise:w4a8"), ids=str)
def test_it_passes_the_conformance_suite(check):
    check()
