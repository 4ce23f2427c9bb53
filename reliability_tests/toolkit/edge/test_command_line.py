"""The command line: teaches, names mistakes in one message, and never a traceback."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from clipq.cli.main import parser
from clipq.pytest_plugin import pytest_addoption


def test_help_teaches_a_first_session(project):
    done = project.clipq("--help")
    assert done.returncode == 0
    for words in ("clipq baseline create", "clipq gate", "exit codes", "clipq list cases"):
        assert words in done.stdout


@pytest.mark.parametrize("kind", ["models", "quantizers", "probes", "metrics", "cases"])
def test_listings_show_what_there_is(project, kind):
    done = project.clipq("list", kind)
    assert done.returncode == 0
    expected = {
        "models": "local-dir:",
        "quantizers": "QuaRot: rounding after a random rotation",
        "probes": "in-distribution",
        "metrics": "expected calibration error",
        "cases": "6 cases",
    }
    assert expected[kind] in done.stdout


def test_a_baseline_is_created_once_shown_verified_and_updated_with_a_reason(project):
    folder = project.root / "baselines"
    shutil.rmtree(folder)
    folder.mkdir()
    assert project.clipq("baseline", "create").returncode == 0
    again = project.clipq("baseline", "create")
    assert again.returncode == 2
    assert "exists" in again.stderr
    assert "baseline update vit-clean --reason" in again.stderr
    shown = project.clipq("baseline", "show", "vit-clean")
    assert re.search(r"id\.top1 +0\.\d+ +fraction", shown.stdout)
    assert "first baseline" in shown.stdout
    verified = project.clipq("baseline", "verify")
    assert verified.returncode == 0, verified.stdout
    unchanged = project.clipq("baseline", "update", "--reason", "none")
    assert "nothing changed, nothing written" in unchanged.stdout
    assert project.clipq("baseline", "update").returncode == 2  # a reason is required


def test_an_update_shows_what_changes_and_keeps_the_first_value(project):
    path = project.root / "baselines" / "vit-clean.json"
    document = json.loads(path.read_text())
    truth = document["metrics"]["id.top1"]["value"]
    for key in ("value", "first"):
        document["metrics"]["id.top1"][key] = truth + 0.01
    path.write_text(json.dumps(document))
    failed = project.clipq("baseline", "verify")
    assert failed.returncode == 1
    assert "id.top1: stored" in failed.stdout
    done = project.clipq("baseline", "update", "--reason", "corrected")
    assert done.returncode == 0
    assert re.search(r"id\.top1 .* 0\.01 +\[-0\.00\d+, \+0\.00\d+\] +-0\.01 ", done.stdout)
    assert "0 of 2048 in-distribution predictions differ" in done.stdout
    stored = json.loads(path.read_text())
    assert stored["metrics"]["id.top1"]["value"] == truth
    assert stored["metrics"]["id.top1"]["first"] == pytest.approx(truth + 0.01)
    assert stored["history"][-1]["reason"] == "corrected"


def test_the_gate_command_runs_the_matrix_and_its_record_prints_again(project):
    done = project.clipq("gate", "-n0", "--metric", "top1", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "RELIABILITY GATE PASSED: 2 cases" in done.stdout
    path = ".clipq/report/report.json"
    for form, words in (("text", "rtn:w8a8"), ("markdown", "# clipq"), ("junit", "<testsuites")):
        printed = project.clipq("report", path, "--format", form)
        assert printed.returncode == 0
        assert words in printed.stdout


@pytest.mark.parametrize(
    ("change", "command", "message"),
    [
        (lambda t: t.replace("[matrix]", "[matrix"), ("list", "cases"), "cannot be read as TOML"),
        (lambda t: t.replace("rtn:w8a8", "rtn:w0"), ("list", "cases"), "w0"),
        (lambda t: t.replace("rtn:w8a8", "rnt:w8"), ("list", "cases"), "did you mean 'rtn'"),
        (lambda t: t.replace("'ece'", "'eec'"), ("list", "cases"), "did you mean 'ece'"),
        (lambda t: t, ("baseline", "show", "vit-claen"), "did you mean 'vit-clean'"),
        (lambda t: t, ("report", "nowhere.json"), "nowhere.json cannot be read as JSON"),
        (lambda t: t.replace('vit-clean"\n\n', 'gone"\n\n'), ("baseline", "verify"), "no model"),
    ],
)
def test_a_mistake_is_one_message_and_exit_2(project, change, command, message):
    path = project.root / "clipq.toml"
    path.write_text(change(path.read_text()))
    done = project.clipq(*command)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "fix:" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_settings_the_way_to_them_is_shown(project):
    (project.root / "clipq.toml").unlink()
    done = project.clipq("list", "cases")
    assert done.returncode == 2
    assert "no clipq.toml" in done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("gate", "--quantizr", "rtn:w8"), "clipq gate has no option --quantizr"),
        (("gate", "--quantizr", "rtn:w8"), "did you mean '--quantizer'"),
        (("gate", "--quant=rtn:w8", "-n0"), "clipq gate has no option --quant\n"),
        (("gate", "--config", "clipq.toml"), "clipq --config FILE gate"),
        (("history", "list", "--limt=3"), "did you mean '--limit'"),
        (("list", "cases", "models"), "clipq list takes no 'models'"),
    ],
)
def test_an_option_that_a_command_does_not_have_is_named_with_the_nearest(
    project, command, message
):
    done = project.clipq(*command)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "usage:" not in done.stdout + done.stderr


def test_the_gate_command_has_every_option_of_the_plugin_by_a_shorter_name():
    plugin = pytest.Parser(_ispytest=True)
    pytest_addoption(plugin)
    long = {name for option in plugin.getgroup("clipq").options for name in option.names()}
    gate = next(iter(parser(["gate"])._subparsers._group_actions)).choices["gate"]
    short = {name for action in gate._actions for name in action.option_strings}
    assert {name.replace("--clipq-", "--") for name in long} - {"--config"} <= short


def test_the_gate_command_hands_what_was_chosen_to_the_plugin(project):
    chosen = ("--metric", "top1", "--metric", "ece", "--quantizer=rtn:w8", "--report", "elsewhere")
    done = project.clipq("gate", "-n0", "--quiet", *chosen, "--profile", "full")
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((project.root / "elsewhere" / "report.json").read_text())
    cases = {(case["quantizer"], case["metric"]) for case in record["cases"]}
    assert cases == {("rtn:w8", "top1"), ("rtn:w8", "ece")}
