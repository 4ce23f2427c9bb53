"""A release process from end to end: policy, waivers, recording, comparing, the card."""

from __future__ import annotations

import datetime
import json
import re

import pytest

WAIVER = """\
[[waiver]]
cases = [{cases}]
reason = "accepted for the pilot"
owner = "ada@example.org"
expires = {expires}
"""


@pytest.fixture
def failing(project):
    """A project in which one case fails: its margin demands an improvement."""
    margins = project.root / "baselines" / "margins.toml"
    margins.write_text(margins.read_text() + "ece = -0.5\n")
    project.settings(quantizers=("rtn:w8",))
    return project


def report(project) -> dict:
    return json.loads((project.root / ".clipq" / "report" / "report.json").read_text())


NEXT_MONTH = (datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=30)).isoformat()


def waive(project, cases: str, expires: str = NEXT_MONTH) -> None:
    path = project.root / "baselines" / "waivers.toml"
    path.write_text(WAIVER.format(cases=cases, expires=expires))


def test_a_signed_waiver_lets_a_failure_pass_and_is_recorded(failing):
    done = failing.clipq("gate", "-n0", "--policy", "release")
    assert done.returncode == 1, done.stdout
    waive(failing, '"vit-clean/rtn:w8/id.ece"')
    done = failing.clipq("gate", "-n0", "--policy", "release")
    assert done.returncode == 0, done.stdout
    assert f"waived by ada@example.org until {NEXT_MONTH}: accepted for the pilot" in done.stdout
    plain = report(failing)
    assert plain["waivers"][0]["waived"] == ["vit-clean/rtn:w8/id.ece"]
    assert plain["policy"] == "release"
    card = failing.clipq("card", "vit-clean/rtn:w8")
    assert card.returncode == 0, card.stdout
    assert "## Known failures" in card.stdout


def test_a_part_of_the_matrix_is_no_ground_for_a_release(project):
    done = project.clipq("gate", "-n0", "--policy", "release", "--metric", "top1")
    assert done.returncode == 1, done.stdout
    assert "policy release refuses a part of the matrix: 2 of 6 cases (metrics top1)" in done.stdout
    card = project.clipq("card", "vit-clean/rtn:w8")
    assert card.returncode == 1
    assert "part of the matrix: 2 of 6 cases (metrics top1)" in card.stdout


@pytest.mark.parametrize(
    ("cases", "expires", "said"),
    [
        ('"vit-clean/rtn:w8/id.ece"', "2020-01-01", "expired on 2020-01-01"),
        ('"vit-clean/rtn:w8/id.ece", "nothing/*"', "2020-01-01", "expired on 2020-01-01"),
        ('"vit-clean/rtn:w8/id.top1"', NEXT_MONTH, "is not needed, no case of it fails"),
        ('"other/*"', NEXT_MONTH, "matches no case"),
    ],
)
def test_an_expired_needless_or_unmatched_waiver_fails_the_run(failing, cases, expires, said):
    waive(failing, cases, expires)
    done = failing.clipq("gate", "-n0")
    assert done.returncode == 1
    assert said in done.stdout
    assert any(said in problem for problem in report(failing)["problems"])
    card = failing.clipq("card", "vit-clean/rtn:w8")
    assert card.returncode == 1
    assert said in card.stdout


def test_a_needless_waiver_fails_a_run_that_would_pass(project):
    project.settings(quantizers=("rtn:w8",))
    waive(project, '"vit-clean/rtn:w8/id.ece"')
    done = project.pytest("-n2")
    assert done.returncode == 1
    assert re.search("^RELIABILITY GATE FAILED: waiver .* is not needed", done.stdout, re.M)


def test_an_unsigned_waiver_stops_the_run_before_anything_is_measured(project):
    (project.root / "baselines" / "waivers.toml").write_text('[[waiver]]\ncases = ["*"]\n')
    done = project.pytest("-n0")
    assert done.returncode != 0
    assert "[[waiver]] number 1: no reason" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (project.root / ".clipq" / "report" / "report.json").exists()


