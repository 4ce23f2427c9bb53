"""Latencies come from where a model is deployed; clipq invents none."""

from __future__ import annotations

import json

import pytest

from clipq.artifact_settings import ArtifactSettings
from clipq.cases import Candidate
from clipq.errors import SettingsError
from clipq.evaluation.evaluator import Evaluator
from clipq.gating.latency import Measured, check_device, keep_latencies, load_latencies
from clipq.gating.session import Gate
from clipq.settings import ModelSettings, ProbeSettings, Settings

PAIRS = ("m/rtn:w8", "m/fp32")
TEXT = 'device = "a phone"\n[milliseconds]\n"m/rtn:w8" = 3.5\n"m/fp32" = 8\n'


def test_what_was_measured_is_evidence_of_its_pair(tmp_path):
    (tmp_path / "l.toml").write_text(TEXT)
    found = load_latencies(tmp_path / "l.toml", PAIRS)
    measured = {"milliseconds": 3.5, "measured_on": "a phone"}
    beside = {"fp32_milliseconds": 8.0, "ratio_to_fp32": 3.5 / 8}
    assert found.evidence("m/rtn:w8") == measured | beside
    assert found.evidence("m/fp32") == {"milliseconds": 8.0, "measured_on": "a phone"}
    assert found.evidence("m/rtn:w4") == {}
    assert load_latencies(None, PAIRS).evidence("m/rtn:w8") == {}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("3.5", "-1", 'milliseconds."m/rtn:w8" = -1'),
        ("3.5", "nan", '= nan\n  fix: milliseconds."m/rtn:w8" must be milliseconds per image'),
        ("3.5", "true", "= True"),
        ("rtn:w8", "rtn:w9", "did you mean 'm/rtn:w8'"),
        ('device = "a phone"', "", "no device"),
        ("[milliseconds]", "[seconds]", "unknown key 'seconds'"),
        ("3.5", "3.5.1", "cannot be read"),
        ("8\n", '8\n[fp32]\n"m/rtn:w4" = 2\n', "[fp32]: 'm/rtn:w4' has no milliseconds"),
        ("8\n", '8\n[measured]\n"m/rtn:w8" = 2\n', "measured"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, old, new, said):
    (tmp_path / "l.toml").write_text(TEXT.replace(old, new))
    with pytest.raises(SettingsError) as caught:
        load_latencies(tmp_path / "l.toml", PAIRS)
    assert said in str(caught.value)
    assert "fix:" in str(caught.value)


def test_what_is_measured_here_joins_what_was_and_fp32_s_own_number_stands_beside_it(tmp_path):
    path = tmp_path / "l.toml"
    first = Measured(Candidate("m", "ort"), 3.00004, 8.0, "batch 1")
    keep_latencies(path, [first, Measured(Candidate("m", 'a"b'), 5.0, 6.0, "batch 64")])
    keep_latencies(path, [Measured(Candidate("m", "ort"), 4.0, 9.0, "batch 2")])
    pairs = ("m/ort", 'm/a"b', "m/fp32")
    found = load_latencies(path, pairs)
    assert found.device == check_device(path)
    assert found.milliseconds == {"m/ort": 4.0, 'm/a"b': 5.0, "m/fp32": 9.0}
    assert found.evidence("m/ort") == {
        "milliseconds": 4.0,
        "measured_on": f"{found.device}, batch 2",
        "fp32_milliseconds": 9.0,
        "ratio_to_fp32": 4.0 / 9.0,
    }
    assert found.evidence('m/a"b')["fp32_milliseconds"] == 6.0


def test_times_of_two_machines_are_not_written_into_one_file(tmp_path):
    path = tmp_path / "l.toml"
    path.write_text(TEXT)
    with pytest.raises(SettingsError, match="holds what was measured on 'a phone', and this is"):
        keep_latencies(path, [Measured(Candidate("m", "ort"), 3.0, 8.0, "batch 1")])
    assert path.read_text() == TEXT


def test_artifacts_have_latencies_and_only_of_their_own_model(tmp_path):
    models = tuple(ModelSettings(name, f"local-dir:{name}") for name in ("m", "other"))
    probes = tuple(
        ProbeSettings(name, role, "folder:photos")
        for name, role in (("id", "in-distribution"), ("calibration", "calibration"))
    )
    ort = ArtifactSettings("ort", "m", "onnxruntime", image="i.onnx", text="t.onnx")
    path = tmp_path / "l.toml"
    settings = Settings(
        tmp_path / "clipq.toml", models, probes, ("rtn:w8",), artifacts=(ort,), latency=path
    )
    path.write_text(TEXT.replace("rtn:w8", "ort"))
    found = Gate(settings, Evaluator(settings)).latencies.evidence("m/ort")
    assert (found["milliseconds"], found["ratio_to_fp32"]) == (3.5, 3.5 / 8)
    path.write_text(TEXT.replace("m/rtn:w8", "other/ort"))
    with pytest.raises(SettingsError, match="unknown pair 'other/ort'"):
        _ = Gate(settings, Evaluator(settings)).latencies


def test_a_record_carries_what_the_settings_name(project):
    project.settings(quantizers=("rtn:w8",), extra='latency = "l.toml"')
    (project.root / "l.toml").write_text(TEXT.replace("m/", "vit-clean/"))
    assert project.clipq("gate", "-n0").returncode == 0
    plain = json.loads((project.root / ".clipq" / "report" / "report.json").read_text())
    assert plain["evidence"]["quantizers"]["vit-clean/rtn:w8"]["milliseconds"] == 3.5
