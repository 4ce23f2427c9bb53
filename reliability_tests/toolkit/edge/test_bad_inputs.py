"""Damaged inputs, end to end: named with their hash, one cause once, nothing else lost."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


def verdicts(project):
    record = json.loads((project.root / ".clipq" / "report" / "report.json").read_text())
    return {case["case"]: (case["verdict"], case["reason"]) for case in record["cases"]}


def gate(project, *arguments):
    done = project.pytest("-n0", *arguments)
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture
def data(project):
    """A private copy of the probes, so that it can be damaged."""
    copy = project.root / "data"
    for name in ("shapes", "digits"):
        shutil.copytree(REPOSITORY / "fixtures" / "data" / name, copy / name)
    shutil.copy(REPOSITORY / "fixtures" / "data" / "SHA256SUMS", copy)
    project.settings(data=copy, metrics=("top1", "auroc-mcm"))
    return copy


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "digits" / "test" / "0.tar").unlink(), "is missing"),
        (lambda d: os.truncate(d / "digits" / "test" / "0.tar", 20_000), "sha256"),
        (lambda d: (d / "shapes" / "classnames.txt").write_text("circle\n"), "SHA256SUMS"),
        (lambda d: (d / "shapes" / "test" / "nshards.txt").write_text("x"), "nshards.txt"),
    ],
)
def test_a_damaged_probe_is_named_and_every_case_says_the_same(project, data, damage, message):
    damage(data)
    done = gate(project, "--clipq-quantizer", "rtn:w8")
    assert done.returncode == 1
    found = verdicts(project)
    assert {verdict for verdict, _ in found.values()} == {"error"}
    assert all(message in reason for _, reason in found.values())
    assert done.stdout.count("blocking without a comparison") == 1


@pytest.mark.parametrize("damage", ["truncate", "flip", "missing", "config"])
def test_a_damaged_checkpoint_is_named(project, damage):
    copy = project.root / "fixtures" / "models" / "vit-clean"
    shutil.copytree(REPOSITORY / "fixtures" / "models" / "vit-clean", copy)
    project.settings(fixtures=project.root / "fixtures")
    weights = copy / "open_clip_model.safetensors"
    if damage == "truncate":
        os.truncate(weights, 100_000)
    elif damage == "flip":
        content = bytearray(weights.read_bytes())
        content[-2] ^= 64
        weights.write_bytes(content)
    elif damage == "missing":
        weights.unlink()
    else:
        (copy / "open_clip_config.json").write_text("{")
    done = gate(project, "--clipq-metric", "top1")
    assert done.returncode == 1
    verdict, reason = next(iter(verdicts(project).values()))
    expected = {
        "truncate": ("error", "open_clip_model.safetensors"),
        "flip": ("incomparable", "weights_sha256"),
        "missing": ("error", "no checkpoint"),
        "config": ("error", "open_clip_config.json"),
    }[damage]
    assert verdict == expected[0]
    assert expected[1] in reason


def test_a_tampered_baseline_is_an_error_that_shows_both_hashes(project):
    path = project.root / "baselines" / "vit-clean.json"
    document = json.loads(path.read_text())
    document["columns_sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    done = gate(project, "--clipq-metric", "top1")
    assert done.returncode == 1
    assert "tampered with" in done.stdout
    assert "0" * 64 in done.stdout


def test_a_malformed_baseline_stops_the_run_with_one_message(project):
    (project.root / "baselines" / "vit-clean.json").write_text("{")
    done = gate(project)
    assert done.returncode == 2
    assert "vit-clean.json cannot be read as JSON" in done.stdout + done.stderr


def test_a_group_larger_than_any_row_is_refused(project):
    project.settings(quantizers=("rtn:w4g100000",), metrics=("top1",))
    done = gate(project, "--clipq-metric", "top1")
    assert done.returncode == 1
    verdict, reason = next(iter(verdicts(project).values()))
    assert verdict == "error"
    assert "100000" in reason


def test_an_unusable_cache_is_one_clear_message(project):
    (project.root / "occupied").write_text("a file, not a folder")
    done = gate(project, "--clipq-cache", "occupied", "--clipq-metric", "top1")
    assert done.returncode == 1
    assert "cannot use the cache" in done.stdout or "cannot write" in done.stdout


def test_an_unusable_report_folder_never_looks_like_a_pass(project):
    (project.root / "occupied").write_text("a file, not a folder")
    done = gate(project, "--clipq-report", "occupied/report", "--clipq-metric", "top1")
    assert done.returncode == 1
    assert "the report was not written" in done.stdout


def test_a_misspelled_margin_key_stops_nothing_silently(project):
    (project.root / "baselines" / "margins.toml").write_text("[[margin]]\nformat = '*'\n")
    done = gate(project, "--clipq-metric", "top1")
    assert done.returncode != 0
    assert "did you mean 'formats'" in done.stdout + done.stderr


def test_waivers_that_are_named_and_are_not_there_are_an_error(project):
    done = project.clipq("gate", "-n0", "--waivers", "nope.toml")
    assert done.returncode == 4
    assert "nope.toml is no file" in done.stderr + done.stdout
