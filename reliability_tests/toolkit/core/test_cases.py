"""Candidates, cells and cases print as what they are read from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipq.cases import FP32, Candidate, Case, Cell, split_key
from clipq.errors import SettingsError

_letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
names = st.text(_letters, min_size=1, max_size=12)
dotted = st.text(_letters + ".", min_size=1, max_size=12)
quantizers = st.text(_letters + ".:,=+*/@[]", min_size=1, max_size=20).filter(
    lambda text: not text.startswith("/") and not text.endswith("/")
)


@given(model=dotted, quantizer=quantizers, probe=dotted, metric=names)
def test_a_case_is_read_from_its_id(model, quantizer, probe, metric):
    case = Cell(model, quantizer, probe).case(metric)
    assert Case.parse(case.id) == case
    assert Cell.parse(str(case.cell)) == case.cell
    assert Candidate.parse(str(case.candidate)) == case.candidate
    assert split_key(case.key) == (probe, metric)


@pytest.mark.parametrize(
    "text", ["", "m", "m/q", "m/q/p", "m/q/.ece", "m/q/p.", "/q/p.ece", "m//p"]
)
def test_what_is_no_case_id_is_named(text):
    with pytest.raises(SettingsError, match="no case id"):
        Case.parse(text)


@pytest.mark.parametrize("text", ["", "m", "m/", "/q", "m/q/", "/q/p"])
def test_what_is_no_cell_is_named(text):
    with pytest.raises(SettingsError, match="no cell"):
        Cell.parse(text)


@pytest.mark.parametrize("text", ["", "m", "m/", "/q"])
def test_what_is_no_candidate_is_named(text):
    with pytest.raises(SettingsError, match="names no model and quantizer"):
        Candidate.parse(text)


def test_what_belongs_together_is_reached_from_a_cell():
    cell = Cell("vit", "rtn:w8", "id")
    assert cell.reference == Cell("vit", FP32, "id")
    assert cell.candidate.reference.is_reference
    assert cell.candidate.on("digits") == cell.on("digits") == Cell("vit", "rtn:w8", "digits")


def test_cases_sort_by_model_quantizer_probe_and_metric():
    first, second = Cell("a-b", "q", "p").case("m"), Cell("a", "q", "p").case("m")
    assert sorted([first, second]) == [second, first]
