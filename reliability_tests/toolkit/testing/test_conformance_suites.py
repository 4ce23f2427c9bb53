"""Each invariant of the conformance suites catches something that breaks it."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch import nn

from clipq.errors import QuantizerError
from clipq.quant import Format, QuantizerSpec, quantizers
from clipq.quant.coverage import quantized_layers
from clipq.quant.explicit import make_explicit
from clipq.quant.methods import find_method
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear
from clipq.quant.towers import in_towers
from clipq.quant.weights import quantize_weight
from clipq.testing import Check, NotRun, Violation, check_identity, check_quantizer, check_rounding

W4 = Format.parse("w4").weight


def verdicts(checks) -> dict[str, bool]:
    """Return whether each invariant holds."""
    found = {}
    for check in checks:
        assert isinstance(check, Check)
        try:
            check()
            found[check.invariant] = True
        except Violation:
            found[check.invariant] = False
    return found


def nearest(weight, number_format=W4):
    return quantize_weight(weight, number_format, name="layer")


def by_steps(weight, change):
    """Round symmetrically with an altered rule: ``change(steps, scale)`` yields the new weight."""
    values = weight.float()
    scale = (values.abs().amax(1, keepdim=True) / 7).clamp(min=torch.finfo(torch.float32).tiny)
    return change(values / scale, scale).to(weight.dtype)


def in_place(weight, _):
    weight.mul_(2)
    return nearest(weight)


def stochastic(weight, _):
    return nearest(weight) * (1 + 1e-3 * torch.rand(()))


def whole_tensor(weight, _):
    return nearest(weight, Format.parse("w4t").weight)


def by_position(weight, _):
    return nearest(weight) * (1 + torch.arange(len(weight))[:, None] % 2)


def hides_nan(weight, _):
    return nearest(weight.nan_to_num(0.0, 1.0, -1.0))


def computes_in_half(weight, _):
    if weight.dtype == torch.float32:
        return nearest(weight)
    return by_steps(weight, lambda x, s: torch.round(x).to(weight.dtype) * s.to(weight.dtype))


def worse_with_five_bits(weight, number_format):
    return nearest(weight, W4 if number_format.bits == 4 else Format.parse("w3").weight)


ROUNDINGS = {
    "errs-by-half-a-step-at-most": lambda w, _: by_steps(w, lambda x, s: torch.floor(x) * s),
    "is-nearest": lambda w, _: by_steps(w, lambda x, s: torch.trunc(x) * s),
    "has-as-many-levels-as-codes": lambda w, _: by_steps(
        w, lambda x, s: torch.round(8 * x) / 8 * s
    ),
    "keeps-zero": lambda w, _: by_steps(w, lambda x, s: (torch.floor(x) + 0.5) * s),
    "keeps-order": lambda w, _: by_steps(w, lambda x, s: -torch.round(x) * s),
    "is-idempotent": lambda w, _: 0.9 * nearest(w),
    "is-odd": lambda w, _: by_steps(w, lambda x, s: torch.floor(x + 0.4) * s),
    "scales-with-powers-of-two": lambda w, _: nearest(w + 1e-3),
    "takes-ties-to-even": lambda w, _: by_steps(
        w, lambda x, s: x.sign() * torch.floor(x.abs() + 0.5) * s
    ),
    "keeps-shape-and-original": in_place,
    "commutes-with-permutations-of-channels": by_position,
    "keeps-blocks-apart": whole_tensor,
    "improves-with-a-bit": worse_with_five_bits,
    "shows-nan-and-infinity": hides_nan,
    "computes-half-precision-in-float32": computes_in_half,
}


class TestRounding:
    def test_the_list_below_is_complete(self):
        assert {check.invariant for check in check_rounding(nearest, W4)} == set(ROUNDINGS)

    def test_rounding_to_nearest_passes(self):
        assert all(verdicts(check_rounding(nearest, W4)).values())

    @pytest.mark.parametrize("invariant", sorted(ROUNDINGS))
    def test_what_breaks_an_invariant_is_caught_by_it(self, invariant):
        chosen = [c for c in check_rounding(ROUNDINGS[invariant], W4) if c.invariant == invariant]
        assert len(chosen) == 1
        with pytest.raises(Violation):
            chosen[0]()

    def test_random_results_are_caught(self):
        check, *_ = check_rounding(stochastic, W4)
        with pytest.raises(Violation, match="rounds in two ways"):
            check()

    def test_half_way_cases_need_not_be_promised(self):
        names = {c.invariant for c in check_rounding(nearest, W4, ties=False)}
        assert names == set(ROUNDINGS) - {"takes-ties-to-even"}


def rtn(model, spec, calibration):
    own = QuantizerSpec("rtn", spec.format or Format.parse("w8"), (), spec.towers)
    return find_method(own)(model, own, calibration)


def refuse_options(spec):
    if spec.options:
        raise QuantizerError(f"unknown options {spec.options}")


def random_weights(model, spec, calibration):
    refuse_options(spec)
    model = rtn(model, spec, calibration)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, QuantizedLinear):
                module.weight += 1e-3 * torch.randn(module.weight.shape)
    return model


class _AcrossBatch(nn.Module):
    def forward(self, values):
        scale = values.detach().abs().amax() / 1.5
        return torch.round(values / scale) * scale


class _Detached(nn.Module):
    def forward(self, values):
        return values.detach()


class _Float(nn.Module):
    def forward(self, values):
        return values.nan_to_num(0.0)


def with_inputs(kind):
    def method(model, spec, calibration):
        refuse_options(spec)
        model = rtn(model, spec, calibration)
        for module in model.modules():
            if isinstance(module, QuantizedLinear):
                module.inputs = kind()
        return model

    return method


def as_float(model, spec, calibration):
    refuse_options(spec)
    encode = model.encode_image
    model = rtn(model, spec, calibration)
    model.encode_image = lambda images, **_: encode(images).float()
    return model


def both_towers(model, spec, calibration):
    refuse_options(spec)
    return rtn(model, QuantizerSpec("rtn", spec.format), calibration)


def nothing(model, spec, calibration):
    refuse_options(spec)
    for batches in (calibration.images, calibration.texts):
        next(batches())
    return model


def any_option(model, spec, calibration):
    return rtn(model, spec, calibration)


def a_part(model, spec, calibration):
    refuse_options(spec)
    own = QuantizerSpec("rtn", spec.format, (("include", "*.mlp.*"),), spec.towers)
    return find_method(own)(model, own, calibration)


def no_bits(model, spec, calibration):
    refuse_options(spec)
    return rtn(model, QuantizerSpec("rtn", Format.parse("w3"), (), spec.towers), calibration)


def eight_bits(model, spec, calibration):
    refuse_options(spec)
    return rtn(model, QuantizerSpec("rtn", Format.parse("w8"), (), spec.towers), calibration)


def outside_the_state(model, spec, calibration):
    refuse_options(spec)
    model = rtn(model, spec, calibration)
    for module in list(model.modules()):
        if isinstance(module, QuantizedLinear):
            weight = module.weight.data.clone()
            module.forward = lambda x, w=weight, b=module.bias: nn.functional.linear(x, w, b)
    return model


def again_and_again(model, spec, calibration):
    refuse_options(spec)
    if any(isinstance(m, QuantizedLinear | QuantizedConv2d) for m in model.modules()):
        return model
    return rtn(model, spec, calibration)


def one_layer_too_large(model, spec, calibration):
    refuse_options(spec)
    model = rtn(model, spec, calibration)
    model.visual.transformer.resblocks[0].mlp.c_fc.weight.data *= 3
    return model


def in_place(change):
    """Return a method that changes weights where they lie: steps and scales by ``change``."""

    def method(model, spec, calibration):
        refuse_options(spec)
        next(calibration.images())
        next(calibration.texts())
        if quantized_layers(model):
            raise QuantizerError("quantized already")
        make_explicit(model, spec.towers)
        bits = spec.format.weight.bits if spec.format else 4
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d) and in_towers(name, spec.towers):
                rows = layer.weight.data.flatten(1)
                layer.weight.data.copy_(change(rows, bits).reshape(layer.weight.shape))
        return model

    return method


def rounded_by(rule):
    """Return rounding by a rule on steps, with a scale per output channel."""

    def change(rows, bits):
        scale = rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        return rule(rows / scale) * scale

    return change


def scaled_over(shared):
    """Return rounding to nearest with the scale of ``shared(rows) -> largest``."""

    def change(rows, bits):
        scale = shared(rows.abs()) / (2 ** (bits - 1) - 1)
        return (rows / scale).round() * scale

    return change


def by_block_of_rows(sizes):
    """The largest of 8 rows at the same column: groups along the wrong axis."""
    blocks = sizes.unflatten(0, (-1, 8)).amax(1, keepdim=True)
    return blocks.expand(-1, 8, -1).flatten(0, 1)


def by_row_of_the_transposed(sizes):
    return sizes.t().amax(1, keepdim=True).t()


def truncated_to_bfloat16(rows, bits):
    return (rows.view(torch.int32) & -65536).view(torch.float32)


def rounds_inputs_down(model, spec, calibration):
    refuse_options(spec)
    model = rtn(model, spec, calibration)
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            module.register_forward_pre_hook(lambda _, x: ((x[0] * 16).floor() / 16,))
    return model


LEANING = {
    "down": torch.floor,
    "up": torch.ceil,
    "toward zero": torch.trunc,
    "away from zero": lambda x: x.sign() * x.abs().ceil(),
    "up by half a step": lambda x: torch.round(x + 0.5),
    "up, off by half": lambda x: torch.round(x) + 0.5,
    "down by a quarter": lambda x: torch.floor(x + 0.25),
}
WRONG_AXIS = {
    "one scale": lambda sizes: sizes.amax(),
    "a scale per input": lambda sizes: sizes.amax(0, keepdim=True),
    "a scale per row of the transposed": by_row_of_the_transposed,
    "groups of rows": by_block_of_rows,
}


def with_images(change):
    """Round to nearest, and change what `encode_image` does with a batch."""

    def method(model, spec, calibration):
        refuse_options(spec)
        model = rtn(model, spec, calibration)
        encode = model.encode_image
        model.encode_image = lambda images, **_: change(encode(images))
        return model

    return method


def one_range_per_batch(features):
    scale = features.detach().abs().amax() / 7
    return (features / scale).round() * scale


def few_rows_take_the_first_ones_offset(features):
    return features + 0.3 * features[:1] if 1 < len(features) <= 8 else features


def reversed_where_no_tile_is_full(features):
    return features.flip(0) if len(features) % 32 else features


QUANTIZERS = {
    "rounds-without-drift": in_place(rounded_by(torch.floor)),
    "scales-along-the-claimed-axis": in_place(scaled_over(WRONG_AXIS["one scale"])),
    "computes-what-it-claims": eight_bits,
    "stays-near-rounding-to-nearest": one_layer_too_large,
    "is-deterministic": random_weights,
    "leaves-the-original-alone": random_weights,
    "encodes-each-sample-by-itself": with_inputs(_AcrossBatch),
    "lets-gradients-through": with_inputs(_Detached),
    "shows-nan-and-infinity": with_inputs(_Float),
    "keeps-half-precision-or-refuses": as_float,
    "leaves-the-other-tower-alone": both_towers,
    "refuses-unknown-options": any_option,
    "covers-the-arithmetic": a_part,
    "improves-with-a-bit": no_bits,
    "has-as-many-levels-as-codes": eight_bits,
    "survives-copies-and-state-dicts": outside_the_state,
    "refuses-what-is-quantized-already": again_and_again,
}
# What `quantize` itself refuses before a method's result could break it, and what needs no promise.
NOT_BROKEN = {
    "returns-a-finite-clip",
    "has-an-identity",
    "takes-one-sample-and-refuses-none",
    "takes-tied-and-shared-weights-or-refuses",
}


def one_check(text, invariant):
    return next(check for check in check_quantizer(text) if check.invariant == invariant)


@pytest.fixture
def method():
    """Registers a method as `mutant` for the time of a test."""

    def register(function):
        quantizers.add("mutant", function)

    yield register
    quantizers.remove("mutant")


class TestQuantizer:
    def test_the_list_above_is_complete(self):
        names = {check.invariant for check in check_quantizer("rtn:w4")}
        assert names == set(QUANTIZERS) | NOT_BROKEN

    @pytest.mark.parametrize("invariant", sorted(QUANTIZERS))
    def test_what_breaks_an_invariant_is_caught_by_it(self, method, invariant):
        method(QUANTIZERS[invariant])
        chosen = [c for c in check_quantizer("mutant:w4") if c.invariant == invariant]
        assert len(chosen) == 1
        with pytest.raises(Violation):
            chosen[0]()

    @pytest.mark.parametrize(
        "change",
        [one_range_per_batch, few_rows_take_the_first_ones_offset, reversed_where_no_tile_is_full],
    )
    def test_every_way_to_depend_on_the_batch_is_caught(self, method, change):
        method(with_images(change))
        name = "encodes-each-sample-by-itself"
        check = next(c for c in check_quantizer("mutant:w4") if c.invariant == name)
        with pytest.raises(Violation, match="features of images depend on batch mates"):
            check()

    @pytest.mark.parametrize(
        ("direction", "bits"),
        [
            *((direction, 4) for direction in LEANING),
            *((direction, bits) for direction in ("down", "toward zero") for bits in (3, 8)),
        ],
    )
    def test_rounding_that_leans_any_way_is_caught(self, method, direction, bits):
        method(in_place(rounded_by(LEANING[direction])))
        said = direction.split(" by ")[0].split(",")[0]
        with pytest.raises(Violation, match=f"weights of .* are rounded {said}"):
            one_check(f"mutant:w{bits}", "rounds-without-drift")()

    @pytest.mark.parametrize("text", ["mutant", "mutant@text"])
    def test_half_precision_that_is_cut_off_is_caught(self, method, text):
        method(in_place(truncated_to_bfloat16))
        with pytest.raises(Violation, match="are rounded toward zero"):
            one_check(text, "rounds-without-drift")()

    def test_inputs_that_are_rounded_down_are_caught(self, method):
        method(rounds_inputs_down)
        with pytest.raises(Violation, match=r"inputs of .* are rounded down"):
            one_check("mutant:w8", "rounds-without-drift")()

    @pytest.mark.parametrize("text", ["mutant:w8", "mutant:w4g16"])
    @pytest.mark.parametrize("axis", WRONG_AXIS)
    def test_scales_along_another_axis_are_caught(self, method, axis, text):
        method(in_place(scaled_over(WRONG_AXIS[axis])))
        with pytest.raises(Violation, match="rows made small lose more"):
            one_check(text, "scales-along-the-claimed-axis")()

    def test_a_scale_per_row_is_no_scale_per_group(self, method):
        method(in_place(rounded_by(torch.round)))
        with pytest.raises(Violation, match="groups of 16 inputs made small"):
            one_check("mutant:w4g16", "scales-along-the-claimed-axis")()

    @pytest.mark.parametrize(
        "text", ["mutant:w3", "mutant:w4", "mutant:w8", "mutant:w8@vision", "mutant:w4@text"]
    )
    def test_rounding_to_nearest_in_place_passes_both(self, method, text):
        method(in_place(rounded_by(torch.round)))
        one_check(text, "rounds-without-drift")()
        one_check(text, "scales-along-the-claimed-axis")()

    def test_half_precision_to_nearest_passes(self, method):
        method(in_place(lambda rows, bits: rows.bfloat16().float()))
        one_check("mutant", "rounds-without-drift")()

    @pytest.mark.parametrize(
        "text",
        [
            "rtn:w2t",
            "rtn:w4p",
            "rtn:wnf4g16",
            "rtn:we4m3ae4m3",
            "rtn:w8ta8z",
            "gptq:w8",
            "gptq:w4g16",
        ],
    )
    def test_no_other_format_or_method_is_accused(self, text):
        for name in ("rounds-without-drift", "scales-along-the-claimed-axis"):
            with contextlib.suppress(NotRun):
                one_check(text, name)()

    def test_a_declared_exception_is_a_skip_that_says_why(self, method):
        method(one_layer_too_large)
        one_layer_too_large.exceptions = {"nearest": "made for another checkpoint"}
        name = "stays-near-rounding-to-nearest"
        check = next(c for c in check_quantizer("mutant:w4") if c.invariant == name)
        try:
            with pytest.raises(NotRun, match="nearest: made for another checkpoint"):
                check()
        finally:
            del one_layer_too_large.exceptions

    def test_a_promise_to_beat_another_is_held(self, method):
        method(no_bits)
        *_, check = check_quantizer("mutant:w4", beats="rtn:w4")
        assert check.invariant == "beats-rtn:w4"
        with pytest.raises(Violation, match="no closer to FP32 than rtn:w4"):
            check()

    def test_a_promise_to_round_to_nearest_is_held(self, method):
        def other(model, spec, calibration):
            refuse_options(spec)
            model = rtn(model, spec, calibration)
            for module in model.modules():
                if isinstance(module, QuantizedLinear):
                    module.weight.data.mul_(0.9)
            return model

        method(other)
        found = verdicts(
            c
            for c in check_quantizer("mutant:w4", nearest=True)
            if c.invariant in ("errs-by-half-a-step-at-most", "keeps-zero")
        )
        assert found == {"errs-by-half-a-step-at-most": False, "keeps-zero": True}

    def test_a_method_that_does_nothing_is_no_quantizer(self, method):
        method(nothing)
        found = verdicts(check_quantizer("mutant:w4"))
        assert not found["leaves-the-other-tower-alone"]
        assert not found["improves-with-a-bit"]

    def test_features_that_are_not_finite_are_caught(self, method):
        def broken(model, spec, calibration):
            refuse_options(spec)
            model = rtn(model, spec, calibration)
            model.visual.conv1.weight.data.fill_(math.nan)
            return model

        method(broken)
        check, *_ = check_quantizer("mutant:w4")
        with pytest.raises(Violation, match="not finite"):
            check()

    def test_an_unknown_method_is_refused_at_once(self):
        with pytest.raises(Exception, match="did you mean 'rtn'"):
            next(check_quantizer("rtm:w8"))


class TestIdentity:
    def test_what_changes_nothing_passes(self):
        found = verdicts(check_identity(lambda model, _: None, families=("vit", "siglip")))
        assert found == {"vit": True, "siglip": True}

    def test_what_changes_features_is_caught(self):
        def change(model, inputs):
            model.visual.ln_post.bias.data.add_(1e-3)

        check = next(check_identity(change, families=("vit",)))
        with pytest.raises(Violation, match="changes the features of vit by"):
            check()
