"""Which layers are quantized, and to what: globs, ends, tables of formats."""

from __future__ import annotations

import pytest

from clipq.errors import QuantizerError
from clipq.quant import Format, QuantizerSpec, method_code_hash, quantize
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear
from clipq.quant.options import CommonOptions
from clipq.quant.selection import read_table, select_formats

NAMES = [
    "visual.conv1",
    "visual.blocks.0.fc1",
    "visual.blocks.0.fc2",
    "visual.proj",
    "blocks.0.fc1",
    "text_projection",
]
W8 = Format.parse("w8")


def selected(text: str) -> list[str]:
    spec = QuantizerSpec.parse(f"rtn:w8{text}")
    return list(select_formats(NAMES, W8, CommonOptions.read(spec)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", NAMES),
        (",include=visual.*", NAMES[:4]),
        (",include=*.fc1+text*", ["visual.blocks.0.fc1", "blocks.0.fc1", "text_projection"]),
        (",exclude=*.fc?", ["visual.conv1", "visual.proj", "text_projection"]),
        (",include=visual.*,exclude=*conv1+*.fc2", ["visual.blocks.0.fc1", "visual.proj"]),
        (",ends=float", ["visual.blocks.0.fc1", "visual.blocks.0.fc2"]),
        (",ends=quantized", NAMES),
    ],
)
def test_names_are_chosen(text, expected):
    assert selected(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (",include=nothing*", r"'nothing\*' matches no layer\n.*like 'visual.conv1'"),
        (",exclude=visual.conv2", "'visual.conv2' matches no layer"),
        (",exclude=*", "no layer is left"),
        (",ends=floats", "did you mean 'float'"),
        (",range=minmaks", "did you mean 'minmax'"),
    ],
)
def test_what_selects_nothing_is_refused(text, complaint):
    with pytest.raises(QuantizerError, match=complaint):
        selected(text)


class TestTable:
    def test_first_match_wins_and_float_leaves_out(self, tmp_path):
        path = tmp_path / "formats.toml"
        path.write_text('"*.fc1" = "w4g32"\n"visual.*" = "float"\n"*.fc*" = "w2"\n')
        spec = QuantizerSpec("rtn", W8, (("table", str(path)),))
        found = select_formats(NAMES, W8, CommonOptions.read(spec))
        assert {name: str(f) for name, f in found.items()} == {
            "visual.blocks.0.fc1": "w4g32",
            "blocks.0.fc1": "w4g32",
            "text_projection": "w8",
        }

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ('"a" = "w9x"', "number format 'w9x' cannot be read"),
            ('"a" = 4', "a = 4\n.*a text such as"),
            ("[a]\nb = 'w4'", "a = {'b': 'w4'}"),
            ("= w4", "cannot be read"),
        ],
    )
    def test_what_cannot_be_read_is_refused(self, tmp_path, content, complaint):
        path = tmp_path / "formats.toml"
        path.write_text(content)
        with pytest.raises(QuantizerError, match=complaint):
            read_table(str(path))

    def test_a_missing_file_is_named(self):
        with pytest.raises(QuantizerError, match=r"none\.toml cannot be read"):
            read_table("none.toml")
        with pytest.raises(QuantizerError, match=r"'none\.toml' cannot be read"):
            method_code_hash(QuantizerSpec.parse("rtn:w8,table=none.toml"))

    def test_an_edit_of_the_table_is_another_quantizer(self, tmp_path):
        path = tmp_path / "formats.toml"
        spec = QuantizerSpec("rtn", W8, (("table", str(path)),))
        path.write_text('"*.fc1" = "w4"')
        before = method_code_hash(spec)
        path.write_text('"*.fc1" = "w3"')
        assert method_code_hash(spec) != before


def test_a_model_gets_what_the_options_say(vit, sample, tmp_path):
    path = tmp_path / "formats.toml"
    path.write_text('"*.c_fc" = "w4g16a4d"\n"*.q_proj" = "float"\n')
    spec = QuantizerSpec("rtn", Format.parse("w8a8"), (("ends", "float"), ("table", str(path))))
    found = quantize(vit, spec, sample.calibration)
    layers = {
        name: module
        for name, module in found.model.named_modules()
        if isinstance(module, QuantizedLinear | QuantizedConv2d)
    }
    assert not any(name.endswith(("q_proj", "conv1", ".proj")) for name in layers)
    fc = layers["visual.transformer.resblocks.0.mlp.c_fc"]
    assert str(fc.inputs.number_format) == "a4d"
    groups = fc.weight.reshape(-1, 16)
    assert max(len(row.unique()) for row in groups) <= 16
    assert str(layers["visual.transformer.resblocks.0.mlp.c_proj"].inputs.number_format) == "a8"
    assert any("q_proj" in name for name in found.coverage.uncovered)
    assert 0.3 < found.coverage.share < 0.9


@pytest.mark.parametrize("method", ["smoothquant:w8a8", "quarot:w8", "gptq:w8", "awq:w8"])
def test_every_method_leaves_out_what_it_is_told(vit, sample, method):
    spec = QuantizerSpec.parse(f"{method},exclude=*.mlp.*")
    found = quantize(vit, spec, sample.calibration)
    assert all(".mlp." in name for name in found.coverage.uncovered)
    assert found.coverage.uncovered
    for mine, theirs in zip(sample.encode(found.model), sample.encode(vit), strict=True):
        assert (mine - theirs).norm() < 0.05 * theirs.norm()