def test_runs_are_recorded_and_compared_on_the_same_samples(project):
    project.settings(quantizers=("rtn:w8",))
    first = project.clipq("gate", "-n0", "--record")
    assert first.returncode == 0, first.stdout
    assert "recorded: run #1" in first.stdout
    # Another quantizer behind the same name: what a researcher's edit does.
    (project.root / "mine.py").write_text(
        "import clipq\n\n\n@clipq.quantizers.register('mine')\n"
        "def mine(model, spec, calibration):\n    return model\n"
    )
    assert project.clipq("compare", "latest", "latest").returncode == 0
    second = project.clipq("gate", "-n0", "--record", "--policy", "release")
    assert "recorded: run #2" in second.stdout
    done = project.clipq("compare", "latest~1", "latest", "--json", "diff.json")
    assert done.returncode == 0, done.stdout
    plain = json.loads((project.root / "diff.json").read_text())
    assert plain["counts"] == {"identical": 3}
    assert done.stdout.rstrip().endswith(
        "NO REGRESSION: 3 cases compared, 3 of them on the same samples"
    )


def test_the_setting_keeps_complete_gates_and_the_option_any(project):
    path = project.settings(metrics=("top1", "ece", "auroc-mcm"))
    path.write_text(path.read_text() + "\n[history]\nrecord = true\n")
    done = project.clipq("gate", "-n0", "--metric", "top1")
    assert "not recorded: part of the matrix: 2 of 6 cases (metrics top1)" in done.stdout
    done = project.clipq("gate", "-n0", "--metric", "top1", "--record")
    assert "recorded: run #1" in done.stdout
    assert "passed, partial" in project.clipq("history", "list").stdout
    done = project.clipq("gate", "-n0")
    assert "recorded: run #2" in done.stdout
    margins = project.root / "baselines" / "margins.toml"
    margins.write_text(margins.read_text() + "ece = -0.5\n")
    done = project.clipq("gate", "-n0", "-x")
    assert "not recorded: part of the matrix: " in done.stdout
    assert report(project)["selection"] == {"maxfail": ["1"], "of": 6}


def test_an_edited_quantizer_is_compared_sample_by_sample(project):
    source = (
        "import clipq\n\n\n@clipq.quantizers.register('mine')\n"
        "def mine(model, spec, calibration):\n"
        "    model.visual.proj.data.mul_(1 + {noise} * model.visual.proj.data.sign())\n"
        "    model.visual.proj.data.round_(decimals={decimals})\n"
        "    return model\n"
    )
    project.settings(quantizers=("mine",), extra='plugins = ["mine"]')
    for number, (noise, decimals) in enumerate(((0.0, 3), (0.0, 1)), 1):
        (project.root / "mine.py").write_text(source.format(noise=noise, decimals=decimals))
        done = project.clipq("gate", "-n0", "--record")
        assert f"recorded: run #{number}" in done.stdout, done.stdout
    done = project.clipq("compare", "#1", "#2", "--json", "diff.json")
    plain = json.loads((project.root / "diff.json").read_text())
    assert {row["interval"] for row in plain["differences"]} == {"paired"}
    assert "the code of vit-clean/mine changed" in done.stdout
    assert done.returncode == bool(plain["regressions"])


def test_a_store_that_cannot_be_written_fails_the_run_and_loses_nothing(project):
    project.settings(quantizers=("rtn:w8",))
    (project.root / "full").write_text("a file, no folder")
    with (project.root / "clipq.toml").open("a") as stream:
        stream.write('\n[history]\nstore = "sqlite:///full/history.db"\nrecord = true\n')
    done = project.clipq("gate", "-n0")
    assert done.returncode == 1
    assert "the run was not recorded" in done.stdout.splitlines()[-1]
    assert "GATE PASSED" not in done.stdout
    assert report(project)["passed"] is True
    assert "Traceback" not in done.stdout
