"""A format is a claim: what runs is counted, and what contradicts it is refused by name."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from clipq.errors import QuantizerError
from clipq.quant import Format, QuantizerSpec, quantize, quantizers
from clipq.quant.activations import DynamicQuantizer, StaticQuantizer
from clipq.quant.apply import apply_method
from clipq.quant.explicit import make_explicit
from clipq.quant.levels import input_on_levels, integer_bits, levels_needed, weight_on_levels
from clipq.quant.methods import find_method
from clipq.quant.modules import Projection, QuantizedLinear
from clipq.quant.nearest import FLOOR_DB, Nearness, feature_sqnr
from clipq.quant.surgery import plain_layers
from clipq.quant.weights import quantize_weight
from clipq.testing import SmallInputs, small_clip

INPUTS = SmallInputs()
WEIGHTS = ("w2", "w3", "w4", "w8", "w4t", "w8t", "w4g16", "w4g48", "w4z", "w8g32z", "w4p")
FLOATS = ("we4m3", "we5m2", "wnf4", "wnf4g64", "wmxfp4", "wmxfp8", "we4m3g32p")


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TestLevels:
    def test_gaps_count_levels_that_few_values_leave_empty(self):
        assert levels_needed(torch.tensor([[0.0, 0.3, 3.0], [2.0, 2.0, 2.0]])).tolist() == [
            pytest.approx(11.0),
            1.0,
        ]

    @pytest.mark.parametrize("chosen", ["minmax", "mse"])
    @pytest.mark.parametrize("text", [*WEIGHTS, *FLOATS])
    def test_what_a_format_rounds_lies_on_its_levels(self, text, chosen):
        number_format = Format.parse(text).weight
        for shape in ((48, 64), (16, 300), (16, 3, 4, 4)):
            weight = gaussian(*shape)
            rounded = quantize_weight(weight, number_format, name="it", chosen=chosen)
            assert weight_on_levels(rounded, number_format) is True, (shape, chosen)

    @pytest.mark.parametrize("text", WEIGHTS)
    def test_a_float_weight_does_not_even_where_rows_are_shorter_than_the_codes(self, text):
        number_format = Format.parse(text).weight
        assert weight_on_levels(gaussian(96, 64), number_format) is False

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("bits", [4, 8])
    def test_half_precision_moves_products_of_code_and_scale_but_not_off_the_levels(
        self, dtype, bits
    ):
        number_format = Format.parse(f"w{bits}").weight
        weight = quantize_weight(gaussian(64, 256), number_format, name="it").to(dtype)
        assert weight_on_levels(weight, number_format) is True

    def test_a_codebook_of_its_own_counts_by_its_values(self):
        book = gaussian(16, seed=1)
        weight = book[torch.randint(0, 16, (64, 128), generator=torch.Generator().manual_seed(2))]
        assert weight_on_levels(weight, Format.parse("w4").weight) is True
        assert weight_on_levels(weight, Format.parse("w3").weight) is False

    @pytest.mark.parametrize("bits", range(2, 9))
    def test_the_bits_in_use_are_found(self, bits):
        weight = quantize_weight(gaussian(64, 96), Format.parse(f"w{bits}").weight, name="it")
        assert integer_bits(weight, "channel") == bits

    def test_inputs_have_a_scale_for_all_for_a_token_or_for_a_feature(self):
        a8, values = Format.parse("w8a8").activation, gaussian(50, 64)
        by_token = values / values.abs().amax(1, keepdim=True) * 127
        folded = (values * 30).round() * torch.linspace(0.5, 2, 64)
        assert input_on_levels((values * 30).round() / 30, a8) is True
        assert input_on_levels(by_token.round() * values.abs().amax(1, keepdim=True), a8) is True
        assert input_on_levels(folded, a8) is True
        assert input_on_levels(values, a8) is False
        assert input_on_levels(values[:1], a8) is False


@pytest.fixture
def method():
    """Registers a method as `mine` for the time of a test."""

    def register(function, **attributes):
        quantizers.register("mine", **attributes)(function)

    yield register
    quantizers.remove("mine")


def rounding(text: str, towers: str = "both"):
    """Return a method that rounds plain layers as a format says, in torch's own modules."""

    def mine(model, spec, calibration):
        number_format = Format.parse(text)
        make_explicit(model, spec.towers)
        for layer in plain_layers(model, towers).values():
            layer.weight.data = quantize_weight(layer.weight, number_format.weight, name="it")
            if number_format.activation is not None:
                inputs = StaticQuantizer(number_format.activation, low=-6.0, high=6.0)
                layer.register_forward_pre_hook(
                    lambda _module, given, inputs=inputs: (inputs(given[0]), *given[1:])
                )
        return model

    return mine


