"""The plan: sorted, canonical, complete, and loud about patterns that match nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clipq.errors import ClipqError, QuantizerError, SettingsError, UnknownNameError
from clipq.evaluation.plan import Selection, plan
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
