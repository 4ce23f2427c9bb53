"""How near an artifact's features are to FP32's, each tower by itself; and time in turn."""

import math

import numpy as np
import pytest
import torch

from clipq.evaluation.artifact_parity import compare, parity_finding
from clipq.evaluation.artifact_speed import Speed, side_by_side

RNG = np.random.default_rng(0)
FP32 = {"image": RNG.normal(size=(64, 16)), "text": RNG.normal(size=(12, 16))}


def moved(tower, size):
    return FP32[tower] + size * np.random.default_rng(1).normal(size=FP32[tower].shape)


@pytest.mark.parametrize("size", [0.0, 0.1, 1.0])
def test_numbers_are_those_of_another_implementation(size):
    given = {"image": moved("image", size), "text": moved("text", size)}
    image, text, both = compare(given, FP32)
    ours = {name: torch.from_numpy(features) for name, features in given.items()}
    fp32 = {name: torch.from_numpy(features) for name, features in FP32.items()}

    def classes(images, texts):
        pairs = images.unsqueeze(1), texts.unsqueeze(0)
        return torch.nn.functional.cosine_similarity(*pairs, dim=-1).max(dim=1).indices

    def flips(images, texts):
        return (classes(images, texts) != classes(*fp32.values())).double().mean().item()

    for found in (image, text):
        of = found.tower
        cosines = torch.nn.functional.cosine_similarity(ours[of], fp32[of])
        assert found.cosine_mean == pytest.approx(cosines.mean().item())
        assert found.cosine_min == pytest.approx(cosines.min().item())
        assert found.difference == (ours[of] - fp32[of]).abs().max().item()
    assert image.flips == flips(ours["image"], fp32["text"])
    assert text.flips == flips(fp32["image"], ours["text"])
    assert both.flips == flips(ours["image"], ours["text"])
    assert both.cosine_mean == min(image.cosine_mean, text.cosine_mean)


@pytest.mark.parametrize(
    ("features", "verdict"),
    [
        (FP32["image"], "sound"),
        (3.0 * FP32["image"], "sound"),  # lengths are no matter of parity
        (moved("image", 0.12), "weak"),
        (FP32["image"][::-1], "broken"),
        (np.full((64, 16), np.nan), "broken"),
        (np.full((64, 16), np.inf), "broken"),
        (np.zeros((64, 16)), "broken"),
        (np.where(np.arange(64)[:, None] == 3, np.nan, FP32["image"]), "broken"),
        (FP32["image"][:, :8], "broken"),
    ],
)
def test_only_features_of_the_same_model_are_sound(features, verdict):
    (found,) = compare({"image": features}, FP32)
    assert found.verdict == verdict
    assert all(value is None or value == value for value in found.to_plain().values())
    finding = parity_finding(found)
    assert finding.wrong == (verdict == "broken")
    assert finding.fix


def test_lengths_are_not_compared_where_they_are_said_to_be_one():
    unit = FP32["image"] / np.linalg.norm(FP32["image"], axis=1, keepdims=True)
    assert compare({"image": unit}, FP32, normalised=True)[0].difference < 1e-12
    assert compare({"image": unit}, FP32)[0].difference > 1.0


def test_calls_are_made_in_turn_and_the_first_of_each_is_left_out():
    calls, clock = [], iter(range(100))
    artifact, fp32 = side_by_side(
        lambda: calls.append("artifact") or float(len(calls)),
        lambda: calls.append("fp32") or float(len(calls)),
        seconds=4.0,
        clock=lambda: float(next(clock)),
    )
    assert calls == ["artifact", "fp32"] * (1 + len(artifact))
    assert artifact == tuple(2.0 * at + 1.0 for at in range(1, len(artifact) + 1))
    assert len(artifact) == 5  # two are made whatever they take, then until the time is over
    assert fp32[0] == artifact[0] + 1.0


def test_what_is_said_of_time_is_of_one_round():
    speed = Speed("image", 10, 1, (4.0, 1.0, 2.0, 9.0), (2.0, 2.0, 2.0, 3.0))
    assert speed.ratio == speed.milliseconds / speed.fp32_milliseconds == 1.0
    assert speed.spread == (0.5, 3.0)
    assert math.isclose(speed.milliseconds, 200.0)
