"""ExecuTorch answers as the module that was exported, and its files are judged without it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError
from clipq.runtimes import TowerPorts, runtimes

pytest.importorskip("executorch.runtime")
from executorch.exir import to_edge

RUNTIME = runtimes.get("executorch")
IMAGE, TEXT = TowerPorts("image"), TowerPorts("text")
PIXELS = np.random.default_rng(0).standard_normal((3, 3, 4, 4)).astype(np.float32)


def exported(path, module, *, shapes=None):
    program = torch.export.export(module, (torch.ones(2, 3, 4, 4),), dynamic_shapes=shapes)
    path.write_bytes(to_edge(program).to_executorch().buffer)
    return path


@pytest.fixture(scope="module")
def module():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval()


@pytest.fixture(scope="module")
def files(module, tmp_path_factory):
    folder = tmp_path_factory.mktemp("executorch")
    free = ({0: torch.export.Dim("batch", min=1, max=8)},)
    return exported(folder / "fixed.pte", module), exported(
        folder / "free.pte", module, shapes=free
    )


def told(call, *args, **kwargs):
    with pytest.raises(ArtifactError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def opened(path, ports=IMAGE, **session):
    return RUNTIME.open(path, ports, SessionSettings(**session))


def test_a_program_answers_as_its_module_at_the_batch_that_it_takes(files, module):
    with torch.no_grad():
        expected = module(torch.from_numpy(PIXELS)).numpy()
    fixed, free = (opened(path, threads=1, precision="f32") for path in files)
    np.testing.assert_allclose(fixed.run({"input": PIXELS[:2]}), expected[:2], atol=1e-5)
    assert (fixed.facts.batch, fixed.facts.precision, fixed.facts.provider) == (
        *(2, "f32", "portable"),
    )
    assert "call it with 2 samples" in told(fixed.run, {"input": PIXELS})
    assert (free.facts.batch, free.facts.said["batch_range"]) == (0, [1, 8])
    for size in (1, 3):
        features = free.run({"input": PIXELS[:size]})
        np.testing.assert_allclose(features, expected[:size], atol=1e-5)
    too_many = np.zeros((9, 3, 4, 4), np.float32)
    assert "1 to 8 samples at a time" in told(free.run, {"input": too_many})


def test_a_file_says_what_executorch_says_of_it(files):
    from executorch.runtime import Runtime

    for path, free in zip(files, (False, True), strict=True):
        look = RUNTIME.look(path)
        meta = Runtime.get().load_program(path).metadata("forward")
        sizes = tuple(meta.input_tensor_meta(0).sizes())
        assert look.inputs[0].shape == ((-1, *sizes[1:]) if free else sizes)
        assert look.inputs[0].dtype == "float32"
        assert look.outputs[0].shape == (-1 if free else 2, 5)
        assert look.in_float == {"addmm": 1}
        assert [each.kind for each in look.findings] == ([] if free else ["fixed-batch"])
        assert RUNTIME.sidecars(path) == ()


def test_what_is_no_program_or_is_asked_of_it_in_vain_is_said(files, tmp_path):
    whole, path = files[0].read_bytes(), tmp_path / "image.pte"
    path.write_bytes(whole[:-40])
    for call in (opened, RUNTIME.look, RUNTIME.sidecars):
        assert "is truncated: it has" in told(call, path)
    path.write_bytes(whole[:60] + b"\xff" * (len(whole) - 60))
    for call in (opened, RUNTIME.look):
        assert "is damaged" in told(call, path)
    path.write_bytes(b"PK\x05\x06" + bytes(18))
    assert "is a zip archive" in told(opened, path)
    assert "exported for portable, not for 'CoreML'" in told(opened, files[0], provider="CoreML")
    assert "not in f16" in told(opened, files[0], precision="f16")
    assert "has no option 'a'" in told(opened, files[0], options={"a": 1})
    assert "swap" in told(opened, files[0], TEXT)
