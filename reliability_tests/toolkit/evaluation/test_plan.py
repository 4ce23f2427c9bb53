"""The plan: sorted, canonical, complete, and loud about patterns that match nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import clipq
from clipq.cases import Candidate
from clipq.errors import ClipqError, QuantizerError, SettingsError, UnknownNameError
from clipq.evaluation.plan import Selection, not_applicable, plan, simulation_of
from clipq.settings import load_settings


@pytest.fixture
def settings(project):
    return load_settings(project.settings(metrics=("*",)))


def test_the_matrix_is_every_model_quantizer_probe_and_fitting_metric(settings):
    cases = plan(settings)
    assert list(cases) == sorted(cases)
    assert len(cases) == len({case.id for case in cases}) == 2 * (36 + 24)
    assert "vit-clean/rtn:w8a8/id.ece" in {case.id for case in cases}
    assert {case.probe for case in cases if case.metric == "auroc-mcm"} == {"digits"}


def test_the_calibration_split_is_never_evaluated(settings):
    assert "calibration" not in {case.probe for case in plan(settings)}


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(models=("vit-claen",)), "did you mean 'vit-clean'"),
        (Selection(quantizers=("rtn:w9*",)), "no quantizer matches"),
        (Selection(metrics=("top-1",)), "did you mean 'top1'"),
        (Selection(probes=("dogs",)), "no probe matches 'dogs'"),
        (Selection(metrics=("ece",), probes=("digits",)), "is empty after selection"),
    ],
)
def test_a_selection_that_matches_nothing_says_what_was_meant(settings, selection, message):
    with pytest.raises(SettingsError, match=message):
        plan(settings, selection)


def test_a_selected_quantizer_may_be_spelled_in_any_valid_way(settings):
    chosen = plan(settings, Selection(quantizers=("rtn:w8@both",)))
    assert {case.quantizer for case in chosen} == {"rtn:w8"}


@pytest.mark.parametrize(
    ("quantizers", "error", "message"),
    [
        (("rnt:w8",), UnknownNameError, "did you mean 'rtn'"),
        (("rtn:w0",), QuantizerError, "w0"),
        (("rtn:w8g0",), QuantizerError, "g0"),
        (("rtn:w8", "rtn:w8@both"), SettingsError, "given twice"),
        (("fp32",), SettingsError, "reference itself"),
    ],
)
def test_a_quantizer_that_makes_no_sense_is_refused_before_anything_runs(
    settings, quantizers, error, message
):
    with pytest.raises(error, match=message):
        plan(replace(settings, quantizers=quantizers))


def test_excluded_cases_are_left_out_and_a_bad_plugin_is_named(settings):
    kept = plan(replace(settings, exclude=("*/rtn:w8/*",)))
    assert {case.quantizer for case in kept} == {"rtn:w8a8"}
    from clipq.evaluation.plan import load_plugins

    with pytest.raises(ClipqError, match="plugin 'no_such_module'"):
        load_plugins(replace(settings, plugins=("no_such_module",)))


# -- artifacts ----------------------------------------------------------------------------------

ATTACKED = """
[[probes]]
name = "{name}"
role = "adversarial"
source = "webdataset:{data}/shapes"
attack = "{attack}"
against = "{against}"
"""
ARTIFACT = """
[[artifacts]]
name = "int8"
model = "vit-clean"
runtime = "{runtime}"
image = "i"
{text}
"""


@pytest.fixture
def exported(project):
    """Settings with three attacks and an artifact."""

    def make(runtime="onnxruntime", text='text = "t"', **options):
        attacks = {
            "fgsm": ("fgsm", "itself"),
            "moved": ("pgd", "fp32"),
            "square": ("square", "itself"),
        }
        data = Path(clipq.__file__).parents[1] / "fixtures" / "data"
        probes = [
            ATTACKED.format(name=name, attack=attack, against=against, data=data)
            for name, (attack, against) in attacks.items()
        ]
        artifact = ARTIFACT.format(runtime=runtime, text=text)
        return load_settings(project.settings(after="".join([*probes, artifact]), **options))

    return make


def test_an_artifact_meets_its_own_model_and_is_selected_as_a_quantizer_is(exported):
    settings = exported()
    assert {str(case.candidate) for case in plan(settings)} == {
        "vit-clean/rtn:w8", "vit-clean/rtn:w8a8", "vit-clean/int8"
    }  # fmt: skip
    chosen = plan(settings, Selection(quantizers=("int8",)))
    assert {case.quantizer for case in chosen} == {"int8"}


@pytest.mark.parametrize(
    ("artifact", "needs"),
    [
        ({}, {"gradients": 2}),
        ({"text": 'text = "fp32"'}, {"gradients": 2}),
        ({"runtime": "features", "text": 'head = "h"'}, {"images that are made while it runs": 6}),
        (
            {"text": 'text = "t"\nio = { output = "normalised" }', "metrics": ("top1", "sqnr*")},
            {"gradients": 1, "features that are not normalised": 4},
        ),
    ],
)
def test_what_an_artifact_cannot_have_is_counted_and_not_planned(exported, artifact, needs):
    settings = exported(**artifact)
    assert not_applicable(settings) == {"vit-clean/int8": needs}
    everything = plan(settings, Selection(quantizers=("rtn:w8",)))
    measured = plan(settings, Selection(quantizers=("int8",)))
    assert len(everything) - len(measured) == sum(needs.values())


@pytest.mark.parametrize(
    ("written", "simulated"),
    [
        ("", ""),
        ('format = "w8a8"', "rtn:w8a8"),
        ('format = "w8a8d"', ""),
        ('format = "w8a8d"\nsimulation = "rtn:w8a8d"', "rtn:w8a8d"),
    ],
)
def test_a_simulation_is_named_or_of_the_same_format(exported, written, simulated):
    settings = exported(text=f'text = "t"\n{written}')
    assert simulation_of(Candidate("vit-clean", "int8"), settings) == simulated
    planned = {case.quantizer for case in plan(settings)}
    assert planned == {"int8", "rtn:w8", "rtn:w8a8", simulated or "int8"}


@pytest.mark.parametrize(("text", "simulated"), [("t", "rtn:w8a8"), ("fp32", "rtn:w8a8@vision")])
def test_a_simulation_quantizes_the_towers_that_the_artifact_replaces(exported, text, simulated):
    settings = exported(text=f'text = "{text}"\nformat = "w8a8"')
    settings = replace(settings, quantizers=("rtn:w8a8@vision", "rtn:w8a8"))
    assert simulation_of(Candidate("vit-clean", "int8"), settings) == simulated


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('format = "w99"', "artifact 'int8': weight bits 99"),
        ('simulation = "rnt:w8"', r"(?s)artifact 'int8': unknown.*did you mean 'rtn'"),
        ('simulation = "fp32"', "reference itself"),
    ],
)
def test_an_artifact_that_makes_no_sense_is_refused_before_anything_runs(exported, written, said):
    with pytest.raises(ClipqError, match=said):
        plan(exported(text=f'text = "t"\n{written}'))


def test_an_artifact_may_not_be_called_as_a_method_is(exported):
    settings = exported()
    called = replace(settings.artifacts[0], name="rtn")
    with pytest.raises(SettingsError, match="called as a quantizer method"):
        plan(replace(settings, artifacts=(called,)))