def multiplied(product, text: str | None = None):
    """Return a method whose linear layers multiply as `product` says; it rounds where `text` is."""

    class Own(Projection):
        def forward(self, input):
            output = product(input, self.weight)
            return output if self.bias is None else output + self.bias

    def mine(model, spec, calibration):
        if text is None:
            make_explicit(model, spec.towers)
        else:
            rounding(text)(model, spec, calibration)
        for layer in plain_layers(model, "both").values():
            if isinstance(layer, nn.Linear):
                layer.__class__ = Own
        return model

    return mine


def by_einsum(values, weight):
    return torch.einsum("...d,od->...o", values, weight)


def by_repeated_matrix(values, weight):
    rows = values.reshape(1, -1, values.shape[-1]).expand(2, -1, -1)
    return torch.bmm(rows, weight.t().expand(2, -1, -1))[1].reshape(*values.shape[:-1], -1)


def by_batches_of_rows(values, weight):
    """One matrix per half of the outputs."""
    rows = values.reshape(1, -1, values.shape[-1]).expand(2, -1, -1)
    parts = torch.bmm(rows, weight.reshape(2, -1, weight.shape[1]).mT)
    return torch.cat([*parts], dim=1).reshape(*values.shape[:-1], -1)


def by_elements(values, weight):
    return (values.unsqueeze(-2) * weight).sum(-1)


BATCHES = {
    "einsum-on-the-fly": lambda values, weight: by_einsum(values, weight * 1.0),
    "weight-first": lambda values, weight: torch.bmm(
        weight[None], values.reshape(1, -1, values.shape[-1]).mT
    ).mT.reshape(*values.shape[:-1], -1),
    "repeated": by_repeated_matrix,
    "halves": by_batches_of_rows,
}


def made(text: str, *, compare: bool = False):
    return apply_method(small_clip(), text, INPUTS.calibration, compare=compare)


