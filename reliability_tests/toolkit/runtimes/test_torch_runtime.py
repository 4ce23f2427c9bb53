"""A function of the user's makes towers, and all that it is made of is known."""

from __future__ import annotations

import os
import py_compile
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clipq.artifact_settings import ArtifactSettings, SessionSettings
from clipq.dependencies.code_file import _ProjectFinder
from clipq.errors import ArtifactError
from clipq.evaluation.artifact_files import ArtifactFiles, artifact_identity
from clipq.models import ModelSource, load_model
from clipq.runtimes import TowerFacts, TowerPorts, runtimes
from clipq.runtimes.float_share import float_share_findings
from clipq.runtimes.torch_runtime import TorchRuntime, TorchTower

ROOT = Path(__file__).parents[3]
IMAGES = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
TOKENS = np.array([[1, 5, 2, *[0] * 13], [1, 9, 7, 2, *[0] * 12]])
SESSION = SessionSettings(threads=1)


@pytest.fixture(scope="module")
def reference():
    source = ModelSource.parse("local-dir:fixtures/models/vit-clean", base_dir=ROOT)
    return load_model(source).model


@pytest.fixture
def project(tmp_path):
    """The folder `deploy` of a project; what its code imports is forgotten afterwards."""
    (tmp_path / "clipq.toml").touch()
    (tmp_path / "deploy").mkdir()
    yield tmp_path / "deploy"
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "") or "").startswith(str(tmp_path)):
            del sys.modules[name]
    sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _ProjectFinder)]


def tower(path, kind, model=None, *, function="make", session=SESSION, mask="", runtime=None):
    given = None if model is None else lambda: model
    ports = TowerPorts(kind, mask=mask, function=function, reference=given)
    return (runtime or TorchRuntime()).open(path, ports, session)


def written(folder, text, name="build.py"):
    (folder / name).write_text(text)
    return folder / name


RETURNED = {
    "the model itself": "return model",
    "a pair of callables": "return lambda x: model.encode_image(x), lambda t: model.encode_text(t)",
    "a pair of modules": "return model.visual, model",
    "bfloat16 features": "return lambda x: model.encode_image(x).bfloat16(), model.encode_text",
}


@pytest.mark.parametrize("body", RETURNED.values(), ids=RETURNED)
def test_towers_give_what_the_function_s_model_gives(body, project, reference):
    path = written(project, f"def make(model, bits=8):\n    {body}\n")
    runtime, found = TorchRuntime(), {}
    for kind, given in (("image", IMAGES), ("text", TOKENS)):
        found[kind] = tower(path, kind, reference, runtime=runtime).run({"input": given})
        assert found[kind].dtype == np.float32
    with torch.inference_mode():
        expected = {"image": reference.encode_image(torch.from_numpy(IMAGES)),
                    "text": reference.encode_text(torch.from_numpy(TOKENS))}  # fmt: skip
    tolerance = 2**-8 if "bfloat16" in body else 1e-6
    for kind, features in expected.items():
        assert found[kind] == pytest.approx(features.numpy(), rel=tolerance, abs=tolerance)


def test_the_function_runs_once_for_both_towers_and_on_a_copy_of_fp32(project, reference):
    path = written(project, "import torch\ncalls = []\ndef make(model):\n    calls.append(1)\n"
                   "    model.visual.proj.data.mul_(2.0)\n    model.calls = calls\n"
                   "    return model\n")  # fmt: skip
    runtime, before = TorchRuntime(), reference.visual.proj.clone()
    image = tower(path, "image", reference, runtime=runtime)
    tower(path, "text", reference, runtime=runtime)
    assert torch.equal(reference.visual.proj, before)
    with torch.inference_mode():
        expected = 2 * reference.encode_image(torch.from_numpy(IMAGES))
    assert image.run({"input": IMAGES}) == pytest.approx(expected.numpy(), abs=1e-5)
    assert sys.modules["code_of_build"].calls == [1]


def test_a_function_of_nothing_needs_no_model(project):
    text = "import torch\ndef make():\n    return torch.nn.Flatten(), torch.nn.Embedding(9, 4)\n"
    found = tower(written(project, text), "image").run({"input": IMAGES})
    assert np.array_equal(found, IMAGES.reshape(3, -1))


