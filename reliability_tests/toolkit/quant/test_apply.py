"""Quantizing a model: the method is guarded, the original untouched, the coverage counted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clipq.errors import QuantizerError, UnknownNameError
from clipq.quant import (
    Calibration,
    QuantizerSpec,
    method_code_hash,
    method_version,
    quantize,
    quantizers,
)

FORMATS = ["w8", "w8a8", "w4g16", "w4g48z", "w8ta8z", "w4a8d", "w2g7za4dz"]


def quantized(model: nn.Module, sample, text: str):
    return quantize(model, QuantizerSpec.parse(text), sample.calibration)


@pytest.fixture
def method() -> Iterator[Callable[[str], Callable]]:
    """Decorator that registers a method and forgets it after the test."""
    names = []

    def register(name: str) -> Callable:
        names.append(name)
        return quantizers.register(name, version=3)

    yield register
    for name in names:
        quantizers.remove(name)


@pytest.mark.parametrize("text", ["rtn:w8a8", "rtn:w4g16za8d"])
def test_every_product_with_a_weight_is_covered(any_model, sample, text: str) -> None:
    coverage = quantized(any_model, sample, text).coverage
    assert coverage.share == 1.0
    assert coverage.uncovered == ()
    assert json.loads(json.dumps(coverage.to_plain(), allow_nan=False))["share"] == 1.0


def test_the_total_agrees_with_the_flop_counter_of_torch(any_model, sample) -> None:
    coverage = quantized(any_model, sample, "rtn:w8").coverage
    # With gradients on, torch does not take its fast path, which the counter cannot see.
    plain = sdpa_kernel(SDPBackend.MATH)  # torch 2.11 has no formula for the fused one
    with torch.enable_grad(), plain, FlopCounterMode(display=False) as counter:
        any_model.encode_image(sample.images[:1])
        any_model.encode_text(sample.texts[:1])
    flops = counter.get_total_flops()
    assert 2 * (coverage.macs_total + coverage.macs_activation) == flops
    assert coverage.activation_products


def test_the_coverage_of_a_vit_by_hand(vit: nn.Module, sample) -> None:
    coverage = quantized(vit, sample, "rtn:w8@vision").coverage
    tokens, width = 17, 64  # (32 / 8)² patches and the class token
    patches = 16 * (3 * 8 * 8) * width
    block = tokens * (4 * width * width + 2 * width * 4 * width)
    projection = width * 24
    assert coverage.macs_total == patches + 2 * block + projection
    assert coverage.macs_activation == 2 * (2 * tokens * tokens * width)
    assert coverage.layers == 1 + 2 * 6 + 1


@pytest.mark.parametrize("number_format", FORMATS)
def test_quantized_features_are_near_the_float_ones(vit, sample, number_format: str) -> None:
    result = quantized(vit, sample, f"rtn:{number_format}").model
    floor = {"w8": 0.99, "w4": 0.9, "w2": 0.2}[number_format[:2]]
    for ours, theirs in zip(sample.encode(result), sample.encode(vit), strict=True):
        cosine = torch.cosine_similarity(ours, theirs)
        assert not torch.equal(ours, theirs)
        assert cosine.min() > floor


@pytest.mark.parametrize("number_format", FORMATS)
def test_quantizing_twice_gives_the_same_bits(vit, sample, number_format: str) -> None:
    first, second = (quantized(vit, sample, f"rtn:{number_format}").model for _ in range(2))
    for one, two in zip(sample.encode(first), sample.encode(second), strict=True):
        assert torch.equal(one, two)


def test_weights_lie_on_their_grid_and_biases_are_kept(vit, sample) -> None:
    result = quantized(vit, sample, "rtn:w3a8").model
    layer, original = (x.visual.transformer.resblocks[0].mlp.c_fc for x in (result, vit))
    assert all(len(row.unique()) <= 8 for row in layer.weight)
    assert torch.equal(layer.bias, original.bias)


def test_static_ranges_are_those_of_the_float_model(vit, sample) -> None:
    result = quantized(vit, sample, "rtn:w4a8").model
    conv = result.visual.conv1
    assert torch.equal(conv.inputs.scale, sample.images.abs().max() / 127)
    seen: list[Tensor] = []
    hook = vit.visual.transformer.resblocks[1].mlp.c_proj.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    sample.encode(vit)
    hook.remove()
    scale = result.visual.transformer.resblocks[1].mlp.c_proj.inputs.scale
    assert torch.allclose(scale, seen[0].abs().max() / 127, rtol=1e-5)


def test_the_original_stays_as_it_is_even_in_training_mode(fresh, sample) -> None:
    model = fresh("modified-resnet").train()
    before = copy.deepcopy(model.state_dict())
    result = quantized(model, sample, "rtn:w8a8").model
    assert model.training
    assert not result.training
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_global_generator_does_not_move(vit, sample) -> None:
    state = torch.get_rng_state()
    quantized(vit, sample, "rtn:w8a8")
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_flow_through_a_model_quantized_under_inference_mode(vit, sample) -> None:
    with torch.inference_mode():
        model = quantized(vit, sample, "rtn:w8a8").model
    images = sample.images.clone().requires_grad_()
    model.encode_image(images).square().sum().backward()
    assert images.grad.abs().max() > 0


def test_autocast_around_it_changes_nothing(vit, sample) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = quantized(vit, sample, "rtn:w8a8")
    outside = quantized(vit, sample, "rtn:w8a8")
    assert inside.coverage == outside.coverage
    assert torch.equal(sample.encode(inside.model)[0], sample.encode(outside.model)[0])


def test_a_half_precision_model_stays_half_precision(fresh, sample) -> None:
    model = fresh("vit").bfloat16()
    result = quantized(model, sample, "rtn:w8a8").model
    assert result.encode_image(sample.images.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rtn", "names no number format"),
        ("rtn:w8,alpha=1", "no option 'alpha'"),
        ("rtn:w4g257", r"group 257 is larger .*\n.* at most 256 \(the row of "),
        ("fp32", "'fp32' is the unquantized reference"),
    ],
)
def test_a_quantizer_that_makes_no_sense_is_refused(vit, sample, text, complaint) -> None:
    with pytest.raises(QuantizerError, match=complaint):
        quantized(vit, sample, text)


def test_an_unknown_method_is_suggested(vit, sample) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'rtn'"):
        quantized(vit, sample, "rnt:w8")


def calibration(images: list[Tensor], texts: list[Tensor]) -> Calibration:
    return Calibration(images=lambda: iter(images), texts=lambda: iter(texts))


@pytest.mark.parametrize(
    ("images", "texts", "complaint"),
    [
        ([], [torch.ones(1, 12).long()], "hold no images"),
        ([torch.zeros(1, 3, 32, 32)], [], "hold no texts"),
        ([torch.zeros(3, 32, 32)], [], "batch of images"),
        ([torch.zeros(0, 3, 32, 32)], [], "batch of images"),
        ([torch.zeros(1, 3, 32, 32).byte()], [], "batch of images"),
        ([torch.zeros(1, 3, 32, 32)], [torch.ones(1, 12)], "batch of texts"),
        ([torch.full((1, 3, 32, 32), torch.nan)], [torch.ones(1, 12).long()], "conv1 reaches"),
        ([torch.zeros(1, 3, 16, 16)], [torch.ones(1, 12).long()], "cannot encode"),
    ],
)
def test_bad_calibration_data_are_refused(vit, images, texts, complaint) -> None:
    with pytest.raises(QuantizerError, match=complaint):
        quantize(vit, QuantizerSpec.parse("rtn:w8a8"), calibration(images, texts))


def test_one_tower_needs_only_its_own_data(vit, sample) -> None:
    images = calibration([sample.images], [])
    assert quantize(vit, QuantizerSpec.parse("rtn:w8a8@vision"), images).coverage.share == 1.0
    texts = calibration([], [sample.texts])
    assert quantize(vit, QuantizerSpec.parse("rtn:w8a8@text"), texts).coverage.share == 1.0


def test_a_layer_that_never_ran_has_no_static_range_but_a_dynamic_one(fresh, sample) -> None:
    model = fresh("vit")
    model.visual.idle = nn.Linear(4, 4)
    with pytest.raises(QuantizerError, match=r"visual\.idle never ran"):
        quantized(model, sample, "rtn:w8a8")
    assert quantized(model, sample, "rtn:w8a8d").coverage.share == 1.0


def test_a_dead_tower_is_quantized_to_finite_features(fresh, sample) -> None:
    model = fresh("vit")
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.zero_()
    features = quantized(model, sample, "rtn:w8a8").model.encode_image(sample.images)
    assert torch.equal(features, torch.zeros_like(features))


def test_an_error_of_a_method_names_quantizer_and_cause(vit, sample, method) -> None:
    @method("broken")
    def broken(model, spec, calibration):
        raise ZeroDivisionError("by design")

    with pytest.raises(QuantizerError, match="'broken@text' failed: ZeroDivisionError") as caught:
        quantized(vit, sample, "broken@text")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("returned", [None, NotImplemented, nn.Linear(2, 2), 7])
def test_a_method_must_return_a_clip(vit, sample, method, returned: object) -> None:
    method("wrong")(lambda model, spec, calibration: returned)
    with pytest.raises(QuantizerError, match="not a CLIP model"):
        quantized(vit, sample, "wrong")


def test_a_method_that_touches_the_original_is_caught(fresh, sample, method) -> None:
    for go_around in (False, True):
        original = fresh("vit")

        @method(f"vandal-{go_around}".lower())
        def vandal(model, spec, calibration, original=original, go_around=go_around):
            weight = original.visual.conv1.weight
            (weight.data if go_around else weight).mul_(0.5)
            return model

        with pytest.raises(QuantizerError, match="changed the caller's model"):
            quantized(original, sample, f"vandal-{go_around}".lower())


def test_a_foreign_method_has_unreported_coverage(vit, sample, method) -> None:
    @method("foreign")
    def foreign(model, spec, calibration):
        model.visual.conv1.weight.mul_(0.9)
        return model

    coverage = quantized(vit, sample, "foreign").coverage
    assert coverage.share is None
    assert coverage.macs_quantized is None
    assert coverage.macs_total > 0
    assert coverage.to_plain()["share"] is None


def test_a_method_with_our_modules_that_covers_nothing_is_an_error(vit, sample, method) -> None:
    from clipq.quant.modules import quantized_twin

    @method("hollow")
    def hollow(model, spec, calibration):
        model.visual.idle = quantized_twin(nn.Linear(2, 2), torch.zeros(2, 2), None)
        return model

    with pytest.raises(QuantizerError, match="quantized nothing that runs"):
        quantized(vit, sample, "hollow")


def test_a_weight_used_behind_its_module_is_uncovered_by_name(fresh, sample, method) -> None:
    model = fresh("vit")

    @method("sly")
    def sly(model, spec, calibration):
        model = quantizers.get("rtn")(model, QuantizerSpec.parse("rtn:w8"), calibration)
        layer = model.visual.transformer.resblocks[0].mlp.c_fc
        layer.forward = lambda x: x  # never counted below: the block is bypassed
        mlp = model.visual.transformer.resblocks[0].mlp
        mlp.forward = lambda x: mlp.c_proj(
            mlp.gelu(nn.functional.linear(x, layer.weight, layer.bias))
        )
        return model

    coverage = quantized(model, sample, "sly").coverage
    assert coverage.uncovered == ("visual.transformer.resblocks.0.mlp.c_fc.weight",)
    assert 0.5 < coverage.share < 1.0


def test_version_and_code_identify_a_method(method, tmp_path: Path, monkeypatch) -> None:
    spec = QuantizerSpec.parse("rtn:w8")
    assert method_version(spec) == 1
    builtin = method_code_hash(spec)
    assert len(builtin) == 64
    assert builtin == method_code_hash(QuantizerSpec.parse("rtn:w4"))

    source = tmp_path / "foreign_quantizer.py"
    hashes = set()
    for body in ("return model", "return  model"):
        source.write_text(f"def mine(model, spec, calibration):\n    {body}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        quantizers.register_lazy("mine", "foreign_quantizer:mine")
        hashes.add(method_code_hash(QuantizerSpec.parse("mine")))
        assert method_version(QuantizerSpec.parse("mine")) == 1
        quantizers.remove("mine")
    assert len(hashes | {builtin}) == 3


def test_a_method_without_a_source_file_has_no_identity(method) -> None:
    namespace: dict = {"__name__": "nowhere"}
    exec("def typed(model, spec, calibration): return model", namespace)
    method("typed")(namespace["typed"])
    with pytest.raises(QuantizerError, match=r"source .* cannot be found"):
        method_code_hash(QuantizerSpec.parse("typed"))