class TestForeignModules:
    @pytest.mark.parametrize("text", ["w8", "w4", "w4g16z", "w8a8"])
    def test_what_is_as_claimed_is_counted_and_passes(self, method, text):
        method(rounding(text))
        claim = made(f"mine:{text}").claim
        assert (claim.held, claim.in_float, claim.contradictions) == (1.0, (), ())
        assert made(f"mine:{text}").coverage.share == 1.0

    def test_weights_on_more_levels_are_refused_by_name(self, method):
        method(rounding("w8"))
        with pytest.raises(QuantizerError, match=r"on more levels than w4 has codes: \S+weight, "):
            quantize(small_clip(), "mine:w4", INPUTS.calibration)

    def test_inputs_left_in_float_are_refused(self, method):
        method(rounding("w8"))
        with pytest.raises(QuantizerError, match="inputs on more levels than a8 has codes"):
            quantize(small_clip(), "mine:w8a8", INPUTS.calibration)

    def test_fewer_bits_are_refused(self, method):
        method(rounding("w4"))
        with pytest.raises(QuantizerError, match="weights of 4 bits, not 8"):
            quantize(small_clip(), "mine:w8", INPUTS.calibration)

    def test_a_tower_left_out_is_refused(self, method):
        method(rounding("w8", "vision"))
        with pytest.raises(QuantizerError, match=r"more levels than w8 has codes: .*transformer"):
            quantize(small_clip(), "mine:w8", INPUTS.calibration)
        assert made("mine:w8@vision").claim.contradictions == ()

    def test_fused_projections_and_bare_matrices_count(self, method):
        def only_modules(model, spec, calibration):
            for layer in [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]:
                w8 = Format.parse("w8").weight
                layer.weight.data = quantize_weight(layer.weight, w8, name="it")
            return model

        method(only_modules)
        found = made("mine:w8").claim
        assert {"text_projection", "visual.proj"} < set(found.in_float)
        assert any(name.endswith("in_proj_weight") for name in found.in_float)
        assert found.contradictions

    def test_weights_dequantized_on_the_fly_are_seen_where_they_are_multiplied(self, method):
        class Packed(Projection):
            def forward(self, input):
                return nn.functional.linear(input, self.weight * 1.0, self.bias)

        def packed(model, spec, calibration):
            rounding("w4")(model, spec, calibration)
            for layer in plain_layers(model, "both").values():
                if isinstance(layer, nn.Linear):
                    layer.__class__ = Packed
            return model

        method(packed)
        assert made("mine:w4").claim.contradictions == ()
        assert made("mine:w2").claim.contradictions

    @pytest.mark.parametrize("product", BATCHES.values(), ids=BATCHES)
    def test_a_weight_in_a_product_of_batches_is_a_weight(self, method, product):
        method(multiplied(product, "w8a8"))
        claim = made("mine:w8a8").claim
        assert (claim.counted, claim.held, claim.contradictions) == (1.0, 1.0, ())
        found = made("mine:w4a4").claim.contradictions
        assert [line.partition(" has codes")[0] for line in found] == [
            "weights on more levels than w4",
            "inputs on more levels than a4",
        ]

    def test_every_slice_of_a_weight_counts(self, method):
        def mine(model, spec, calibration):
            original = {n: m.weight.data.clone() for n, m in plain_layers(model, "both").items()}
            model = multiplied(
                lambda values, weight: torch.cat(
                    [nn.functional.linear(values, part) for part in weight.chunk(2)], dim=-1
                ),
                "w8",
            )(model, spec, calibration)
            name = "transformer.resblocks.0.mlp.c_fc"
            layer = model.get_submodule(name)
            layer.weight.data[len(layer.weight) // 2 :] = original[name][len(layer.weight) // 2 :]
            return model

        method(mine)
        name = "transformer.resblocks.0.mlp.c_fc.weight"
        assert made("mine:w8").claim.contradictions == (
            f"weights on more levels than w8 has codes: {name}",
        )

    def test_a_correction_beside_the_rounded_product_is_seen(self, method):
        def corrected(values, weight):
            coarse = (values * 20).round() / 20
            rest = by_einsum(values - coarse, weight)
            return nn.functional.linear(coarse, weight) + rest

        method(multiplied(corrected, "w8"))
        with pytest.raises(QuantizerError, match="inputs on more levels than a8 has codes"):
            quantize(small_clip(), "mine:w8a8", INPUTS.calibration)

    def test_what_cannot_be_seen_is_not_reported_as_covered(self, method):
        method(multiplied(by_elements, "w8"))
        found = quantize(small_clip(), "mine:w8", INPUTS.calibration)
        assert found.claim.counted < 0.5
        assert found.to_plain()["share"] is None

    def test_what_is_declared_is_excused_and_shown(self, method):
        method(rounding("w8", "vision"), exceptions={"float": "texts are cached"})
        found = quantize(small_clip(), "mine:w8", INPUTS.calibration)
        assert found.exceptions == {"float": "texts are cached"}
        assert 0.3 < found.coverage.share < 0.99
        assert found.to_plain()["exceptions"] == {"float": "texts are cached"}

    @pytest.mark.parametrize(
        ("declared", "message"),
        [
            ({"floats": "why"}, "did you mean 'float'"),
            ({"float": " "}, "gives no reason"),
            (["float"], "not a mapping"),
        ],
    )
    def test_a_declaration_must_be_readable(self, method, declared, message):
        method(rounding("w8"), exceptions=declared)
        with pytest.raises(QuantizerError, match=message):
            made("mine:w8")

    def test_without_a_format_nothing_is_claimed_but_what_is_quantized_is_counted(self, method):
        method(rounding("w8"))
        found = made("mine")
        assert found.claim is None
        assert found.coverage.share == 1.0
        assert 8 < found.storage.weight_bits < 9


def rtn(text: str, model: nn.Module) -> nn.Module:
    spec = QuantizerSpec.parse(f"rtn:{text}")
    return find_method(spec)(model, spec, INPUTS.calibration)


class TestOurModules:
    def test_one_layer_of_four_bits_is_named(self, method):
        def mine(model, spec, calibration):
            model = rtn("w8a8", model)
            layer = model.visual.transformer.resblocks[1].mlp.c_fc
            layer.weight.data = quantize_weight(layer.weight, Format.parse("w4").weight, name="it")
            return model

        method(mine)
        name = re.escape("visual.transformer.resblocks.1.mlp.c_fc.weight")
        with pytest.raises(QuantizerError, match=f"weights of 4 bits, not 8: {name}"):
            quantize(small_clip(), "mine:w8a8", INPUTS.calibration)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("w8a4", "inputs rounded to a4, not a8"),
            ("w8", "inputs rounded to float, not a8"),
            ("w8a8d", "inputs rounded to a8d, not a8"),
            ("w8a8k8", "attention rounded to k8, not float"),
        ],
    )
    def test_another_format_than_the_claimed_one_is_named(self, method, text, message):
        method(lambda model, spec, calibration: rtn(text, model))
        with pytest.raises(QuantizerError, match=message):
            quantize(small_clip(), "mine:w8a8", INPUTS.calibration)

    def test_a_float_weight_inside_a_quantized_module_is_named(self, method):
        def mine(model, spec, calibration):
            original = {n: p.data.clone() for n, p in model.named_parameters()}
            model = rtn("w8", model)
            name = "transformer.resblocks.0.mlp.c_fc"
            model.get_submodule(name).weight.data = original[f"{name}.weight"]
            return model

        method(mine)
        with pytest.raises(QuantizerError, match=r"inside clipq's modules: .*c_fc"):
            quantize(small_clip(), "mine:w8", INPUTS.calibration)

    def test_a_float_model_on_a_coarse_grid_may_have_fewer_levels(self):
        model = small_clip()
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = module.weight.data.sign()
        assert apply_method(model, "rtn:w8", INPUTS.calibration).claim.contradictions == ()

    def test_layers_with_formats_of_their_own_are_the_tables_business(self, tmp_path):
        table = tmp_path / "table.toml"
        table.write_text('"visual.*.mlp.*" = "w4a8"\n"text_projection" = "float"\n')
        text = f"rtn:w8a8,table={table}"
        assert apply_method(small_clip(), text, INPUTS.calibration).claim.contradictions == ()

    def test_integer_products_are_seen(self):
        claim = apply_method(small_clip(), "rtn:w8a8,compute=integer", INPUTS.calibration).claim
        assert (claim.counted, claim.held) == (1.0, 1.0)


