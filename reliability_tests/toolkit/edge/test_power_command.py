"""`clipq power`, the note before a run, and what interval verdicts look like to a user."""

from __future__ import annotations

import json
import math
import re


def strict(project, **margins):
    lines = "\n".join(f"{name} = {value}" for name, value in margins.items())
    (project.root / "baselines" / "margins.toml").write_text(
        f'[[margin]]\n[margin.metrics]\n"*" = 0.05\n{lines}\n'
    )


def test_power_shows_what_is_too_small_and_how_many_samples_would_do(project):
    strict(project, ece=0.002)
    done = project.clipq("power")
    assert done.returncode == 1, done.stderr
    assert re.search(
        r"id\.ece +w8, w8a8 +vit-clean +2,048 .*0\.002 fraction.*too small", done.stdout
    )
    assert "2 of 6 cases have margins that a harmless quantizer may not pass" in done.stdout
    everything = project.clipq("power", "--all")
    assert "digits.auroc-mcm" in everything.stdout
    strict(project)
    fine = project.clipq("power")
    assert fine.returncode == 0
    assert "A harmless quantizer passes all 6 cases" in fine.stdout


def test_power_takes_a_share_a_model_and_a_record(project):
    assert "above 0 and below 1" in project.clipq("power", "--disagreement", "3").stderr
    assert "no model matches 'vit-x'" in project.clipq("power", "--model", "vit-x").stderr
    assert (
        "none.json cannot be read as JSON" in project.clipq("power", "--record", "none.json").stderr
    )
    assert project.clipq("gate", "-n0", "-q").returncode == 0
    done = project.clipq("power", "--all", "--record", ".clipq/report/report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "standard errors as measured" in done.stdout


def test_a_margin_that_cannot_be_decided_is_named_before_the_run_and_blocks_a_release(project):
    strict(project, ece=0.001)
    run = project.pytest("-n0", "-q", "--clipq-metric", "ece")
    assert run.returncode == 0, run.stdout
    first, _, rest = run.stdout.partition("clipq reliability report")
    assert "clipq: 2 of 2 margins are smaller than these samples can decide (id.ece)" in first
    assert "not decided: the samples cannot tell" in rest
    release = project.pytest("-n2", "-q", "--clipq-metric", "ece", "--clipq-policy", "release")
    assert release.returncode == 1
    assert "blocking, worst first" in release.stdout
    assert "needed" in release.stdout
    record = json.loads((project.root / ".clipq" / "report" / "report.json").read_text())
    assert record["statistics"]["correction"] == "conditional"
    for case in record["cases"]:
        assert case["verdict"] == "inconclusive"
        estimate = case["estimate"]
        assert estimate["low"] <= estimate["loss"] <= estimate["high"]
        # None: the loss lies so near its margin that no number within reach would tell.
        assert (estimate["samples_needed"] or math.inf) > case["samples"] == 2048
        assert 0 < estimate["p_value"] <= estimate["adjusted_p"] <= 1


def test_verdicts_do_not_depend_on_the_number_of_workers(project):
    numbers = []
    for workers in ("-n0", "-n2"):
        assert project.pytest(workers, "-q").returncode == 0
        record = json.loads((project.root / ".clipq" / "report" / "report.json").read_text())
        numbers.append([(c["case"], c["verdict"], c["estimate"]) for c in record["cases"]])
    assert numbers[0] == numbers[1]


def test_what_fails_depends_on_the_candidates_cases_and_the_test_says_it(project):
    """Benjamini-Hochberg calls two of three cases failures that Holm's correction does not."""
    settings = project.root / "clipq.toml"
    text = settings.read_text()
    strict(project)
    assert project.pytest("-n0", "-q").returncode == 0
    record = json.loads((project.root / ".clipq" / "report" / "report.json").read_text())
    cases = {case["case"]: case for case in record["cases"]}
    # Margins 2.2 standard errors below each loss: p = 0.014 each; times 3 / 2, or times 3.
    margins = {
        f'"{c["probe"]}.{c["metric"]}"': c["estimate"]["loss"]
        - 2.2 * c["estimate"]["standard_error"]
        for c in cases.values()
        if c["metric"] in ("top1", "auroc-mcm") and c["quantizer"] == "rtn:w8a8"
    }
    strict(project, **margins)
    for correction, verdict in (("benjamini-hochberg", "fail"), ("holm", "suspect")):
        settings.write_text(f'{text}\n[statistics]\ncorrection = "{correction}"\n')
        done = project.pytest("-n0", "-q", "--clipq-quantizer", "rtn:w8a8")
        assert done.returncode == 1, done.stdout
        assert re.search(rf"\b2 {verdict}\b(,| in)", done.stdout)  # what the tests said
        assert "RELIABILITY GATE FAILED: 2 of 3 cases block" in done.stdout


def test_small_steps_that_add_up_to_more_than_a_margin_are_refused(project):
    path = project.root / "baselines" / "vit-clean.json"
    document = json.loads(path.read_text())
    document["metrics"]["id.top1"]["first"] += 0.2
    document["environment"]["isa"] = "older"
    path.write_text(json.dumps(document))
    before = path.read_bytes()
    done = project.clipq("baseline", "update", "--reason", "new driver")
    assert done.returncode == 2
    assert re.search(r"by more than a margin: id\.top1 by 0\.2 \(margin 0\.05\)", done.stderr)
    assert path.read_bytes() == before
    accepted = project.clipq(
        "baseline", "update", "--reason", "new driver", "--accept-cumulative-loss"
    )
    assert accepted.returncode == 0, accepted.stderr
    assert json.loads(path.read_text())["environment"]["isa"] != "older"


def test_a_value_edited_by_hand_is_noticed(project):
    path = project.root / "baselines" / "vit-clean.json"
    document = json.loads(path.read_text())
    document["metrics"]["id.top1"]["value"] -= 0.05
    path.write_text(json.dumps(document))
    done = project.pytest("-n0", "-q", "--clipq-metric", "top1")
    assert done.returncode == 1
    assert "its own columns give 0.858" in done.stdout


def test_a_baseline_states_the_noise_of_fp32_and_how_it_was_measured(project):
    (project.root / "baselines" / "vit-clean.json").unlink()
    assert project.clipq("baseline", "create").returncode == 0
    document = json.loads((project.root / "baselines" / "vit-clean.json").read_text())
    assert document["noise_from"] == ["batch_size 64", "threads 2"]
    assert all(0 <= entry["noise"] < 1e-3 for entry in document["metrics"].values())
    shown = project.clipq("baseline", "show").stdout
    assert "noise of FP32 over: batch_size 64, threads 2" in shown
