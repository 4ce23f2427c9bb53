"""torch runs exported programs and compiled packages; a file is judged without being opened."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError
from clipq.runtimes import TowerPorts, runtimes
from clipq.runtimes.aoti_package import AotiPackage
from clipq.testing.models import small_clip

RUNTIME = runtimes.get("torch-export")
IMAGE, TEXT = TowerPorts("image"), TowerPorts("text")
BATCH = torch.export.Dim("batch", min=1, max=64)
PIXELS = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
TOKENS = np.random.default_rng(0).integers(1, 50, (3, 12))


class Tower(nn.Module):
    def __init__(self, encode):
        super().__init__()
        self.encode = encode

    def forward(self, taken):
        return self.encode(taken)


class Hugging(nn.Module):
    """Takes names and a mask, returns a dictionary, as Hugging Face's models do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 5, bias=False)

    def forward(self, input_ids, attention_mask=None, scale=2):
        hidden = self.layer((input_ids * attention_mask).float()) * scale
        return {"text_embeds": hidden, "hidden": hidden[:, None]}


def saved(path, module, taken, *, shapes=None, named=None):
    with torch.no_grad():
        program = torch.export.export(
            module.eval(), taken, named, dynamic_shapes=shapes, strict=False
        )
    torch.export.save(program, path)
    return program


@pytest.fixture(scope="module")
def clip():
    return small_clip("vit")


@pytest.fixture(scope="module")
def towers(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    image, text = torch.from_numpy(PIXELS[:2]), torch.from_numpy(TOKENS[:2])
    model = Tower(clip.encode_image)
    model.model = clip  # holds the weights
    saved(folder / "image.pt2", model, (image,), shapes={"taken": {0: BATCH}})
    model.encode = clip.encode_text
    saved(folder / "text.pt2", model, (text,))
    return folder


@pytest.fixture(scope="module")
def hugging(tmp_path_factory):
    path = tmp_path_factory.mktemp("hugging") / "text.pt2"
    # Two tensors: of one that is given twice, torch.export makes one input.
    ids, mask = (torch.ones(2, 4, dtype=torch.int64) for _ in range(2))
    free = {"input_ids": {0: BATCH}, "attention_mask": {0: BATCH}, "scale": None}
    module = Hugging()
    named = {"input_ids": ids, "attention_mask": mask, "scale": 3}
    saved(path, module, (), shapes=free, named=named)
    return path, module


def opened(path, ports=IMAGE, **session):
    return RUNTIME.open(path, ports, SessionSettings(**session))


def told(call, *args, **kwargs):
    with pytest.raises(ArtifactError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_a_program_answers_as_the_model_that_it_was_exported_from(clip, towers):
    tower = opened(towers / "image.pt2", precision="f32")
    assert (tower.facts.batch, tower.facts.precision) == (0, "f32")
    assert tower.facts.said["batch_range"] == [1, 64]
    for batch in (PIXELS, PIXELS[:1]):
        with torch.no_grad():
            expected = clip.encode_image(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(tower.run({"input": batch}), expected, atol=1e-5)
    too_many = np.zeros((65, 3, 32, 32), np.float32)
    assert "1 to 64 samples at a time, but is given 65" in told(tower.run, {"input": too_many})
    fixed = opened(towers / "text.pt2", TEXT)
    assert fixed.facts.batch == 2
    with torch.no_grad():
        expected = clip.encode_text(torch.from_numpy(TOKENS[:2])).numpy()
    np.testing.assert_allclose(fixed.run({"input": TOKENS[:2]}), expected, atol=1e-5)
    assert "call it with 2 samples" in told(fixed.run, {"input": TOKENS})


def test_a_program_is_judged_without_being_opened(towers):
    look = RUNTIME.look(towers / "image.pt2")
    # Two blocks of query-key-value, output and two layers of the MLP; the projection; patches.
    assert look.in_float == {"conv2d": 1, "linear": 8, "matmul": 1}
    assert look.quantized == {}
    assert [port.shape for port in look.inputs] == [(-1, 3, 32, 32)]
    findings = RUNTIME.look(towers / "text.pt2").findings
    assert [(each.kind, each.wrong) for each in findings] == [("mask", False)]


def test_integer_weights_are_counted_and_infinite_ones_are_wrong(tmp_path):
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("held", torch.ones(4, 4, dtype=torch.int8))
            self.layer = nn.Linear(4, 4)
            self.layer.weight.data[0, 1] = torch.inf

        def forward(self, taken):
            return self.layer(taken @ self.held.t().to(taken.dtype))

    saved(tmp_path / "narrow.pt2", Narrow(), (torch.ones(2, 4),))
    look = RUNTIME.look(tmp_path / "narrow.pt2")
    assert (look.quantized, look.in_float) == ({"matmul with int8 weights": 1}, {"linear": 1})
    (finding,) = look.findings
    assert (finding.kind, finding.wrong) == ("non-finite-weights", True)
    assert "'layer.weight' holds 1 of 16" in finding.problem


def test_inputs_and_outputs_have_the_names_that_a_caller_gives(hugging):
    path, module = hugging
    ports = TowerPorts("text", "input_ids", "attention_mask", "text_embeds")
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0]])
    given = {"input": np.arange(8).reshape(2, 4), "mask": mask}
    weight = module.layer.weight.detach().numpy()
    expected = (given["input"] * mask).astype(np.float32) @ weight.T * 3
    np.testing.assert_allclose(opened(path, ports).run(given), expected, rtol=1e-5)
    assert "has 2 inputs and io names none" in told(opened, path, TEXT)
    masked = TowerPorts("text", mask="attention_mask")
    assert "has 2 outputs and io names none" in told(opened, path, masked)
    hidden = TowerPorts("text", "input_ids", "attention_mask", "hidden")
    assert "is not features (B, D)" in told(opened, path, hidden)


