"""Number formats and quantizers have one text form each, and refuse everything else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clipq.errors import QuantizerError
from clipq.quant import ActivationFormat, Format, QuantizerSpec, WeightFormat


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("w8", Format(WeightFormat(8))),
        ("w8a8", Format(WeightFormat(8), ActivationFormat(8))),
        ("w4g32", Format(WeightFormat(4, 32))),
        ("w4g32z", Format(WeightFormat(4, 32, asymmetric=True))),
        ("w8ta8z", Format(WeightFormat(8, "tensor"), ActivationFormat(8, asymmetric=True))),
        ("w4a8d", Format(WeightFormat(4), ActivationFormat(8, dynamic=True))),
        (
            "w2g1za4dz",
            Format(WeightFormat(2, 1, asymmetric=True), ActivationFormat(4, True, True)),
        ),
    ],
)
def test_a_format_parses_to_its_meaning_and_prints_back(text: str, meaning: Format) -> None:
    assert Format.parse(text) == meaning
    assert str(meaning) == text


@pytest.mark.parametrize(
    ("text", "bits_class"), [("w8", "w8"), ("w4g64z", "w4"), ("w8ta8z", "w8a8"), ("w6a4d", "w6a4")]
)
def test_the_class_of_a_format_is_its_bit_widths(text: str, bits_class: str) -> None:
    assert Format.parse(text).bits_class == bits_class


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("w0", "weight bits 0 are outside 2 to 8"),
        ("w9", "weight bits 9 are outside 2 to 8"),
        ("w8a1", "activation bits 1 are outside 2 to 8"),
        ("w8g0", "group size 0 is not positive"),
        ("a3", "'a3' cannot be read"),
        ("", "'' cannot be read"),
        ("w8a8 ", "'w8a8 ' cannot be read"),
        ("w8a8\n", "cannot be read"),
        ("w08", "'w08' cannot be read"),
        ("w8g", "'w8g' cannot be read"),
        ("w8tg4", "'w8tg4' cannot be read"),
        ("W8A8", "'W8A8' cannot be read"),
        ("w٨", "cannot be read"),
        ("w8a8zd", "'w8a8zd' cannot be read"),
    ],
)
def test_a_bad_format_is_refused_with_the_value_and_a_fix(text: str, complaint: str) -> None:
    with pytest.raises(QuantizerError, match=complaint) as caught:
        Format.parse(text)
    assert caught.value.hint


def test_an_unknown_granularity_is_refused() -> None:
    with pytest.raises(QuantizerError, match="'row' is unknown"):
        WeightFormat(8, "row")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        *("mine", "rtn:w8a8", "rtn:w8a8@vision", "sq:w8a8,alpha=0.5@text", "mine,a=1e-3,b=x_y"),
        *("fp32", "rot+lsq:w4a8,steps=9@vision"),
    ],
)
def test_a_canonical_quantizer_prints_as_it_was_written(text: str) -> None:
    assert str(QuantizerSpec.parse(text)) == text


def test_options_are_sorted_and_both_towers_are_implied() -> None:
    assert str(QuantizerSpec.parse("mine,b=2,a=1@both")) == "mine,a=1,b=2"
    assert QuantizerSpec.parse("mine,b=2,a=1") == QuantizerSpec.parse("mine,a=1,b=2@both")


def test_the_format_class_is_custom_without_a_format() -> None:
    assert QuantizerSpec.parse("mine").format_class == "custom"
    assert QuantizerSpec.parse("rtn:w4g32a8").format_class == "w4a8"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is no method name"),
        (":w8", "'' is no method name"),
        ("RTN:w8", "'RTN' is no method name"),
        ("rot++lsq:w8", r"'rot\+\+lsq' is no method name"),
        ("+lsq:w8", r"'\+lsq' is no method name"),
        ("rtn:", "'' cannot be read"),
        ("rtn:w8@", "towers ''"),
        ("rtn:w8@visio", "towers 'visio'"),
        ("rtn:w8@vision,steps=2", r"towers 'vision,steps=2'(.|\n)*\[,key=value...\]\[@vision"),
        ("rtn:w8@vision@text", "towers 'vision@text'"),
        ("lsq:w4a8@vision,steps=9", "options stand before the @"),
        ("mine,alpha", "'alpha' .* has no value"),
        ("mine,alpha=", "'' is no value"),
        ("mine,=1", "'' is no option name"),
        ("mine,a=1,a=2", "'a' .* more than once"),
        ("fp32:w8", "'fp32:w8' qualifies fp32"),
        ("fp32@text", "'fp32@text' qualifies fp32"),
    ],
)
def test_a_bad_quantizer_is_refused_with_the_value_and_a_fix(text: str, complaint: str) -> None:
    with pytest.raises(QuantizerError, match=complaint) as caught:
        QuantizerSpec.parse(text)
    assert caught.value.hint


def test_a_misspelt_tower_or_option_is_suggested() -> None:
    with pytest.raises(QuantizerError, match="did you mean 'vision'"):
        QuantizerSpec.parse("rtn:w8@visio")
    with pytest.raises(QuantizerError, match="did you mean 'alpha'"):
        QuantizerSpec.parse("sq,alhpa=1").read_options(["alpha"])


def test_planning_does_not_import_torch() -> None:
    program = (
        "import sys; from clipq.quant import QuantizerSpec, quantizers; "
        "QuantizerSpec.parse('rtn:w8a8@vision'); quantizers.names(); "
        "assert 'rtn' in quantizers; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
