"""Smoothing and rotation change how a model rounds, never what it computes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchao.prototype.smoothquant.core import SmoothQuantObserver

from clipq.errors import QuantizerError
from clipq.quant.explicit import make_explicit
from clipq.quant.transforms.hadamard import HadamardRotation, hadamard_matrix
from clipq.quant.transforms.rotation import rotate
from clipq.quant.transforms.smoothing import (
    scale_group,
    scale_values,
    smoothing_scale,
    weight_absmax,
)
from clipq.quant.transforms.structure import execution_order, norm_groups, value_pairs

# Hierarchical towers have no one residual stream; Swin v2 normalises behind its layers.
NOT_ROTATED = {"modified-resnet", "swin-v2", "convnext", "fastvit"}
GROUPS = {"vit": 8, "swin": 8, "swin-v2": 4, "convnext": 13, "modified-resnet": 4, "siglip": 9}


def explicit(model: nn.Module, sample) -> tuple[nn.Module, list[str]]:
    model = copy.deepcopy(model)
    make_explicit(model, "both")
    return model, execution_order(model, "both", sample.calibration)


def assert_same(model: nn.Module, original: nn.Module, sample, *, tolerance: float = 1e-5) -> None:
    for mine, theirs in zip(sample.encode(model), sample.encode(original), strict=True):
        assert theirs.abs().max() > 0.01
        assert (mine - theirs).abs().max() <= tolerance


class TestStructure:
    @pytest.mark.parametrize(("name", "count"), sorted(GROUPS.items()))
    def test_norms_with_known_readers(self, fresh, sample, name, count):
        model, order = explicit(fresh(name), sample)
        groups = norm_groups(model, "both", order)
        assert len(groups) == count
        assert all(group.layers for group in groups.values())

    def test_a_norm_behind_its_layers_is_no_group(self, fresh, sample):
        model, order = explicit(fresh("swin-v2"), sample)
        assert not any(n.startswith("visual") for n in norm_groups(model, "both", order))

    def test_a_shared_layer_belongs_to_no_group(self, fresh, sample):
        model = fresh("vit")
        first, second = model.transformer.resblocks
        second.mlp.c_fc = first.mlp.c_fc
        model, order = explicit(model, sample)
        groups = norm_groups(model, "both", order)
        assert not any(
            "transformer.resblocks" in n and "ln_2" in n and "visual" not in n for n in groups
        )

    def test_values_behind_an_inner_norm_are_no_pair(self, fresh, sample):
        model, _ = explicit(fresh("vit-attention-variants"), sample)
        assert not value_pairs(model, "both")


class TestSmoothing:
    def test_any_scale_is_an_identity(self, any_model, sample):
        model, order = explicit(any_model, sample)
        generator = torch.Generator().manual_seed(0)
        for group in norm_groups(model, "both", order).values():
            scale_group(group, torch.randn(group.width, generator=generator).exp())
        for pair in value_pairs(model, "both").values():
            width = pair.output.in_features
            scale_values(pair, torch.randn(width, generator=generator).exp())
        assert_same(model, any_model, sample)

    def test_the_scale_is_torchao_s(self):
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(48, 32, generator=generator)
        rows = torch.randn(100, 32, generator=generator) * torch.logspace(-2, 2, 32)
        observer = SmoothQuantObserver(weight, alpha=0.7)
        observer(rows)
        theirs, *_ = observer.calculate_qparams()
        ours = smoothing_scale(rows.abs().amax(0), weight.abs().amax(0), alpha=0.7)
        assert torch.allclose(ours, theirs, rtol=1e-4)

    def test_the_scale_is_the_paper_s_equation(self):
        activation, weight = torch.tensor([4.0, 0.0, 1e30]), torch.tensor([0.25, 0.5, 0.0])
        found = smoothing_scale(activation, weight, alpha=0.5)
        assert found.tolist() == pytest.approx([4.0, (1e-5 / 0.5) ** 0.5, 1e5], rel=1e-4)

    def test_the_largest_weight_is_taken_over_all_readers(self, vit, sample):
        model, order = explicit(vit, sample)
        group = norm_groups(model, "vision", order)["visual.transformer.resblocks.0.ln_1"]
        assert len(group.layers) == 3
        columns = torch.cat([layer.weight for layer in group.layers.values()]).abs().amax(0)
        assert torch.equal(weight_absmax(group), columns)

    def test_smoothing_evens_out_a_planted_outlier(self, fresh, sample):
        model, order = explicit(fresh("vit"), sample)
        group = norm_groups(model, "vision", order)["visual.transformer.resblocks.0.ln_1"]
        with torch.no_grad():
            group.norm.weight[3] *= 100
        before = group.norm.weight.abs()
        scale_group(group, smoothing_scale(before, weight_absmax(group), alpha=0.5))
        after = group.norm.weight.abs()
        assert after.max() / after.median() < 0.2 * before.max() / before.median()


class TestHadamard:
    @pytest.mark.parametrize("order", [1, 2, 4, 8, 64, 12])
    def test_matrices_are_hadamard(self, order):
        matrix = hadamard_matrix(order)
        assert matrix.abs().eq(1).all()
        assert torch.equal(matrix @ matrix.T, order * torch.eye(order, dtype=torch.float64))

    @pytest.mark.parametrize("order", [2, 16, 128])
    def test_powers_of_two_are_scipy_s(self, order):
        assert np.array_equal(hadamard_matrix(order).numpy(), scipy.linalg.hadamard(order))

    @given(st.integers(1, 300), st.booleans(), st.integers(0, 99))
    def test_rotations_are_orthogonal_and_undone(self, size, overlapping, seed):
        rotation = HadamardRotation(
            size, generator=torch.Generator().manual_seed(seed), overlapping=overlapping
        )
        matrix = rotation(torch.eye(size))
        assert torch.allclose(matrix @ matrix.T, torch.eye(size), atol=1e-5)
        values = torch.randn(3, 2, size, generator=torch.Generator().manual_seed(seed))
        assert torch.allclose(rotation(values), values @ matrix, atol=1e-5)
        assert torch.allclose(rotation.rotate_back(rotation(values)), values, atol=1e-5)

    @pytest.mark.parametrize("size", [64, 768, 3072])
    def test_the_product_form_is_the_dense_matrix(self, size):
        """One Hadamard matrix of the whole size, with signs, up to the Kronecker order."""
        rotation = HadamardRotation(size, generator=torch.Generator().manual_seed(0))
        matrix = rotation(torch.eye(size)) * size**0.5
        assert torch.allclose(matrix.abs(), torch.ones(size, size), atol=1e-3)

    def test_weights_absorb_the_rotation(self):
        rotation = HadamardRotation(100, generator=torch.Generator().manual_seed(0))
        weight, values = torch.randn(7, 100), torch.randn(5, 100)
        rotated = rotation(values) @ rotation.rotate_weight(weight).T
        assert torch.allclose(rotated, values @ weight.T, atol=1e-4)

    def test_an_outlier_is_spread_over_all_features(self):
        rotation = HadamardRotation(768, generator=torch.Generator().manual_seed(0))
        values = torch.zeros(768)
        values[5] = 768**0.5
        assert torch.allclose(rotation(values).abs(), torch.ones(768), atol=1e-4)


class TestRotation:
    @pytest.mark.parametrize("towers", ["vision", "text"])
    def test_is_an_identity_or_refused_by_name(self, request, any_model, sample, towers):
        name = request.node.callspec.params["any_model"]
        model, order = explicit(any_model, sample)
        if towers == "vision" and name in NOT_ROTATED:
            with pytest.raises(QuantizerError, match="no pre-norm transformer blocks"):
                rotate(model, towers, order, seed=0)
            return
        rotate(model, towers, order, seed=0)
        assert_same(model, any_model, sample)

    def test_nothing_of_a_norm_is_left_in_a_block(self, vit, sample):
        model, order = explicit(vit, sample)
        rotate(model, "vision", order, seed=0)
        blocks = model.visual.transformer.resblocks
        assert not any(isinstance(x, nn.LayerNorm) for x in blocks.modules())

    def test_the_stream_has_mean_zero_and_another_basis(self, vit, sample):
        model, order = explicit(vit, sample)
        streams = []
        for each in (vit, model):
            if each is model:
                rotate(model, "vision", order, seed=0)
            hook = each.visual.transformer.resblocks[1].register_forward_pre_hook(
                lambda _, inputs: streams.append(inputs[0])
            )
            sample.encode(each)
            hook.remove()
        original, rotated = streams
        back = model.visual.transformer.resblocks[0].enter_rotation.rotate_back(rotated)
        centred = original - original.mean(-1, keepdim=True)
        assert torch.allclose(back, centred, atol=1e-4)
        assert not torch.allclose(rotated, centred, atol=0.1)

    def test_seeds_are_kept_apart_and_global_randomness_alone(self, vit, sample):
        state = torch.get_rng_state()
        weights = []
        for seed in (0, 0, 1):
            model, order = explicit(vit, sample)
            rotate(model, "vision", order, seed=seed)
            weights.append(model.visual.transformer.resblocks[0].mlp.c_fc.weight)
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])
        assert torch.equal(torch.get_rng_state(), state)

    def test_a_rotated_model_survives_copying_and_its_state_dict(self, vit, sample):
        model, order = explicit(vit, sample)
        rotate(model, "both", order, seed=0)
        twin = copy.deepcopy(model)
        for parameter in twin.parameters():
            parameter.data = torch.zeros_like(parameter)
        twin.load_state_dict(model.state_dict())
        assert_same(twin, vit, sample)
