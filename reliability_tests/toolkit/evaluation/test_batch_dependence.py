"""Features of a sample are its own, whatever is encoded beside it; who breaks that is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import clipq
from clipq.cases import Cell
from clipq.errors import QuantizerError
from clipq.evaluation import batch_check
from clipq.evaluation.batch_dependence import (
    ARRANGEMENTS,
    arrange,
    batch_differences,
    check_batches,
    noise_beside,
)
from clipq.evaluation.evaluator import Evaluator
from clipq.quant.explicit import make_explicit
from clipq.quant.surgery import plain_layers
from clipq.settings import load_settings

INPUTS = np.random.default_rng(0).standard_normal((256, 64))
WEIGHT = np.random.default_rng(1).standard_normal((64, 16)) / 8
ROWS = np.linspace(0, 255, 32).round().astype(int)


def rounded(values: np.ndarray, *, over: int | None = None, bits: int = 8) -> np.ndarray:
    """Values on a symmetric grid whose range is taken along an axis, or over all of them."""
    top = 2 ** (bits - 1) - 1
    scale = np.abs(values).max(axis=over, keepdims=True) / top
    return np.round(values / scale) * scale


def fp32(inputs: np.ndarray) -> np.ndarray:
    return inputs @ WEIGHT


def per_sample(inputs: np.ndarray) -> np.ndarray:
    return fp32(rounded(inputs, over=1))


def per_batch(inputs: np.ndarray) -> np.ndarray:
    return fp32(rounded(inputs))


def wrong_in_small_batches(inputs: np.ndarray) -> np.ndarray:
    return per_sample(inputs) * (0.97 if len(inputs) <= 8 else 1.0)


def wrong_between_2_and_8(inputs: np.ndarray) -> np.ndarray:
    return per_sample(inputs) * (0.97 if 2 <= len(inputs) <= 8 else 1.0)


def partial_batch_reversed(inputs: np.ndarray) -> np.ndarray:
    found = per_sample(inputs)
    return found if len(inputs) % 256 == 0 else found[::-1]


def last_row_lost(inputs: np.ndarray) -> np.ndarray:
    found = per_sample(inputs)
    found[-1] = found[0]
    return found


def padding_kept(inputs: np.ndarray) -> np.ndarray:
    return np.concatenate([per_sample(inputs), np.zeros((-len(inputs) % 4, 16))])


def not_a_number_alone(inputs: np.ndarray) -> np.ndarray:
    return per_sample(inputs) * (np.nan if len(inputs) == 1 else 1.0)


def centred(inputs: np.ndarray) -> np.ndarray:
    found = per_sample(inputs)
    return found - 0.1 * found.mean(axis=0)


def arranged(model: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    rows = INPUTS[ROWS]
    disturbed = rows * (1 + 3e-7 * np.random.default_rng(2).standard_normal(rows.shape))
    return arrange(
        lambda positions: model(rows[positions]),
        model(INPUTS)[ROWS],
        disturbed=lambda positions: model(disturbed[positions]),
    )


@pytest.mark.parametrize(
    ("model", "how"),
    [
        (per_batch, "one by one"),
        (wrong_in_small_batches, "one by one"),
        (wrong_between_2_and_8, "small batches"),
        (partial_batch_reversed, "another order"),
        (last_row_lost, "one by one"),
        (padding_kept, "one by one"),
        (not_a_number_alone, "one by one"),
        (centred, "one by one"),
    ],
)
def test_who_looks_at_other_samples_is_refused(model, how):
    with pytest.raises(QuantizerError, match=f"depend on the batch: .*{how}.* 32 of them move"):
        check_batches("mine:w8a8", "images", arranged(model), arranged(fp32))


def test_who_treats_each_sample_by_itself_is_not():
    check_batches("mine:w8a8", "images", arranged(per_sample), arranged(fp32))
    check_batches("mine:w8", "images", arranged(fp32), arranged(fp32))


def test_steps_that_float_noise_takes_are_no_dependence():
    """The order of sums may take a value over the edge between two codes, in this batch or that."""
    found, plain = arranged(per_sample), arranged(fp32)
    step = found["together"] * 2e-3
    moved = {"alone": found["alone"] + step, "disturbed": found["disturbed"] + step}
    check_batches("mine:w8a8", "images", found | moved, plain)
    with pytest.raises(QuantizerError, match="one by one"):
        check_batches("mine:w8a8", "images", found | {"alone": moved["alone"]}, plain)


def test_differences_are_relative_to_each_sample():
    whole = np.diag([1.0, 10.0, 100.0, 1000.0])
    other = dict.fromkeys(("together", *ARRANGEMENTS), whole)
    found = batch_differences(other | {"alone": whole * 1.01}, other)
    assert [d.moved for d in found] == pytest.approx([0.01, 0.0, 0.0])
    assert noise_beside(other | {"alone": whole * 1.01}) == pytest.approx(0.01)


def test_what_is_not_a_number_in_every_batch_is_another_matter():
    lost = dict.fromkeys(("together", *ARRANGEMENTS), np.full((4, 2), np.nan))
    assert {d.moved for d in batch_differences(lost, lost)} == {0.0}


# -- in a gate ------------------------------------------------------------------------------------


def test_a_candidate_that_depends_on_the_batch_is_an_error_in_every_cell(
    project, tmp_path, monkeypatch
):
    whole = load_settings(project.settings())
    few = tuple(replace(probe, samples=256, group="") for probe in whole.probes)
    settings = replace(whole, probes=few, cache=tmp_path / "cache")

    @clipq.quantizers.register("of-batches")
    def of_batches(model, spec, calibration):
        """Activations of the vision tower on a grid from the batch's extremes, as engines do."""
        make_explicit(model, "vision")

        def rounded_input(_module, inputs):
            low, high = inputs[0].min().clamp(max=0), inputs[0].max().clamp(min=1e-9)
            scale = (high - low) / 255
            zero = (-low / scale).round()
            codes = ((inputs[0] / scale).round() + zero).clamp(0, 255)
            return ((codes - zero) * scale, *inputs[1:])

        for layer in plain_layers(model, "vision").values():
            layer.register_forward_pre_hook(rounded_input)
        return model

    try:
        for again in (False, True):
            evaluator = Evaluator(settings)
            evaluator.evaluate(Cell("vit-clean", "rtn:w8a8d", "digits"))
            for probe in ("digits", "id"):
                with pytest.raises(QuantizerError, match="features of images depend on the batch"):
                    evaluator.evaluate(Cell("vit-clean", "of-batches", probe))
            if not again:  # what is kept answers the second time
                monkeypatch.setattr(batch_check, "arrange", None)
    finally:
        clipq.quantizers.remove("of-batches")
    tables = list((settings.cache / "predictions").rglob("*.safetensors"))
    assert len(tables) == 1  # rtn:w8a8d's; FP32's are made of its features alone
    assert torch.get_num_threads() == settings.threads