@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor compiles C++")
def test_a_compiled_package_answers_as_its_program_and_is_given_only_what_it_takes(
    tmp_path,
):
    path, package = tmp_path / "program.pt2", tmp_path / "text.pt2"
    ids, mask = (torch.ones(2, 4, dtype=torch.int64) for _ in range(2))
    free = {"input_ids": {0: BATCH}, "attention_mask": {0: BATCH}}
    named = {"input_ids": ids, "attention_mask": mask}
    program = saved(path, Hugging(), (), shapes=free, named=named)
    torch._inductor.aoti_compile_and_package(program, package_path=str(package))
    ports = TowerPorts("text", "input_ids", "attention_mask", "text_embeds")
    tower, of_program = opened(package, ports, threads=1), opened(path, ports)
    given = {"input": np.arange(12).reshape(3, 4), "mask": np.ones((3, 4), np.int64)}
    for size in (1, 3):
        some = {name: array[:size] for name, array in given.items()}
        np.testing.assert_allclose(tower.run(some), of_program.run(some), rtol=1e-5)
    assert tower.facts.precision == "f32"
    # The library itself would read beyond the end of these.
    shorter = {name: array[:, :2] for name, array in given.items()}
    assert "for 2 tokens" in told(tower.run, shorter)
    narrow = {**given, "input": given["input"].astype(np.int32)}
    assert 'text_dtype = "int64"' in told(tower.run, narrow)
    assert [each.kind for each in RUNTIME.look(package).findings] == ["machine-code"]


def packed(path, metadata, *, source="", library="x.so"):
    with zipfile.ZipFile(path, "w") as archive:
        folder = "text/data/aotinductor/model/"
        archive.writestr(folder + "x.wrapper.cpp", source)
        archive.writestr(folder + "x.wrapper_metadata.json", json.dumps(metadata))
        archive.writestr(folder + library, "machine code")
    return path


def test_a_package_for_another_machine_is_refused_before_it_ends_the_process(tmp_path):
    path = packed(tmp_path / "a.pt2", {"AOTI_PLATFORM": "plan9", "AOTI_MACHINE": "pdp11"})
    assert "was compiled for plan9 pdp11" in told(opened, path)
    path = packed(tmp_path / "b.pt2", {"AOTI_DEVICE_KEY": "tpu"})
    assert "torch has no device 'tpu'" in told(opened, path)
    path = packed(tmp_path / "c.pt2", {"AOTI_CPU_ISA": "AVX1024 AMX_TENSOR"})
    assert "avx1024, amx_tensor, which this one lacks" in told(AotiPackage(path).check_machine)
    assert "holds no source" in told(opened, packed(tmp_path / "d.pt2", {}))
    leaf = {"type": None, "context": None, "children_spec": []}
    both = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf, leaf]}
    none = {"type": "builtins.dict", "context": "[]", "children_spec": []}
    taken = {"type": "builtins.tuple", "context": "null", "children_spec": [both, none]}
    trees = {"in": json.dumps([1, taken]), "out": json.dumps([1, leaf])}
    source = "".join(f'{name}_spec_ = R"({tree})";\n' for name, tree in trees.items())
    said = told(opened, packed(tmp_path / "f.pt2", {}, source=source))
    assert "with 2 inputs, of which 0 are tensors" in said
    path = packed(tmp_path / "e.pt2", {}, library="x.txt")
    assert "no compiled model" in told(opened, path)


def test_what_is_no_program_is_named(towers, tmp_path):
    whole = (towers / "text.pt2").read_bytes()
    path = tmp_path / "text.pt2"
    path.write_bytes(whole[: len(whole) // 2])
    for call in (opened, RUNTIME.look):
        assert "truncated zip archive" in told(call, path)
    start = whole.index(b"weight_1") + 300
    path.write_bytes(whole[:start] + bytes(50) + whole[start + 50 :])  # torch would load it
    for call in (opened, RUNTIME.look):
        assert "is not what was written" in told(call, path)
    torch.save({}, path)
    assert "is a file of torch.save or TorchScript" in told(opened, path)
    path.write_bytes(b"\x08\x0a\x12\x07pytorch")
    assert 'run by runtime = "onnxruntime"' in told(opened, path)


def test_a_session_asks_for_what_torch_can_do(towers):
    path = towers / "image.pt2"
    assert "in f32, as it was exported, not in bf16" in told(opened, path, precision="bf16")
    assert "known: cpu" in told(opened, path, provider="tpu")
    assert "has no option 'mkldnn'" in told(opened, path, options={"mkldnn": True})
    assert "swap" in told(opened, path, TEXT)
