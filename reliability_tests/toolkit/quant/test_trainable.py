"""Models with trained rounding: gradients reach what can learn, states load, frozen is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant import Calibration, QuantizerSpec, is_trained, quantize
from clipq.quant.activations import StaticQuantizer
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear
from clipq.quant.storage import stored_bits
from clipq.quant.surgery import keeping_float_layers
from clipq.quant.trainable import Trainable, prepare
from clipq.testing import SmallInputs, small_clip

FAMILIES = ("vit", "siglip", "modified-resnet", "convnext", "coca", "eva", "swin-v2", "fastvit")
KINDS = (
    "lsq:w4a4z,init=lsq+",
    "lsq:w4g32a8,variant=absmax",
    "lsq:w4ta8d,learn=steps",
    "lsq:w4a8k8s8,init=lsq",
    "rot+lsq:w4a4,seed=3",
    "pact:w4a4",
    "dorefa:w4a8z",
)
C_FC = "visual.transformer.resblocks.0.mlp.c_fc"


def prepared(text: str, family: str = "vit", inputs: SmallInputs | None = None) -> Trainable:
    calibration = (inputs or SmallInputs()).calibration
    return prepare(small_clip(family), QuantizerSpec.parse(text), calibration)


def learnt(trainable: Trainable) -> dict[str, nn.Parameter]:
    return {**trainable.weights(), **trainable.steps()}


def encode(model: nn.Module, inputs: SmallInputs) -> list[Tensor]:
    with torch.no_grad():
        return [model.encode_image(inputs.images), model.encode_text(inputs.texts)]


def nudge(trainable: Trainable, inputs: SmallInputs) -> dict[str, Tensor]:
    """Take one step of descent in training mode; return the gradients."""
    trainable.module.train()
    image = trainable.module.encode_image(inputs.images)
    text = trainable.module.encode_text(inputs.texts)
    (image.square().mean() + text.square().mean()).backward()
    gradients = {name: p.grad for name, p in learnt(trainable).items() if p.grad is not None}
    with torch.no_grad():
        for name, parameter in learnt(trainable).items():
            gradient = gradients[name]
            size = parameter.abs().mean() / gradient.abs().mean().clamp(min=1e-12)
            change = 0.01 * size * gradient
            if name in trainable.steps():  # no gradient, however large, takes one below zero
                change = parameter.abs() * (change / parameter.abs().clamp(min=1e-12)).tanh() / 2
            parameter -= change
    trainable.module.eval()
    return gradients


@pytest.mark.parametrize(
    ("family", "text"),
    [*((family, "lsq:w4a4") for family in FAMILIES), *(("vit", text) for text in KINDS)],
)
def test_what_was_trained_is_what_is_frozen_and_what_loads(
    family: str, text: str, sample: SmallInputs
) -> None:
    trainable = prepared(text, family)
    before = {name: b.clone() for name, b in trainable.module.named_buffers()}
    gradients = nudge(trainable, sample)
    assert gradients.keys() == learnt(trainable).keys()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    reached = [bool(gradient.any()) for gradient in gradients.values()]
    assert sum(reached) >= 0.95 * len(reached)  # no number may lie beyond a clip or a code
    for name, buffer in trainable.module.named_buffers():
        assert torch.equal(buffer, before[name]), name  # batch norms keep their statistics

    features, state = encode(trainable.module, sample), trainable.state()
    other = prepared(text, family)
    other.load(state)
    for model in (trainable.frozen(), other.frozen()):
        assert all(map(torch.equal, encode(model, sample), features))


def test_a_trained_model_passes_through_every_guard_of_quantizers(
    sample: SmallInputs, vit: nn.Module
) -> None:
    trainable = prepared("lsq:w4a8")
    nudge(trainable, sample)
    calibration = replace(sample.calibration, trained=trainable.state())
    found = quantize(vit, "lsq:w4a8", calibration)
    assert found.coverage.share == found.claim.held == 1.0
    assert found.storage is not None
    assert found.storage.weight_bits == pytest.approx(4 + 32 / 64, rel=0.1)
    assert all(map(torch.equal, encode(found.model, sample), encode(trainable.module, sample)))
    layer = found.model.get_submodule(C_FC)
    assert isinstance(layer.inputs, StaticQuantizer)
    number_format = QuantizerSpec.parse("lsq:w4a8").require_format()
    assert layer.stored_bits == stored_bits(layer.weight.shape, number_format.weight)
    kinds = {type(m) for m in found.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert kinds == {QuantizedLinear, QuantizedConv2d}
    assert is_trained("lsq:w4a8")
    assert not is_trained("rtn:w4a8")


def test_nothing_learnt_is_said_with_the_command_that_learns(sample: SmallInputs) -> None:
    with pytest.raises(QuantizerError, match=r"nothing was learnt yet\n.*clipq train.*steps=0"):
        quantize(small_clip(), "lsq:w4a8", sample.calibration)


def test_learning_steps_alone_takes_kilobytes_and_leaves_weights_as_they_are(
    sample: SmallInputs, vit: nn.Module
) -> None:
    trainable = prepared("lsq:w8a8,learn=steps")
    assert trainable.weights() == {}
    assert {name for name, p in trainable.module.named_parameters() if p.requires_grad} == set(
        trainable.steps()
    )
    nudge(trainable, sample)
    assert sum(x.nbytes for x in trainable.state().values()) < 12_000
    with keeping_float_layers() as kept:
        trainable.frozen()
    assert torch.equal(kept[C_FC].weight, vit.get_submodule(C_FC).weight)


def test_weights_are_what_features_depend_on(vit: nn.Module) -> None:
    both = prepared("lsq:w4a8").weights()
    assert {"positional_embedding", "token_embedding.weight", "visual.ln_pre.bias"} <= both.keys()
    assert "logit_scale" not in both
    vision = prepared("lsq:w4a8@vision")
    assert all(name.startswith("visual.") for name in learnt(vision))
    assert not any("text_decoder" in name for name in prepared("lsq:w4a8", "coca").weights())


def test_queries_keys_and_values_share_the_step_of_the_one_layer_they_were(
    sample: SmallInputs,
) -> None:
    trainable = prepared("lsq:w4a8")
    block = "visual.transformer.resblocks.0.attn"
    names = {name for name in trainable.steps() if name.startswith(block) and ".inputs." in name}
    assert names == {f"{block}.inputs.step", f"{block}.out_proj.inputs.step"}
    apart = prepared("lsq:w4a8,exclude=*0.attn.q_proj")
    assert f"{block}.k_proj.inputs.step" in apart.steps()
    model = trainable.frozen()
    scales = [model.get_submodule(f"{block}.{x}_proj").inputs.scale for x in "qkv"]
    assert scales[0] == scales[1] == scales[2]


def test_activation_steps_begin_at_the_papers_mean_over_the_first_batch() -> None:
    inputs = SmallInputs(count=6)  # two batches
    seen: list[Tensor] = []
    model = small_clip()
    layer = model.get_submodule(C_FC)
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    encode(model, replace_images(inputs))
    hook.remove()
    trainable = prepared("lsq:w4a6,init=lsq", inputs=inputs)
    step = trainable.steps()[f"{C_FC}.inputs.step"]
    assert float(step.detach()) == pytest.approx(float(2 * seen[0].abs().mean() / 31**0.5))
    rounder = trainable.module.get_submodule(f"{C_FC}.inputs")
    assert rounder.share == pytest.approx((17 * 64 * 31) ** -0.5)


def replace_images(inputs: SmallInputs) -> SmallInputs:
    first = copy.copy(inputs)
    object.__setattr__(first, "images", next(iter(inputs.calibration.images())))
    return first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lsq:w4za8", "LSQ cannot train weights"),
        ("lsq:wnf4a8", "LSQ cannot train weights"),
        ("lsq:w4pa8", "w4, w4t or w4g32"),
        ("rot+lsq:wmxfp4amxfp8", "LSQ cannot train weights"),
        ("lsq:w4ae4m3", "LSQ cannot round inputs"),
        ("lsq:w4a8p", "a8z with an offset"),
        ("pact:w4", "no one clip"),
        ("pact:w4a8d", "no one clip"),
        ("dorefa:w4a8,learn=steps", "has none to learn"),
        ("lsq:w4,variant=absmax,learn=steps", "has none to learn"),
        ("lsq:w4a8,variant=absmax,init=lsq", "init='lsq'"),
        ("lsq:w4a8,wrange=mse", "no option 'wrange'"),
        ("lsq:w4a8,learn=scales", "learn='scales'"),
        ("lsq:w4a8,include=nothing", "matches no layer"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_what_can(text: str, said: str) -> None:
    with pytest.raises(QuantizerError) as refused:
        prepared(text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s.pop("visual.conv1.rounding.step"), "lacks visual.conv1.rounding.step"),
        (lambda s: s.update(more=torch.zeros(1)), "holds more"),
        (lambda s: s["visual.conv1.rounding.step"].mul_(torch.nan), "is not finite"),
        (lambda s: s["visual.conv1.rounding.step"][3].mul_(-1), "holds a step of -"),
        (
            lambda s: s.update({"visual.conv1.weight": torch.zeros(2, 2)}),
            r"is (2, 2) torch.float32",
        ),
        (
            lambda s: s.update({"visual.conv1.weight": s["visual.conv1.weight"].int()}),
            "torch.int32",
        ),
    ],
    ids=["missing", "left-over", "nan", "negative", "shape", "dtype"],
)
def test_a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing(
    spoil: Callable[[dict[str, Tensor]], object], said: str
) -> None:
    trainable = prepared("lsq:w4a8@vision")
    state = trainable.state()
    spoil(state)
    before = trainable.state()
    with pytest.raises(QuantizerError) as refused:
        trainable.load(state)
    assert said in str(refused.value)
    assert all(torch.equal(x, before[name]) for name, x in trainable.state().items())


def test_steps_that_collapse_are_named_and_never_frozen() -> None:
    trainable = prepared("lsq:w4a8z")
    assert trainable.collapsed() == []
    with torch.no_grad():
        trainable.steps()["visual.conv1.rounding.step"][[2, 5]] = -0.003
        trainable.steps()[f"{C_FC}.inputs.step"].fill_(torch.nan)
        trainable.steps()[f"{C_FC}.inputs.offset"].zero_()  # an offset may be anything finite
        trainable.steps()["text_projection.inputs.step"].mul_(1e4)
    found = trainable.collapsed()
    assert [line.partition(":")[0] for line in found] == [
        "visual.conv1.rounding.step[2]",
        f"{C_FC}.inputs.step",
        "text_projection.inputs.step",
    ]
    assert ": -0.003, began at 0" in found[0]
    assert found[0].endswith("and 1 more of its 64")
    with pytest.raises(QuantizerError, match=r"3 learnt steps have collapsed: visual\.conv1"):
        trainable.frozen()


@pytest.mark.parametrize("family", ["vit", "siglip", "modified-resnet", "convnext", "coca"])
def test_thirty_steps_of_training_halve_the_error_of_rounding_to_nearest(family: str) -> None:
    inputs = SmallInputs(count=16)
    model = small_clip(family)
    with torch.no_grad():
        exact = model.encode_image(inputs.images)

    def loss(found: nn.Module) -> Tensor:
        return (found.encode_image(inputs.images) - exact).square().mean()

    nearest = float(loss(quantize(model, "rtn:w3a4@vision", inputs.calibration).model).detach())
    trainable = prepared("lsq:w3a4@vision", family, inputs)
    optimiser = torch.optim.Adam(learnt(trainable).values(), lr=1e-3)
    for _ in range(30):
        optimiser.zero_grad()
        loss(trainable.module).backward()
        optimiser.step()
    assert trainable.collapsed() == []
    assert float(loss(trainable.frozen()).detach()) < 0.5 * nearest


def test_training_runs_under_autocast_and_sees_each_sample_by_itself(sample: SmallInputs) -> None:
    trainable = prepared("lsq:w4a8")
    model = trainable.module
    with torch.autocast("cpu", torch.bfloat16):
        features = model.encode_image(sample.images)
        features.float().square().mean().backward()
    assert features.dtype == torch.bfloat16
    assert all(p.grad.isfinite().all() for n, p in learnt(trainable).items() if "visual" in n)
    exact = encode(model, sample)[0]
    similar = torch.nn.functional.cosine_similarity(features.detach().float(), exact)
    assert similar.min() > 0.98
    with torch.no_grad():
        alone = torch.cat([model.encode_image(x[None]) for x in sample.images])
    assert torch.allclose(alone, exact, atol=1e-5)


def test_a_model_of_half_precision_is_rounded_with_float32_steps(sample: SmallInputs) -> None:
    inputs = SmallInputs()
    model = small_clip().bfloat16()
    trainable = prepare(model, QuantizerSpec.parse("lsq:w8a8@vision"), inputs.calibration)
    assert {p.dtype for p in trainable.steps().values()} == {torch.float32}
    images = inputs.images.bfloat16()
    trainable.module.encode_image(images).float().sum().backward()
    with torch.no_grad():
        features = trainable.module.encode_image(images)
        assert torch.equal(trainable.frozen().encode_image(images), features)


def test_an_attention_called_with_several_tensors_is_refused(sample: SmallInputs) -> None:
    attention = prepared("lsq:w4a8").module.visual.transformer.resblocks[0].attn
    values = torch.zeros(1, 3, 64)
    with pytest.raises(QuantizerError, match="calibrated with one tensor"):
        attention(values, values.clone(), values, need_weights=False)


def test_calibration_that_shows_nothing_is_refused() -> None:
    inputs = SmallInputs()
    nothing = Calibration(images=lambda: iter(()), texts=inputs.calibration.texts)
    with pytest.raises(QuantizerError, match="hold no images"):
        prepare(small_clip(), QuantizerSpec.parse("lsq:w4a8"), nothing)
    images = inputs.images.clone()
    images[0, 0, 0, 0] = torch.inf
    infinite = Calibration(images=lambda: iter([images]), texts=inputs.calibration.texts)
    with pytest.raises(QuantizerError, match=r"visual\.conv1 is not finite"):
        prepare(small_clip(), QuantizerSpec.parse("lsq:w4a8"), infinite)
