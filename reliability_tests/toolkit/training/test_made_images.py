"""Images that objectives make of a batch: what they keep, and what they destroy."""

from __future__ import annotations

import pytest
import torch

from clipq.data.corruption import KINDS
from clipq.training import changed_images
from clipq.training.changed_images import changed
from clipq.training.made_outliers import outliers


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(6)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(9, 3, 18, 16, generator=torch.Generator().manual_seed(3))


def test_changed_images_stay_in_the_range_of_their_own_image_and_differ(images):
    found = changed(images, _generator())
    low, high = (getattr(images, end)(dim=(1, 2, 3)) for end in ("amin", "amax"))
    assert (found.amin(dim=(1, 2, 3)) >= low - 1e-5).all()
    assert (found.amax(dim=(1, 2, 3)) <= high + 1e-5).all()
    assert (found != images).flatten(1).any(dim=1).sum() >= 6  # chance may choose no operation
    assert torch.equal(found, changed(images, _generator()))


def test_no_operation_is_a_kind_that_robustness_is_measured_on():
    names = {operation.__name__.strip("_") for operation in changed_images._OPERATIONS}
    assert names == {"moved", "fewer_tones", "inverted_highlights", "equalised"}
    assert not names & set(KINDS)


@pytest.mark.parametrize("operation", changed_images._OPERATIONS, ids=lambda o: o.__name__)
def test_an_operation_leaves_a_plain_image_as_it_is(operation):
    plain = torch.full((2, 3, 8, 8), 0.7)
    torch.testing.assert_close(operation(plain, _generator()), plain)


def test_outliers_keep_statistics_and_lose_the_arrangement(images):
    found = outliers(images, _generator())
    assert found.shape == images.shape
    patches, phases, halves = found.tensor_split(3)
    ordered = [each.flatten(1).sort().values for each in (patches, images[:3])]
    assert torch.equal(*ordered)  # the same pixels
    assert (patches != images[:3]).flatten(1).any(dim=1).all()
    wide = images / 100
    wide[5, 0, 0, :2] = torch.tensor([9.0, -9.0])  # nothing of the others is clamped
    inner = (slice(2), slice(None), slice(1, 9), slice(1, 8))  # elsewhere phases come in pairs
    before, after = (
        torch.fft.rfft2(each) for each in (wide[3:6], outliers(wide, _generator())[3:6])
    )
    torch.testing.assert_close(after[inner].abs(), before[inner].abs(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(after[:2, :, 0, 0], before[:2, :, 0, 0], rtol=1e-3, atol=1e-4)
    for made, first, second in zip(halves, images[6:], images[6:].roll(1, dims=0), strict=True):
        kept = [(made == each).all(dim=0) for each in (first, second)]
        assert kept[0].sum() == kept[1].sum() == made[0].numel() // 2
    assert not torch.equal(phases, images[3:6])


@pytest.mark.parametrize("size", [(2, 2), (3, 50), (31, 7)])
def test_images_of_any_size_and_fewer_than_kinds_are_taken(size):
    few = torch.rand(2, 3, *size, generator=_generator())
    for make in (changed, outliers):
        assert make(few[:0], _generator()).shape == (0, 3, *size)
        assert torch.isfinite(make(few, _generator())).all()
        assert make(few, _generator()).shape == few.shape
