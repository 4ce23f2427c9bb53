"""Kernels in the place of modules: the same numbers, named in records and cache keys."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from open_clip.transformer import QuickGELU

from clipq.kernels.device import use_interpreter

if not torch.cuda.is_available():
    use_interpreter()

from clipq.errors import SettingsError
from clipq.evaluation import acceleration
from clipq.evaluation.acceleration import accelerate, backend_of
from clipq.quant import quantize
from clipq.quant.transforms.hadamard import HadamardRotation
from clipq.settings import Settings
from clipq.testing import SmallInputs, small_clip

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def settings(backend, tmp_path):
    return Settings(tmp_path / "clipq.toml", (), (), (), backend=backend)


@pytest.mark.parametrize(
    ("quantizer", "kinds"),
    [
        ("rtn:w8a8", {"StaticQuantizer by kernel"}),
        ("rtn:w8a8z", {"StaticQuantizer by kernel"}),
        ("rtn:w4a8d", {"DynamicQuantizer by kernel"}),
        ("rtn:w4g16za8d", {"DynamicQuantizer by kernel"}),
        ("quarot:w4a8", {"StaticQuantizer by kernel"}),
        ("rtn:w8a8,compute=integer", {"IntegerLinear by kernel", "StaticQuantizer by kernel"}),
        ("rtn:w8a8z,compute=integer", {"IntegerLinear by kernel", "StaticQuantizer by kernel"}),
        ("rtn:wmxfp4amxfp8", {"DynamicQuantizer by reference"}),
    ],
)
def test_a_model_computes_the_same_by_kernels(quantizer, kinds):
    inputs = SmallInputs()
    found = quantize(small_clip("vit"), quantizer_spec(quantizer), inputs.calibration).model
    wanted = inputs.encode(found)
    moved = copy.deepcopy(found).to(DEVICE)
    counts = accelerate(moved, "triton 3.9")
    assert kinds <= set(counts), counts
    assert all(count > 0 for count in counts.values())
    with torch.inference_mode():
        mine = (
            moved.encode_image(inputs.images.to(DEVICE)),
            moved.encode_text(inputs.texts.to(DEVICE)),
        )
    for one, other in zip(mine, wanted, strict=True):
        error = float((one.cpu() - other).norm() / other.norm())
        # A value at the edge of two codes may fall either way after sums in another order.
        assert error < (0.05 if "integer" in quantizer or "quarot" in quantizer else 1e-5), error


def quantizer_spec(text):
    from clipq.quant import QuantizerSpec

    return QuantizerSpec.parse(text)


@pytest.mark.parametrize("size", [64, 96, 768])
@pytest.mark.parametrize("overlapping", [False, True])
def test_rotations_are_the_same(size, overlapping):
    rotation = HadamardRotation(
        size, generator=torch.Generator().manual_seed(0), overlapping=overlapping
    )
    x = torch.randn(5, size, generator=torch.Generator().manual_seed(1))
    moved = copy.deepcopy(rotation).to(DEVICE)
    assert accelerate(torch.nn.Sequential(moved), "triton 3.9") == {"HadamardRotation by kernel": 1}
    torch.testing.assert_close(moved(x.to(DEVICE)).cpu(), rotation(x))
    torch.testing.assert_close(moved.rotate_back(x.to(DEVICE)).cpu(), rotation.rotate_back(x))


def mlps(model):
    return [m for m in model.modules() if isinstance(m, torch.nn.Sequential) and hasattr(m, "gelu")]


@pytest.mark.parametrize("quick", [False, True])
def test_activations_are_part_of_integer_products(quick):
    inputs = SmallInputs()
    model = small_clip("vit")
    if quick:
        for block in mlps(model):
            block.gelu = QuickGELU()
    spec = quantizer_spec("rtn:w8a8z,compute=integer")
    found = quantize(model, spec, inputs.calibration).model
    moved = copy.deepcopy(found).to(DEVICE)
    counts = accelerate(moved, "triton 3.9")
    blocks = mlps(moved)
    assert counts["activations fused"] == len(blocks) > 0
    assert all(isinstance(block.gelu, torch.nn.Identity) for block in blocks)
    x = torch.randn(5, blocks[0].c_fc.in_features, generator=torch.Generator().manual_seed(0))
    plain = mlps(found)[0]
    wanted = plain.gelu(plain.c_fc(x))
    with torch.inference_mode():
        torch.testing.assert_close(blocks[0].gelu(blocks[0].c_fc(x.to(DEVICE))).cpu(), wanted)
    traced = blocks[0].c_fc(x.to(DEVICE).requires_grad_())  # the simulated path activates as well
    torch.testing.assert_close(traced.cpu(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quantizer", ["rtn:w8a8", "rtn:w8a8,compute=integer"])
def test_gradients_pass_through(quantizer):
    inputs = SmallInputs()
    found = quantize(small_clip("vit"), quantizer_spec(quantizer), inputs.calibration).model
    moved = copy.deepcopy(found).to(DEVICE)
    accelerate(moved, "triton 3.9")
    gradients = []
    for model, device in ((found, "cpu"), (moved, DEVICE)):
        images = inputs.images[:2].to(device).requires_grad_()
        (gradient,) = torch.autograd.grad(model.encode_image(images).sum(), images)
        gradients.append(gradient.cpu())
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_nothing_changes_without_kernels():
    inputs = SmallInputs()
    found = quantize(small_clip("vit"), quantizer_spec("rtn:w8a8"), inputs.calibration).model
    before = [type(module) for module in found.modules()]
    for backend in ("", "reference", "reference (no)"):
        assert accelerate(found, backend) == {}
    assert [type(module) for module in found.modules()] == before


def test_the_backend_is_named_and_a_demand_is_kept(tmp_path, monkeypatch):
    assert backend_of(settings("auto", tmp_path), "cpu") == ""
    assert backend_of(settings("reference", tmp_path), "cuda:0") == "reference"
    monkeypatch.setattr(acceleration, "unusable", lambda place: "too old")
    assert backend_of(settings("auto", tmp_path), "cuda:0") == "reference (too old)"
    with pytest.raises(SettingsError, match="backend = 'triton' on cuda:0: too old"):
        backend_of(settings("triton", tmp_path), "cuda:0")
    monkeypatch.setattr(acceleration, "unusable", lambda place: "")
    assert backend_of(settings("auto", tmp_path), "cuda:0").startswith("triton ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU nothing is refused")
def test_a_gate_by_kernels_says_so(project):
    """The interpreter is slow: one quantizer of the text tower is enough."""
    project.settings(quantizers=("rtn:w8a8@text",), extra='backend = "triton"')
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    refused = gate(project, plain)
    assert "backend = 'triton' on cpu: the CPU runs kernels by" in refused.stdout
    assert refused.returncode == 1
    done = gate(project, plain | {"TRITON_INTERPRET": "1"})
    assert done.returncode == 0, done.stdout
    record = json.loads((project.root / ".clipq" / "report" / "report.json").read_text())
    (environment,) = record["evidence"]["environments"].values()
    assert environment["kernels"].startswith("triton ")
    assert environment["kernels"].endswith("(interpreted)")
    (quantizer,) = record["evidence"]["quantizers"].values()
    assert quantizer["kernels"]["StaticQuantizer by kernel"] > 0
    assert "StaticQuantizer by kernel" in done.stdout


def gate(project, environment):
    return subprocess.run(
        [sys.executable, "-m", "clipq", "gate", "-n0"],
        cwd=project.root,
        env=environment,
        capture_output=True,
        text=True,
    )