class TestNearness:
    def test_a_model_much_farther_than_rounding_to_nearest_is_refused(self, method):
        def mine(model, spec, calibration):
            model = rtn("w8", model)
            for module in model.visual.modules():
                if isinstance(module, QuantizedLinear):
                    module.weight.data *= 1.05
            return model

        method(mine)
        with pytest.raises(QuantizerError, match=r"image features at 18\.\d dB, .* nearest"):
            quantize(small_clip(), "mine:w8", INPUTS.calibration)

    def test_a_declared_distance_is_excused_and_recorded(self, method):
        def mine(model, spec, calibration):
            model = rtn("w8", model)
            model.visual.ln_post.weight.data *= 1.1
            return model

        method(mine, exceptions={"nearest": "norms are rounded too"})
        found = quantize(small_clip(), "mine:w8", INPUTS.calibration)
        assert found.nearness.complaints()
        plain = found.to_plain()
        assert plain["exceptions"] == {"nearest": "norms are rounded too"}
        assert plain["sqnr_db"]["own"]["vision"] < plain["sqnr_db"]["nearest"]["vision"] - FLOOR_DB

    def test_the_ratio_is_that_of_energies(self):
        original, moved = small_clip(), small_clip()
        for head in (moved.visual, moved):
            name = "proj" if head is moved.visual else "text_projection"
            getattr(head, name).data *= 1.1
        found = feature_sqnr(moved, original, "both", INPUTS.calibration)
        assert found == {
            "vision": pytest.approx(20.0, abs=1e-3),
            "text": pytest.approx(20.0, abs=1e-3),
        }

    def test_four_decibels_are_allowed(self):
        assert Nearness({"text": 28.1}, {"text": 32.0}).complaints() == []
        assert len(Nearness({"text": 27.9}, {"text": 32.0}).complaints()) == 1
        assert len(Nearness({"text": -math.inf}, {"text": 32.0}).complaints()) == 1

    def test_three_bits_more_than_the_format_has_are_not_its_own(self):
        def lines(own, nearest, bits):
            return Nearness({"text": own}, {"text": nearest}, {"text": bits}).pretences()

        assert lines(66.1, 32.0, 8) == []  # 11 bits have 66.2 dB
        assert len(lines(66.3, 32.0, 8)) == len(lines(math.inf, 32.0, 8)) == 1
        assert lines(72.9, 55.0, 8) == []  # where rounding to nearest is better than its bits
        assert len(lines(73.1, 55.0, 8)) == 1
        assert lines(30.0, -math.inf, 4) == lines(math.inf, math.inf, 8) == []
        assert lines(math.nan, 32.0, 8) == lines(99.0, math.nan, 8) == []

    def test_float_products_that_nobody_can_see_are_refused_as_too_good(self, method):
        method(multiplied(by_elements), exceptions={"nearest": "it is worse, surely"})
        with pytest.raises(QuantizerError, match=r"image features at \S+ dB, .*: not of 8 bits"):
            quantize(small_clip(), "mine:w8a8", INPUTS.calibration)

    def test_a_method_that_rounds_one_sample_and_no_batch_is_refused(self, method):
        w8, a8 = Format.parse("w8").weight, Format.parse("w8a8d").activation

        def one_sample_only(values, weight):
            if 1 not in values.shape[:-1]:
                return nn.functional.linear(values, weight)
            rounded = DynamicQuantizer(a8, over="features")(values)
            return nn.functional.linear(rounded, quantize_weight(weight, w8, name="it"))

        method(multiplied(one_sample_only))
        with pytest.raises(QuantizerError, match=r"text features at \S+ dB, .*: not of 8 bits"):
            quantize(small_clip(), "mine:w8a8d", INPUTS.calibration)

    def test_a_declared_float_layer_or_weights_on_levels_already_may_be_as_near(self, method):
        method(multiplied(by_elements), exceptions={"float": "all of them"})
        assert quantize(small_clip(), "mine:w8a8", INPUTS.calibration).nearness.bits == {}
        quantizers.remove("mine")
        method(lambda model, spec, calibration: model)
        model = small_clip()
        for layer in plain_layers(make_explicit(model, "both") or model, "both").values():
            w4z = Format.parse("w4z").weight
            layer.weight.data = quantize_weight(layer.weight, w4z, name="it")
        assert quantize(model, "mine:w4", INPUTS.calibration).nearness.pretences() == []

    def test_without_a_format_the_bits_that_are_seen_say_how_far_it_may_be(self, method):
        def mine(model, spec, calibration):
            rounding("w8")(model, spec, calibration)
            model.visual.transformer.resblocks[1].mlp.c_fc.bias.data.zero_()
            return model

        method(mine)
        with pytest.raises(QuantizerError, match="not what its bits allow: image features"):
            quantize(small_clip(), "mine", INPUTS.calibration)

    def test_float_weights_say_nothing(self, method):
        def mine(model, spec, calibration):
            model.visual.ln_post.weight.data *= 1.1
            return model

        method(mine)
        assert made("mine", compare=True).nearness is None
