"""What a quantizer is said to depend on is what changes its result, and nothing else."""

from __future__ import annotations

import pytest
import torch

from clipq.quant.methods import find_method, quantizers
from clipq.quant.randomness import calibrates, draws
from clipq.quant.spec import QuantizerSpec
from clipq.study.configurations import configuration
from clipq.testing import SmallInputs, small_clip

SEEDED = ("noise:w4", "quarot:w4", "raana,bits=3", "gptq:w4,rotation=hadamard",
          "smoothquant:w4a4d,rotation=hadamard", "rot+lsq:w4,steps=0")  # fmt: skip
TEXTS = (
    *SEEDED,
    *("rtn:w4", "rtn:w4a4", "rtn:w4a4d", "rtn:we4m3ae4m3", "rtn:wmxfp4amxfp8", "rtn:w8a8k8s8"),
    *("rtn:w4,bias=correct", "rtn:w4,ends=float", "rtn:w4k8s8"),
    *("quarot:w4a8d", "quarot:w4a4", "smoothquant:w4a4d", "gptq:w4", "awq:w4g32"),
    *("lsq:w4,steps=0", "lsq:w4a4,steps=0", "pact:w4a4,steps=0", "dorefa:w4a4,steps=0"),
)


def features(text, *, seed=None, data=0):
    spec = QuantizerSpec.parse(text if seed is None else f"{text},seed={seed}")
    torch.manual_seed(0)
    model = small_clip()
    with torch.no_grad():
        made = find_method(spec)(model, spec, SmallInputs(count=6, seed=10 + data).calibration)
    return torch.cat(SmallInputs(count=4).encode(made))


@pytest.mark.parametrize("text", TEXTS)
def test_other_calibration_data_change_a_result_where_it_is_said(text):
    same = torch.equal(features(text), features(text, data=1))
    assert same is not calibrates(text)


@pytest.mark.parametrize("text", SEEDED)
def test_another_seed_changes_what_is_said_to_draw(text):
    assert draws(text)
    assert not torch.equal(features(text, seed=1), features(text, seed=2))


@pytest.mark.parametrize("text", [text for text in TEXTS if not draws(text)])
def test_what_is_said_to_draw_nothing_is_the_same_twice_whatever_was_drawn_before(text):
    before = features(text)
    torch.rand(17)
    assert torch.equal(features(text), before)


def test_what_is_said_before_a_method_is_imported_is_what_it_says():
    for name in quantizers.names():
        if not quantizers.origin(name).startswith("clipq.quant."):
            continue
        lazily = quantizers._said[name]
        method = quantizers.get(name)
        for attribute, default in (("draws", False), ("calibrates", True), ("trains", False)):
            assert lazily.get(attribute, default) is getattr(method, attribute, default), name


def test_the_study_counts_seeds_of_the_methods_that_draw():
    for name in quantizers.names():
        if not quantizers.said(name, "trains", False):  # of which its records say that they learnt
            assert configuration(f"{name}:w8a8")[0].draws is draws(f"{name}:w8a8"), name


def test_a_method_that_says_nothing_is_taken_to_read_data_and_to_draw_nothing(monkeypatch):
    for held in ("_objects", "_origins"):
        monkeypatch.setattr(quantizers, held, dict(getattr(quantizers, held)))
    quantizers.register("mine")(lambda model, spec, calibration: model)
    assert (draws("mine"), calibrates("mine")) == (False, True)
    quantizers.register("drawn", draws=True, calibrates=False)(lambda model, spec, _: model)
    assert (draws("drawn"), calibrates("drawn")) == (True, False)
    assert calibrates("drawn:w8a8")