def test_what_the_code_imports_and_names_belongs_to_it_before_it_runs_and_after(project):
    (project / "pack").mkdir()
    (project / "hf").mkdir()
    root = project.parent
    for name, text in {
        "build.py": "import numpy\nfrom pack import inner\nimport os\nFILES = ('scales.npy',)\n"
        "MODEL = 'hf'\n\ndef make():\n    import late_helper\n    import json, calendar\n"
        "    os.environ.get('BITS')\n    numpy.load(late_helper.PATH)\n    open(FILES[0:1][0]) "
        "if 0 else None\n    return (lambda x: x.flatten(1),) * 2\n",
        "pack/__init__.py": "",
        "pack/inner.py": "from .other import *\nfrom project_module import name as renamed\n",
        "pack/other.py": "import pytest\n",
        "late_helper.py": "from pathlib import Path\nPATH = Path(__file__).with_name('scales.npy')",
        "calendar.py": "days = 7\n",
        "unrelated.py": "",
        "../project_module.py": "name = 1\n",
        "hf/config.json": "{}",
        "hf/model.safetensors": "weights",
        "hf.md": "",
    }.items():
        (project / name).write_text(text)
    np.save(project / "scales.npy", np.ones(2))
    path, runtime = project / "build.py", TorchRuntime()
    names = {"late_helper.py", "scales.npy", "pack/__init__.py", "pack/inner.py", "pack/other.py",
             "calendar.py", "hf/config.json", "hf/model.safetensors"}  # fmt: skip
    expected = {project / name for name in names} | {root / "project_module.py"}
    assert set(runtime.sidecars(path)) == expected
    environment = runtime.environment(path)
    assert {"package numpy", "package pytest", "variable BITS"} <= set(environment)
    assert runtime.look(path).bytes == sum(p.stat().st_size for p in (path, *expected))
    tower(path, "image", runtime=runtime)
    assert set(runtime.sidecars(path)) == expected
    assert runtime.environment(path) == environment


def test_what_the_code_imports_and_reads_identifies_results(project, monkeypatch):
    text = (
        "import os, pytest\ndef make():\n    return (lambda x: x * int(os.environ['BITS']),) * 2\n"
    )
    artifact = ArtifactSettings("mine", "vit-clean", "torch", image="build.py:make")
    files = ArtifactFiles(written(project, text), function="make")
    monkeypatch.setenv("BITS", "8")
    found = artifact_identity(artifact, files, batch=1)
    assert "package pytest" in found["code"]
    assert artifact_identity(artifact, files, batch=1) == found
    monkeypatch.setenv("BITS", "4")
    assert artifact_identity(artifact, files, batch=1) != found


