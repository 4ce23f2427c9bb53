"""Commands know artifacts: they list them, and those that look inside say what to use instead."""

from __future__ import annotations

import json
import sys

import pytest

import clipq
from clipq.cli import main
from clipq.errors import QuantizerError, SettingsError
from clipq.evaluation.plan import Selection, plan
from clipq.exports import recipes
from clipq.settings import load_settings

SETTINGS = """\
[matrix]
quantizers = ["rtn:w4", "rtn:w8a8d"]
metrics = ["top1", "ece"]

[[models]]
name = "vit"
source = "local-dir:nowhere"

[[models]]
name = "other"
source = "local-dir:nowhere"

[[probes]]
name = "id"
role = "in-distribution"
source = "webdataset:nowhere"

[[probes]]
name = "calibration"
role = "calibration"
source = "webdataset:nowhere"
split = "calibration"

[[probes]]
name = "fgsm"
role = "adversarial"
source = "webdataset:nowhere"
attack = "fgsm"
epsilon = 1.0
metrics = ["top1"]

[[artifacts]]
name = "ort"
model = "vit"
runtime = "onnxruntime"
image = "deploy/i.onnx"
text = "deploy/t.onnx"
format = "w8a8d"
batch = 8
float = { image = "deploy/f.onnx", text = "deploy/g.onnx" }
"""


@pytest.fixture
def called(tmp_path, monkeypatch, capsys):
    """Call a command in a project of an artifact; return its exit code and all that it said."""
    (tmp_path / "clipq.toml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str]:
        code = main(list(words))
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_artifacts_are_listed_with_what_runs_and_simulates_them(called):
    code, text = called("list", "artifacts")
    assert code == 0
    (ort, exported) = (line.split() for line in text.splitlines()[2:])
    assert ort == [
        *("vit/ort", "onnxruntime", "deploy/i.onnx,", "deploy/t.onnx", "8", "w8a8"),
        *("rtn:w8a8d", "-"),
    ]
    assert exported[-4:] == ["8", "custom", "-", "ort"]
    found = json.loads(called("list", "artifacts", "--json")[1])
    assert [one["artifact"] for one in found] == ["vit/ort", "vit/ort-float"]


def test_cases_of_artifacts_are_listed_and_those_that_they_cannot_have_are_counted(called):
    _, text = called("list", "cases")
    assert "vit/ort/id.ece" in text
    assert "vit/ort/fgsm.top1" not in text
    assert "other/ort" not in text
    assert "1 case of vit/ort is not applicable: it needs gradients" in text
    found = json.loads(called("list", "cases", "--json")[1])
    assert "vit/ort-float/id.top1" in [case["id"] for case in found]


def test_runtimes_are_listed_with_the_packages_that_are_here(called):
    code, text = called("list", "runtimes")
    assert code == 0
    for name in ("executorch", "features", "onnxruntime", "openvino", "torch", "torch-export"):
        assert f"\n{name} " in text
    assert "pip install 'pytest-clipq[onnxruntime]'" in text


def test_selecting_only_what_an_artifact_cannot_have_says_so(tmp_path):
    (tmp_path / "clipq.toml").write_text(SETTINGS)
    settings = load_settings(tmp_path / "clipq.toml")
    with pytest.raises(SettingsError, match="1 case of vit/ort is not applicable: it needs grad"):
        plan(settings, Selection(quantizers=("ort",), probes=("fgsm",)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("blame", "vit/ort/id.ece"), "clipq blame 'vit/rtn:w8a8d/id.ece' looks into"),
        (("blame", "vit/ort-float/id.ece"), "nothing in it is quantized"),
        (("inspect", "ood", "vit/ort", "--local"), "clipq inspect ood 'vit/rtn:w8a8d' --local"),
    ],
)
def test_what_looks_inside_names_the_quantizer_to_look_into(called, words, said):
    code, text = called(*words)
    assert code == 2
    assert "is an artifact, files that onnxruntime runs: it has no" in text
    assert said in text


def test_the_api_tells_a_file_from_a_quantizer():
    with pytest.raises(QuantizerError, match="is no quantizer but a file"):
        clipq.evaluate("local-dir:nowhere", "deploy/image.onnx", "webdataset:nowhere")


def test_a_recipe_that_a_plugin_of_the_project_brings_is_known(called, tmp_path, monkeypatch):
    (tmp_path / "brought.py").write_text(
        "from clipq.exports import Recipe, recipes\n"
        "recipes.add('brought-float', Recipe('mine', print, packages=('nobody-has-this',)))\n"
    )
    (tmp_path / "clipq.toml").write_text(f'[clipq]\nplugins = ["brought"]\n\n{SETTINGS}')
    monkeypatch.syspath_prepend(tmp_path)
    try:
        for asked in (
            ["quantize", "--recipe", "brought-float"],
            ["export", "--runtime", "brought"],
        ):
            code, text = called("artifact", asked[0], "vit", *asked[1:], "--output", "deploy")
            assert code == 2
            assert "recipe 'brought-float' needs nobody-has-this" in text
    finally:
        recipes.remove("brought-float")
        sys.modules.pop("brought", None)
