"""What an `[[artifacts]]` table may say, and which candidates come from it."""

from __future__ import annotations

import pytest

from clipq.artifact_settings import SessionSettings
from clipq.cases import Candidate
from clipq.errors import SettingsError
from clipq.settings import load_settings

TABLE = """
[[artifacts]]
name = "int8"
model = "vit-clean"
runtime = "onnxruntime"
"""
FILES = TABLE + 'image = "i.onnx"\ntext = "t.onnx"\n'


def test_one_table_may_be_several_candidates(project):
    more = (
        'format = "w8a8d"\nbatch = 8\nsession = { threads = 2, env = { A = "1" } }\n'
        'float = { image = "fi.onnx", text = "ft.onnx" }\n'
        'variants = { oldest = { env = { ISA = "AVX2" } } }\n'
    )
    settings = load_settings(project.settings(after=FILES + more))
    names = [artifact.name for artifact in settings.artifacts]
    assert names == ["int8", "int8-float", "int8-oldest"]
    whole, exported, oldest = settings.artifacts
    assert settings.artifact(Candidate("vit-clean", "int8-float")) == exported
    assert settings.artifact(Candidate("siglip", "int8")) is None
    assert (exported.image, exported.format, exported.is_float) == ("fi.onnx", "", True)
    assert (whole.format, whole.is_float, oldest.part_of) == ("w8a8d", False, "int8")
    assert oldest.session == SessionSettings(threads=2, env={"A": "1", "ISA": "AVX2"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILES.replace("int8", "In t8"), "name must be lower-case letters"),
        (FILES.replace('"int8"', '"fp32"'), "reserved name"),
        (FILES.replace("vit-clean", "vit-claen"), "did you mean 'vit-clean'"),
        (FILES + FILES, "two candidates of 'vit-clean' are called 'int8'"),
        (FILES + 'head = "h.npz"\n', "both text and head"),
        (FILES + 'recipe = "onnxruntime-dynamic"\n', "both recipe and image"),
        (TABLE + 'recipe = "r"\nio = { layout = "NHWC" }\n', "both recipe and io"),
        (FILES + 'variants = { "Old CPU" = { threads = 2 } }\n', "sessions by name: lower-case"),
        (FILES + 'variants = { float = { threads = 2 } }\n', "a variant called 'float'"),
        (
            FILES.replace("onnxruntime", "features") + 'session = { precision = "f16" }\n',
            "which runs nothing",
        ),
        (FILES.replace('text = "t.onnx"\n', ""), "no text tower"),
        (TABLE, "neither image nor recipe"),
        (FILES.replace("t.onnx", "t.py:make"), "makes both towers"),
        (FILES + "float = { }\n", "float without one of image and recipe"),
        (FILES + "batch = -1\n", "a whole number >= 0"),
        (FILES + 'io = { pixels = "raw" }\n', "known: bytes, normalised, unit"),
        (FILES + 'session = { precision = "fp32" }\n', "known: bf16, f16, f32"),
        (FILES + 'sesion = { threads = 1 }\n', "did you mean 'session'"),
        (FILES + 'part_of = "int8"\n', "unknown key 'part_of'"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_artifact_is_named_with_the_way_out(project, text, said):
    with pytest.raises(SettingsError, match=r"(?s)clipq\.toml, \[.*artifacts") as error:
        load_settings(project.settings(after=text))
    assert said in str(error.value)


def test_a_matrix_may_be_artifacts_alone(project):
    settings = load_settings(project.settings(quantizers=(), after=FILES))
    assert settings.quantizers == ()
    with pytest.raises(SettingsError, match="name a quantizer"):
        load_settings(project.settings(quantizers=()))