def test_an_edit_that_keeps_second_and_size_runs(project):
    path = written(project, "import scale_of\ndef make():\n"
                   "    return (lambda x: x.flatten(1) * scale_of.SCALE,) * 2\n")  # fmt: skip
    helper = written(project, "SCALE = 2\n", "scale_of.py")
    py_compile.compile(str(helper))
    assert tower(path, "image").run({"input": IMAGES})[0, 0] == IMAGES[0, 0, 0, 0] * 2
    stat = helper.stat()
    written(project, "SCALE = 3\n", "scale_of.py")
    os.utime(helper, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    del sys.modules["scale_of"]
    assert tower(path, "image").run({"input": IMAGES})[0, 0] == IMAGES[0, 0, 0, 0] * 3


def test_a_file_of_the_project_that_is_read_and_not_named_is_refused(project):
    (project / "weights.txt").write_text("1")
    reading = "Path(__file__).with_suffix('').with_name('weights.' + 'txt').read_text()"
    at_import = f"from pathlib import Path\n{reading}\ndef make():\n    return (len,) * 2\n"
    in_call = f"from pathlib import Path\ndef make():\n    {reading}\n    return (len,) * 2\n"
    for text in (at_import, in_call):
        path = written(project, text)
        with pytest.raises(ArtifactError, match=r"build.py:make reads deploy/weights.txt") as error:
            tower(path, "image")
        assert "FILES = ('deploy/weights.txt',)" in error.value.hint
        written(project, "FILES = ('deploy/weights.txt',)\n" + text)
        tower(path, "image")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def maker(model): ...", r"has no function 'make'\n.*did you mean 'maker'"),
        ("def make(model, bits): ...", r"needs the arguments model, bits"),
        ("def make(*, model): ...", r"needs the arguments model"),
        ("\n\ndef make(model):\n  raise KeyError(7)", r"failed, build.py line 4: KeyError: 7"),
        ("def make(model): exit(3)", r"failed, build.py line 1: SystemExit: 3"),
        ("import no_such_module", r"cannot run, build.py line 1: ModuleNotFoundError: No module"),
        ("def make(model:", r"cannot run, line 1: SyntaxError"),
        ("def make(model): return 7", r"returns int, which does not encode images"),
        ("def make(model): return None", r"returns NoneType, which does not encode images"),
        ("class T:\n  encode_text = 1\ndef make(model): return T()", r"returns T, which does not"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_function_is_one_message(text, said, project, reference):
    with pytest.raises(ArtifactError) as caught:
        tower(written(project, text), "image", reference)
    assert re.search(said, str(caught.value)), caught.value


def test_a_path_that_is_no_code_is_refused(project):
    runtime = runtimes.get("torch")
    for name, said in (("model.pt", "is no file of Python"), ("none.py", "is missing")):
        (project / "model.pt").write_text("x")
        with pytest.raises(ArtifactError, match=said):
            runtime.sidecars(project / name)
    with pytest.raises(ArtifactError, match="is no Python"):
        runtime.look(written(project, "def make(:"))
    unknown = "import importlib\nimportlib.import_module('a' + 'b')\n"
    (finding,) = runtime.look(written(project, unknown)).findings
    assert (finding.kind, finding.wrong) == ("code-unknown", False)


def test_a_session_that_cannot_be_had_is_refused(project, reference):
    path = written(project, "def make(model): return model")
    for session, said in (
        (SessionSettings(options={"bits": 8}), "unknown session option 'bits'"),
        (SessionSettings(precision="bf16"), "session.precision = 'bf16'"),
        (SessionSettings(provider="cuda:99"), "session.provider = 'cuda:99' is not here"),
    ):
        with pytest.raises(ArtifactError, match=said):
            tower(path, "image", reference, session=session)
    with pytest.raises(ArtifactError, match=r"io.mask_input = 'mask', .* takes no attention_mask"):
        tower(path, "text", reference, mask="mask")


def test_a_tower_that_returns_tokens_is_told(project):
    path = written(project, "def make(): return (lambda x: x,) * 2")
    with pytest.raises(ArtifactError, match=r"image tower returned Tensor of shape \(3, 3, 32, 32"):
        tower(path, "image").run({"input": IMAGES})


def test_a_mask_goes_where_the_tower_takes_one(project):
    path = written(project, "def text(tokens, attention_mask): return tokens * attention_mask\n"
                   "def make(): return None, text")  # fmt: skip
    mask = (TOKENS != 0).astype(np.int64)
    found = tower(path, "text", mask="mask").run({"input": TOKENS + 1, "mask": mask})
    assert np.array_equal(found, (TOKENS + 1) * mask)


def test_weights_that_torchao_passes_over_are_counted(project, reference):
    pytest.importorskip("torchao")
    path = written(project, "from torchao.quantization import quantize_, Int8WeightOnlyConfig\n"
                   "def make(model):\n    quantize_(model, Int8WeightOnlyConfig())\n"
                   "    return model\n")  # fmt: skip
    runtime = TorchRuntime()
    said = {kind: tower(path, kind, reference, runtime=runtime).facts.said
            for kind in ("image", "text")}  # fmt: skip
    # Of 4 and 2 blocks, the two layers of the MLP each; in_proj_weight and proj are no nn.Linear,
    # out_proj is one that torchao knows to be read behind its back.
    assert [said[kind]["quantized"] for kind in said] == [{"Int8Tensor": 8}, {"Int8Tensor": 4}]
    assert said["image"]["in_float"] == {"conv1": 1, "in_proj_weight": 4, "out_proj": 4, "proj": 1}
    assert said["text"]["in_float"] == {"in_proj_weight": 2, "out_proj": 2, "text_projection": 1}
    patches, width, dimensions, layers = 16, 112, 96, 4
    attention = layers * (patches + 1) * 4 * width**2
    rest = patches * width * 3 * 8 * 8 + width * dimensions
    mlp = layers * (patches + 1) * 8 * width**2
    assert said["image"]["share_in_float"] == pytest.approx(
        (attention + rest) / (attention + rest + mlp)
    )
    facts = tower(path, "image", reference, runtime=runtime).facts
    (finding,) = float_share_findings(facts)
    assert "36 % of the multiply-adds" in finding.problem


def test_the_precision_is_the_executed_one_and_training_is_said(project, reference):
    path = written(project, "import torch\ndef make(model): return model.bfloat16().train()\n"
                   "def cast(model):\n  def image(x):\n"
                   "    with torch.autocast('cpu', torch.bfloat16): return model.encode_image(x)\n"
                   "  return image, model\n"
                   "def low(model):\n  torch.set_float32_matmul_precision('medium')\n"
                   "  return model\n")  # fmt: skip
    before = torch.get_float32_matmul_precision()
    try:
        assert tower(path, "image", reference, function="cast").facts.precision == "bf16"
        assert tower(path, "image", reference, function="low").facts.precision == "bf16"
        strict = SessionSettings(precision="f32")
        facts = tower(path, "image", reference, function="low", session=strict).facts
        assert facts.precision == "f32"
        assert float_share_findings(facts) == ()
        # float32 images do not go into bfloat16 weights: the deployed wrapper is missing.
        facts = tower(path, "image", reference).facts
        assert "dtype" in facts.said["not_counted"].lower() or "type" in facts.said["not_counted"]
        assert [one.kind for one in float_share_findings(facts)] == ["training"]
    finally:
        torch.set_float32_matmul_precision(before)


def test_features_that_come_as_codes_and_a_scale_are_numbers():
    quanto = pytest.importorskip("optimum.quanto")
    layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 4))
    expected = layer(torch.from_numpy(IMAGES)).numpy(force=True)
    quanto.quantize(layer, weights=quanto.qint8, activations=quanto.qint8)
    with quanto.Calibration(streamline=False), torch.no_grad():
        layer(torch.from_numpy(IMAGES))
    quanto.freeze(layer)
    found = TorchTower(TowerFacts(), lambda x, _: layer(x), "image", "cpu").run({"input": IMAGES})
    assert type(found) is np.ndarray
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
