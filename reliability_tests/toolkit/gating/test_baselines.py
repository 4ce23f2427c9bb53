"""Baselines: whole, named when damaged, changed only with a reason, slow loss kept in sight."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from clipq.errors import BaselineError
from clipq.evaluation.pooling import pool
from clipq.gating.approve import approve_first, approve_update, changes, flips
from clipq.gating.baseline import Baseline, BaselineValue, load_baseline, load_values, save_baseline
from clipq.gating.sentinel import drift
from clipq.metrics import Predictions


def predictions(shift=0.0, count=4):
    rng = np.random.default_rng(0)
    return Predictions(
        {
            "id": np.array([f"s{i}" for i in range(count)]),
            "prediction": np.arange(count) % 2,
            **{k: rng.uniform(size=count) + shift for k in ("max_logit", "mcm", "confidence")},
        },
        {"sqnr_db": float("inf"), "zero_fraction": 0.0},
    )


def baseline(value=0.9, first=0.9, **columns):
    return Baseline(
        model="m",
        source="local-dir:m",
        environment={"torch": "2"},
        identity={"weights_sha256": "abc"},
        probes={"id": "def"},
        values={
            "id.top1": BaselineValue(value, "fraction", 1, first),
            "id.sqnr": BaselineValue(None, "dB", 1, None),
        },
        history=(),
        predictions={"id": predictions(**columns)},
    )


def test_a_baseline_comes_back_as_it_was_saved(tmp_path):
    remarked = replace(baseline(), remarks=("2 of 9 prompts are cut",))
    save_baseline(tmp_path, approve_first(remarked, date="2026-01-01"))
    found = load_baseline(tmp_path, "m")
    assert found.remarks == remarked.remarks
    assert found.values == baseline().values
    assert found.history[0]["reason"] == "first baseline"
    assert found.predictions["id"].scalars["sqnr_db"] == float("inf")
    assert found.predictions["id"].column("id").tolist() == ["s0", "s1", "s2", "s3"]
    assert load_baseline(tmp_path, "other") is None


def test_a_pooled_table_is_not_stored_but_made_of_its_members(tmp_path):
    plain = baseline()
    two = {"id": predictions(), "far": predictions(shift=0.5)}
    origins = {"id": "id", "far": "far"}
    pooled = {"predictions": two | {"pooled": pool(two, origins)}, "pooled": {"pooled": origins}}
    save_baseline(tmp_path, replace(plain, predictions=two))
    columns = (tmp_path / "m.safetensors").read_bytes()
    save_baseline(tmp_path, replace(plain, **pooled))
    assert (tmp_path / "m.safetensors").read_bytes() == columns
    found = load_baseline(tmp_path, "m")
    assert found.pooled == {"pooled": origins}
    assert found.predictions["pooled"].column("id").tolist()[3:5] == ["id/s3", "far/s0"]
    assert np.array_equal(
        found.predictions["pooled"].column("mcm"),
        np.concatenate([two[name].column("mcm") for name in origins]),
    )
    document = json.loads((tmp_path / "m.json").read_text())
    document["pooled"]["pooled"]["gone"] = "gone"
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(BaselineError, match="'pooled': it pools gone, of which there are no col"):
        load_baseline(tmp_path, "m")


def test_the_json_is_for_people_one_line_per_metric(tmp_path):
    save_baseline(tmp_path, baseline())
    text = (tmp_path / "m.json").read_text()
    assert re.search(r'^    "id\.top1": \{"value": 0\.9, .*\}$', text, re.MULTILINE)
    assert json.loads(text)["schema"] == "clipq-baseline/2"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "m.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "m.json").write_text('{"schema": "x/9"}'), "schema 'x/9'"),
        (lambda f: (f / "m.safetensors").unlink(), "not a complete prediction table"),
        (lambda f: (f / "m.safetensors").write_bytes(b"123"), "not a complete prediction table"),
    ],
)
def test_a_damaged_baseline_is_named_with_how_to_restore_it(tmp_path, damage, message):
    save_baseline(tmp_path, baseline())
    damage(tmp_path)
    with pytest.raises(BaselineError, match=rf"(?s){message}.*restore the file"):
        load_baseline(tmp_path, "m")


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        ("true", "noise = True"),
        ("-1e-9", "noise = -1e-09"),
        ("1e6", r"noise = 1e\+06\n.*values of top1 lie in \[0, 1\]"),
        ("Infinity", "'Infinity' is no finite number"),
        ("1e999", "'1e999' is no finite number"),
        ("null", "noise = None"),
    ],
)
def test_a_noise_that_no_metric_can_have_is_refused(tmp_path, noise, said):
    save_baseline(tmp_path, baseline())
    text = (tmp_path / "m.json").read_text()
    (tmp_path / "m.json").write_text(re.sub(r'(id\.top1.*"noise": )[^}]*', rf"\g<1>{noise}", text))
    with pytest.raises(BaselineError, match=said):
        load_values(tmp_path, "m")


def test_columns_that_do_not_belong_to_the_json_are_tampering_and_hashes_are_shown(tmp_path):
    save_baseline(tmp_path, baseline())
    kept = (tmp_path / "m.json").read_text()
    save_baseline(tmp_path, baseline(shift=0.5))
    (tmp_path / "m.json").write_text(kept)
    with pytest.raises(BaselineError, match=r"tampered with.*hashes to [0-9a-f]{64}"):
        load_baseline(tmp_path, "m")


def test_an_update_needs_a_reason_and_keeps_the_first_approved_value():
    old = approve_first(baseline(), date="2026-01-01")
    with pytest.raises(BaselineError, match="needs a reason"):
        approve_update(old, baseline(0.89, 0.89), reason="  ", date="2026-02-01")
    once = approve_update(old, baseline(0.89, 0.89), reason="new torch", date="2026-02-01")
    twice = approve_update(once, baseline(0.88, 0.88), reason="again", date="2026-03-01")
    assert twice.values["id.top1"] == BaselineValue(0.88, "fraction", 1, 0.9)
    assert [entry["reason"] for entry in twice.history] == ["first baseline", "new torch", "again"]


def test_a_change_is_oriented_and_paired():
    found = changes(baseline(), baseline(0.85))
    assert [(c.key, round(c.loss, 6)) for c in found] == [("id.top1", 0.05)]
    assert flips(baseline(), baseline(), "id") == 0
    assert flips(baseline(), baseline(count=3), "id") is None


def test_the_sentinel_accepts_noise_and_names_what_moved():
    stored = baseline()
    assert drift(predictions(1e-6), stored, "id") == ""
    assert "FP32 itself moved: max_logit" in drift(predictions(0.01), stored, "id")
    lost = predictions()
    lost.columns["max_logit"][0] = np.nan
    assert "moved" in drift(lost, stored, "id")
    other = predictions()
    other.columns["id"][0] = "zz"
    assert "samples differ" in drift(other, stored, "id")


def test_values_can_be_read_without_the_columns(tmp_path):
    save_baseline(tmp_path, baseline())
    (tmp_path / "m.safetensors").unlink()
    assert set(load_values(tmp_path, "m")) == {"id.top1", "id.sqnr"}
