"""Each method against an independent implementation, and against rounding to nearest."""

from __future__ import annotations

import copy
import logging
from functools import partial

import numpy as np
import papers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchao.prototype.awq.core import AWQObserver
from torchao.quantization import Int8WeightOnlyConfig

from clipq.errors import QuantizerError
from clipq.quant import Calibration, QuantizerSpec, quantize
from clipq.quant.allocation import allocate_bits
from clipq.quant.awq import best_clip, best_scale, clip_weight, output_error
from clipq.quant.explicit import make_explicit
from clipq.quant.formats import Format
from clipq.quant.gptq import gptq_round
from clipq.quant.grids import choose_grid
from clipq.quant.observe import InputStatistics, input_rows, observe_statistics
from clipq.quant.rabitq import rabitq_codes, rabitq_round
from clipq.quant.surgery import plain_layers
from clipq.quant.weights import quantize_weight, split_weight

W4, W4G16, W3, W8 = (Format.parse(text).weight for text in ("w4", "w4g16", "w3", "w8"))


def layer(out: int, k: int, *, seed: int = 0, rows: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight and correlated input rows with a few large channels."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, k, generator=generator) / k**0.5
    mixing = torch.randn(k, k, generator=generator) / k**0.5 + 0.5 * torch.eye(k)
    inputs = torch.randn(rows, k, generator=generator) @ mixing
    inputs[:, :: max(1, k // 4)] *= 8
    return weight, inputs


def gram_of(inputs: torch.Tensor) -> torch.Tensor:
    return 2.0 / len(inputs) * inputs.T @ inputs


def nearest(weight, number_format):
    return quantize_weight(weight, number_format, name="w")


def relative_error(method: str, model: nn.Module, sample, original) -> float:
    found = sample.encode(quantize(model, QuantizerSpec.parse(method), sample.calibration).model)
    return sum(float((f - o).norm() / o.norm()) for f, o in zip(found, original, strict=True))


class TestGptq:
    @pytest.mark.parametrize(
        "number_format",
        [
            W4,
            W4G16,
            Format.parse("w3z").weight,
            Format.parse("w4g24").weight,
            Format.parse("wnf4g32").weight,
            Format.parse("w4t").weight,
        ],
    )
    @pytest.mark.parametrize("k", [16, 96, 200])
    def test_is_the_slow_algorithm(self, number_format, k):
        weight, inputs = layer(12, k)
        fast = gptq_round(weight, gram_of(inputs), number_format)
        slow = papers.gptq(weight, gram_of(inputs), number_format)
        # A value that lies halfway between two points may fall either way in float32, and what
        # follows in its row with it: nearly all rows agree, and the objective does.
        assert (fast - slow).abs().amax(1).lt(1e-5).float().mean() > 0.7
        gram = gram_of(inputs)
        ours, theirs = (output_error(x - weight, gram) for x in (fast, slow))
        assert ours == pytest.approx(theirs, rel=0.05)

    def test_ordering_is_a_permutation_of_the_problem(self):
        weight, inputs = layer(12, 64)
        order = gram_of(inputs).diagonal().argsort(descending=True)
        permuted = papers.gptq(weight[:, order], gram_of(inputs[:, order]), W4)
        found = gptq_round(weight, gram_of(inputs), W4, by_activation=True)
        agree = (found[:, order] - permuted).abs().amax(1).lt(1e-5).float().mean()
        assert agree > 0.7

    @pytest.mark.parametrize("number_format", [W4, W3, W4G16, Format.parse("wmxfp4").weight])
    @pytest.mark.parametrize("by_activation", [False, True])
    def test_beats_rounding_to_nearest_on_its_objective(self, number_format, by_activation):
        ratios = []
        for seed in range(10):
            weight, inputs = layer(16, 64, seed=seed)
            gram = gram_of(inputs)
            found = gptq_round(weight, gram, number_format, by_activation=by_activation)
            plain = nearest(weight, number_format)
            ratios.append(output_error(found - weight, gram) / output_error(plain - weight, gram))
        assert np.median(ratios) < 0.8
        assert max(ratios) < 1.05

    def test_every_value_is_on_the_weight_s_grid(self):
        weight, inputs = layer(8, 64)
        found = gptq_round(weight, gram_of(inputs), W4)
        scale = weight.abs().amax(1, keepdim=True) / 7
        codes = found / scale
        assert torch.allclose(codes, codes.round(), atol=1e-4)
        assert codes.abs().max() <= 8.001

    def test_independent_inputs_round_to_nearest(self):
        weight, _ = layer(8, 32)
        found = gptq_round(weight, torch.eye(32), W4)
        assert torch.allclose(found, nearest(weight, W4), atol=1e-6)

    def test_dead_inputs_are_zeroed_and_do_no_harm(self):
        weight, inputs = layer(8, 32)
        inputs[:, 5] = 0
        found = gptq_round(weight, gram_of(inputs), W4)
        assert found.isfinite().all()
        assert (found[:, 5] == 0).all()

    def test_one_sample_and_repeated_ones_are_enough(self):
        weight, inputs = layer(8, 32, rows=1)
        assert gptq_round(weight, gram_of(inputs), W4).isfinite().all()

    def test_nan_is_refused(self):
        weight, inputs = layer(8, 32)
        inputs[0, 0] = float("nan")
        with pytest.raises(QuantizerError, match="not positive definite"):
            gptq_round(weight, gram_of(inputs), W4)

    def test_helps_on_a_model(self, vit, sample):
        original = sample.encode(vit)
        plain = relative_error("rtn:w4", vit, sample, original)
        assert relative_error("gptq:w4", vit, sample, original) < 0.8 * plain
        assert relative_error("gptq:w4g16,order=activation", vit, sample, original) < 0.8 * plain


class TestStatistics:
    @pytest.mark.parametrize(
        "module",
        [
            nn.Linear(6, 5),
            nn.Conv2d(4, 6, 3, stride=2, padding=1),
            nn.Conv2d(4, 8, 3, groups=4, padding="same", dilation=2),
            nn.Conv2d(4, 6, (1, 3), padding=(0, 1), padding_mode="reflect"),
        ],
    )
    def test_rows_are_what_the_weight_multiplies(self, module):
        values = torch.randn(2, 5, 6) if isinstance(module, nn.Linear) else torch.randn(2, 4, 9, 7)
        rows = torch.cat(list(input_rows(module, values)), dim=1)
        groups = getattr(module, "groups", 1)
        weight = module.weight.flatten(1).reshape(groups, -1, rows.shape[-1])
        products = (rows @ weight.transpose(1, 2)).transpose(0, 1).flatten(1)
        output = module(values) if isinstance(module, nn.Linear) else module(values).movedim(1, -1)
        expected = output.reshape(-1, output.shape[-1]) - module.bias
        assert torch.allclose(products, expected, atol=1e-5)

    def test_layers_that_read_one_tensor_share_one_matrix(self, vit, sample):
        model = copy.deepcopy(vit)
        make_explicit(model, "vision")
        layers = plain_layers(model, "vision")
        seen = observe_statistics(model, "vision", sample.calibration, dict(layers), gram=True)
        prefix = "visual.transformer.resblocks.0.attn."
        q, k, v, out = (seen[prefix + x] for x in ("q_proj", "k_proj", "v_proj", "out_proj"))
        assert q is k is v
        assert q is not out
        assert q.rows == 4 * 17
        assert torch.allclose(q.square[0], q.gram[0].diagonal(), rtol=1e-4)


class TestAwq:
    @staticmethod
    def statistics(inputs):
        found = InputStatistics()
        found.see(nn.Linear(inputs.shape[1], 1), inputs, gram=True)
        return found

    @pytest.mark.parametrize("seed", range(4))
    def test_the_scale_is_torchao_s(self, seed):
        logging.disable(logging.CRITICAL)
        weight, inputs = layer(24, 32, seed=seed)
        observer = AWQObserver(weight, None, Int8WeightOnlyConfig(version=2))
        observer(inputs, inputs)
        theirs = observer.calculate_qparams()
        ours = best_scale([weight], [W8], self.statistics(inputs))
        logging.disable(logging.NOTSET)

        # Both search 20 powers; neighbours may tie to the last digit of their losses.
        def power(scale):
            size = inputs.abs().mean(0).log()
            return float(
                (scale.log() - scale.log().mean())
                @ (size - size.mean())
                / (size - size.mean()).square().sum()
            )

        assert power(ours) == pytest.approx(power(theirs), abs=0.11)

    def test_the_scale_is_the_best_of_all_it_may_be(self):
        weight, inputs = layer(24, 32)
        found = best_scale([weight], [W4], self.statistics(inputs))
        losses = papers.awq_losses(weight, inputs, W4)
        mine = papers.awq_loss(weight, inputs, W4, found)
        assert mine == pytest.approx(min(losses), rel=1e-3)
        assert mine < losses[0]

    @pytest.mark.parametrize("number_format", [W3, W4G16])
    def test_clipping_never_raises_a_row_s_own_error(self, number_format):
        weight, inputs = layer(16, 48)
        gram = gram_of(inputs)
        clipped = clip_weight(weight, best_clip(weight, number_format, gram), number_format)
        size = split_weight(weight, number_format).shape[-1]

        def errors(rounded):
            parts = (rounded - weight).reshape(16, -1, size)
            grams = torch.stack([gram[i : i + size, i : i + size] for i in range(0, 48, size)])
            return torch.einsum("ogi,gij,ogj->og", parts, grams, parts)

        plain, better = (errors(nearest(w, number_format)) for w in (weight, clipped))
        assert (better <= plain * (1 + 1e-5)).all()
        assert better.sum() < plain.sum()

    def test_helps_on_a_model(self, vit, sample):
        original = sample.encode(vit)
        plain = relative_error("rtn:w3", vit, sample, original)
        assert relative_error("awq:w3", vit, sample, original) < 0.9 * plain


class TestRabitq:
    @given(st.integers(0, 1000))
    @settings(max_examples=20)
    def test_codes_are_the_best_of_all(self, seed):
        rows = torch.randn(1, 6, generator=torch.Generator().manual_seed(seed))
        best = papers.rabitq_cosine(rows[0], 2)
        mine = rabitq_codes(rows, bits=2)[0] - 1.5
        cosine = mine @ rows[0] / mine.norm() / rows.norm()
        assert cosine >= best - 2e-3

    @pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
    def test_the_estimate_of_an_inner_product_is_exact_along_the_vector(self, bits):
        rows = torch.randn(20, 64, generator=torch.Generator().manual_seed(1))
        rounded = rabitq_round(rows, bits=bits)
        assert torch.allclose((rows * rounded).sum(1), rows.square().sum(1), rtol=1e-4)

    @pytest.mark.parametrize("bits", [2, 3, 4])
    def test_has_a_smaller_error_than_rounding_to_nearest(self, bits):
        rows = torch.randn(64, 256, generator=torch.Generator().manual_seed(2))
        error = (rabitq_round(rows, bits=bits) - rows).norm()
        assert error < (nearest(rows, Format.parse(f"w{bits}").weight) - rows).norm()

    def test_more_bits_are_better_and_zeros_stay(self):
        rows = torch.randn(8, 64, generator=torch.Generator().manual_seed(3))
        errors = [float((rabitq_round(rows, bits=b) - rows).norm()) for b in range(1, 9)]
        assert errors == sorted(errors, reverse=True)
        assert torch.equal(rabitq_round(torch.zeros(2, 8), bits=3), torch.zeros(2, 8))


class TestAllocation:
    @given(
        st.lists(st.tuples(st.floats(0.01, 100), st.integers(1, 6)), min_size=1, max_size=4),
        st.floats(1, 4),
    )
    def test_is_the_best_of_all_allocations(self, layers, average):
        costs, sizes = (list(x) for x in zip(*layers, strict=True))
        found = allocate_bits(costs, sizes, average=average, choices=range(1, 5))
        budget = average * sum(sizes)
        cost = sum(c * 2.0**-b for c, b in zip(costs, found, strict=True))
        assert sum(b * m for b, m in zip(found, sizes, strict=True)) <= budget + 1e-6
        assert cost == pytest.approx(papers.allocation_cost(costs, sizes, average, range(1, 5)))

    def test_a_budget_that_is_no_multiple_is_never_exceeded(self):
        sizes = [768 * 768, 3 * 32 * 32 * 768, 512 * 768 + 1, 3072 * 768]
        bits = allocate_bits([1.0, 5.0, 0.1, 2.0], sizes, average=3.3)
        assert sum(b * m for b, m in zip(bits, sizes, strict=True)) <= 3.3 * sum(sizes)

    def test_what_matters_more_gets_more(self):
        bits = allocate_bits([1.0, 4.0, 16.0], [10, 10, 10], average=4)
        assert bits == [2, 4, 6]

    @pytest.mark.parametrize("average", [0.5, 9, float("nan")])
    def test_impossible_averages_are_refused(self, average):
        with pytest.raises(QuantizerError, match="an average of"):
            allocate_bits([1.0], [10], average=average)


class TestRaana:
    def test_more_bits_are_better(self, vit, sample):
        original = sample.encode(vit)
        errors = [relative_error(f"raana,bits={b}", vit, sample, original) for b in (2, 3.3, 5, 8)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.05

    def test_needs_bits_and_no_format(self, vit, sample):
        for text, complaint in (
            ("raana", "does not say how many bits"),
            ("raana:w4", "gives raana a number format"),
            ("raana,bits=9", "no number from 1 to 8"),
            ("raana,bits=x", "no number from 1 to 8"),
            ("raana,bits=3,center=on", "has no option 'center'"),
        ):
            with pytest.raises(QuantizerError, match=complaint):
                quantize(vit, QuantizerSpec.parse(text), sample.calibration)

    def test_works_on_every_architecture(self, any_model, sample):
        found = quantize(any_model, QuantizerSpec.parse("raana,bits=6"), sample.calibration)
        assert found.coverage.share > 0.99
        original = sample.encode(any_model)
        for mine, theirs in zip(sample.encode(found.model), original, strict=True):
            assert (mine - theirs).norm() < 0.5 * theirs.norm()


METHODS = ["smoothquant:w8a8", "gptq:w4", "awq:w4g16", "rtn:we4m3ae4m3d", "rtn:wmxfp8amxfp8"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_every_architecture(any_model, sample, method):
    found = quantize(any_model, QuantizerSpec.parse(method), sample.calibration)
    assert found.coverage.share > 0.99
    for mine, theirs in zip(sample.encode(found.model), sample.encode(any_model), strict=True):
        assert mine.isfinite().all()
        assert (mine - theirs).norm() < 0.4 * theirs.norm()


def test_bias_correction_removes_the_mean_error_of_a_layer(vit, sample):
    def keep(seen, _, __, output):
        seen.append(output)

    texts = sample.calibration.texts
    found = quantize(
        vit,
        QuantizerSpec.parse("rtn:w3,bias=correct@vision"),
        Calibration(sample.calibration.images, texts),
    ).model
    plain = quantize(vit, QuantizerSpec.parse("rtn:w3@vision"), sample.calibration).model
    # The first layer sees the same input in all three: there the correction is exact.
    means = []
    for model in (vit, plain, found):
        seen = []
        hook = model.visual.conv1.register_forward_hook(partial(keep, seen))
        sample.encode(model)
        hook.remove()
        means.append(torch.cat(seen).mean(dim=(0, 2, 3)))
    assert (means[2] - means[0]).abs().max() < 1e-5
    assert (means[1] - means[0]).abs().max() > 1e-3


def test_grid_choice_of_weights_by_mse_is_never_worse():
    weight, _ = layer(16, 64)
    for text in ("w3", "w4z", "w2", "wnf4", "we4m3"):
        number_format = Format.parse(text).weight
        plain, better = (
            (quantize_weight(weight, number_format, name="w", chosen=c) - weight).square().sum(1)
            for c in ("minmax", "mse")
        )
        assert (better <= plain * (1 + 1e-6)).all()
    assert choose_grid(weight.amin(), weight.amax(), W3) is not None
