"""The plugin, run as a user runs it: verdicts, exit codes, completeness, interruptions."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

BROKEN = """\
import clipq
import torch


@clipq.quantizers.register("broken")
def broken(model, spec, calibration):
    "Rounds the image tower to three levels: far too coarse."
    with torch.no_grad():
        for parameter in model.visual.parameters():
            step = parameter.abs().max().clamp_min(1e-8)
            parameter.copy_((parameter / step).round() * step)
    return model
"""


def report(project):
    return json.loads((project.root / ".clipq" / "report" / "report.json").read_text())


def verdicts(project):
    return {case["case"]: case["verdict"] for case in report(project)["cases"]}


def test_a_sound_quantizer_passes_and_writes_every_report(project):
    done = project.pytest("-n0")
    assert done.returncode == 0, done.stdout
    assert "RELIABILITY GATE PASSED: 6 cases" in done.stdout
    assert set(verdicts(project).values()) <= {"pass", "improved"}
    folder = project.root / ".clipq" / "report"
    names = ["junit.xml", "report.html", "report.json", "report.md"]
    assert sorted(p.name for p in folder.iterdir()) == names


def test_one_process_and_many_give_the_same_report(project):
    assert project.pytest("-n0").returncode == 0
    alone = report(project)
    assert project.pytest("-n2").returncode == 0
    together = report(project)
    for record in (alone, together):
        for key in ("id", "started", "timings"):
            record.pop(key)
    assert alone == together


def test_a_broken_quantizer_from_outside_fails_and_says_which_case_by_how_much(project):
    (project.root / "mine.py").write_text(BROKEN)
    project.settings(quantizers=("broken", "rtn:w8"), extra='plugins = ["mine"]')
    done = project.pytest("-n2")
    assert done.returncode == 1
    found = verdicts(project)
    assert found["vit-clean/broken/id.top1"] == "fail"
    assert found["vit-clean/rtn:w8/id.top1"] == "pass"
    assert re.search(r"vit-clean/broken/id\.top1 +fail +0\.\d+ +0\.\d+", done.stdout)
    assert "clipq gate --model vit-clean --quantizer 'broken'" in done.stdout


def test_an_outcome_is_the_verdict_in_the_report(project):
    """No test passes that the report calls a failure, whoever judged its candidate; and `--lf` runs
    what the report blocks."""
    (project.root / "mine.py").write_text(BROKEN)
    project.settings(quantizers=("broken", "rtn:w8"), extra='plugins = ["mine"]')
    done = project.run("pytest", "test_gate.py", "-n2", "-v")
    record = report(project)
    said = {case: word for word, case in re.findall(r"([A-Z-]+) \S+\[(vit-\S+)\]", done.stdout)}
    words = {case: {"pass": "PASSED"}.get(verdict, verdict.upper()) for case, verdict
             in verdicts(project).items()}  # fmt: skip
    assert said == words
    blocking = {case for case, verdict in verdicts(project).items() if verdict in record["blocks"]}
    assert blocking
    (project.root / ".clipq" / "report" / "report.json").unlink()
    again = project.run("pytest", "test_gate.py", "-n2", "--lf")
    assert again.returncode == 1, again.stdout + again.stderr
    assert set(verdicts(project)) == blocking, done.stdout + again.stdout


def test_a_quantizer_may_be_registered_in_conftest(project):
    (project.root / "conftest.py").write_text(BROKEN)
    project.settings(quantizers=("broken",))
    assert project.pytest("-n0").returncode == 1
    assert verdicts(project)["vit-clean/broken/id.top1"] == "fail"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('no kernel image')", "no kernel image"),
        (
            "inner = model.visual.forward\n"
            "    def forward(x):\n"
            "        if len(x) > 1: raise RuntimeError('out of registers')\n"
            "        return inner(x)\n"
            "    model.visual.forward = forward\n"
            "    return model",
            "failed while encoding the images of probe",
        ),
        ("return None", "broken"),
        ("return model", "changed nothing"),
        ("[p.data.zero_() for p in model.visual.parameters()]; return model", "zeroed"),
        ("[p.data.fill_(float('nan')) for p in model.visual.parameters()]; return model", "nan"),
    ],
)
def test_a_quantizer_that_misbehaves_is_named_with_what_it_did(project, body, message):
    (project.root / "mine.py").write_text(
        "import clipq\n@clipq.quantizers.register('broken')\n"
        f"def broken(model, spec, calibration):\n    {body}\n"
    )
    project.settings(quantizers=("broken",), metrics=("top1",), extra='plugins = ["mine"]')
    done = project.pytest("-n0", "--clipq-metric", "top1")
    assert done.returncode == 1
    case = report(project)["cases"][0]
    assert case["verdict"] in ("error", "non-finite")
    assert message in case["reason"]
    assert "Traceback" not in done.stdout


def test_a_missing_baseline_fails_and_prints_the_command_that_creates_it(project):
    (project.root / "baselines" / "vit-clean.json").unlink()
    done = project.pytest("-n0")
    assert done.returncode == 1
    assert set(verdicts(project).values()) == {"missing"}
    assert "clipq baseline create vit-clean" in done.stdout
    assert not (project.root / "baselines" / "vit-clean.json").exists()


def test_a_metric_that_disappears_does_not_pass_by_absence(project):
    project.settings(metrics=("top1", "auroc-mcm"))
    done = project.pytest("-n0")
    assert done.returncode == 1
    assert verdicts(project)["vit-clean/fp32/id.ece"] == "vanished"


def test_selecting_a_part_is_no_disappearance(project):
    done = project.pytest("-n0", "--clipq-metric", "top1", "--clipq-quantizer", "rtn:w8")
    assert done.returncode == 0
    assert list(verdicts(project)) == ["vit-clean/rtn:w8/id.top1"]
    expected = {"metrics": ["top1"], "quantizers": ["rtn:w8"], "of": 6}
    assert report(project)["selection"] == expected


def test_a_pair_that_is_measured_in_full_is_named(project):
    assert project.pytest("--clipq-quantizer", "rtn:w8").returncode == 0
    complete = ["vit-clean/rtn:w8"]
    assert report(project)["selection"] == {
        "quantizers": ["rtn:w8"], "complete": complete, "of": 6
    }  # fmt: skip


def test_a_baseline_of_other_weights_is_incomparable(project):
    path = project.root / "baselines" / "vit-clean.json"
    document = json.loads(path.read_text())
    document["identity"]["weights_sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    done = project.pytest("-n0", "--clipq-metric", "top1")
    assert done.returncode == 1
    assert set(verdicts(project).values()) == {"incomparable"}
    assert "weights_sha256" in done.stdout


def test_when_fp32_itself_moved_no_quantizer_is_judged(project):
    from clipq.gating.baseline import load_baseline, save_baseline

    folder = project.root / "baselines"
    stored = load_baseline(folder, "vit-clean")
    moved = stored.predictions["id"].columns["max_logit"] + 0.02
    stored.predictions["id"].columns["max_logit"] = moved
    save_baseline(folder, stored)
    done = project.pytest("-n0", "--clipq-metric", "top1")
    assert done.returncode == 1
    assert set(verdicts(project).values()) == {"drifted"}
    assert "FP32 itself moved" in done.stdout


def test_an_expected_failure_is_waived_and_an_unexpected_success_fails(project):
    margins = project.root / "baselines" / "margins.toml"
    entry = '[[expected-failure]]\ncases = ["*/rtn:w8/id.top1"]\nreason = "known to collapse"\n'
    margins.write_text(margins.read_text() + entry)
    done = project.pytest("-n0", "--clipq-metric", "top1")
    assert done.returncode == 1
    assert verdicts(project)["vit-clean/rtn:w8/id.top1"] == "fail"
    assert "expected to fail (known to collapse), but it did not" in done.stdout
    margins.write_text(margins.read_text().replace('"*" = 0.05', '"*" = 0.05\ntop1 = -0.9'))
    project.pytest("-n0", "--clipq-metric", "top1")
    assert verdicts(project)["vit-clean/rtn:w8/id.top1"] == "waived"


def test_selecting_nothing_is_never_a_pass(project):
    assert project.pytest("-n0", "-k", "nothing").returncode != 0
    done = project.pytest("-n0", "--clipq-metric", "tpo1")
    assert done.returncode == 2
    assert "did you mean 'top1'" in done.stdout
    assert "_hookexec" not in done.stdout  # a message, no traceback


def test_last_failed_and_keyword_selection_work(project):
    done = project.run("pytest", "test_gate.py", "-n0", "-k", "w8a8 and ece")
    assert done.returncode == 0
    assert list(verdicts(project)) == ["vit-clean/rtn:w8a8/id.ece"]
    assert report(project)["selection"] == {"keyword": ["w8a8 and ece"], "of": 6}
    (project.root / "baselines" / "margins.toml").write_text(
        '[[margin]]\n[margin.metrics]\n"*" = 0.05\nece = -0.9\n'
    )
    assert project.run("pytest", "test_gate.py", "-n0").returncode == 1
    assert report(project)["selection"] == {}
    assert project.run("pytest", "test_gate.py", "-n0", "--lf").returncode == 1
    assert report(project)["selection"] == {"cache": ["--lf"], "of": 6}
    assert {name.rpartition(".")[2] for name in verdicts(project)} == {"ece"}


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_the_record_says_what_was_left_out_by_node_id_and_deselection(project, workers):
    one = "test_reliability[vit-clean/rtn:w8/id.top1]"
    project.pytest(workers, "--deselect", f"test_gate.py::{one}")
    assert report(project)["selection"] == {
        "deselected": [f"test_gate.py::{one}"],
        "complete": ["vit-clean/rtn:w8a8"],
        "of": 6,
    }
    done = project.run("pytest", workers, f"test_gate.py::{one}")
    assert done.returncode == 0
    assert report(project)["selection"] == {"arguments": [one], "of": 6}


def test_the_record_says_where_a_profile_or_a_conftest_left_cases_out(project):
    path = project.root / "clipq.toml"
    path.write_text(path.read_text() + '\n[profiles.quick]\nmetrics = ["top1"]\n')
    project.pytest("-n0", "--clipq-profile", "quick")
    assert report(project)["selection"] == {"profile": ["quick"], "of": 6}
    (project.root / "conftest.py").write_text(
        "def pytest_collection_modifyitems(items):\n    del items[1:]\n"
    )
    project.pytest("-n0")
    assert report(project)["selection"] == {"deselected": ["by other means"], "of": 6}


def test_a_killed_worker_is_an_error_and_leaves_the_cache_whole(project):
    (project.root / "mine.py").write_text(
        "import os, signal\nimport clipq\n@clipq.quantizers.register('killer')\n"
        "def killer(model, spec, calibration):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    project.settings(quantizers=("killer", "rtn:w8"), metrics=("top1",), extra='plugins = ["mine"]')
    done = project.pytest("-n2", "--clipq-metric", "top1")
    assert done.returncode != 0
    found = verdicts(project)
    assert found["vit-clean/killer/id.top1"] == "error"
    assert found["vit-clean/rtn:w8/id.top1"] == "pass"
    assert "RELIABILITY GATE FAILED" in done.stdout
    project.settings(metrics=("top1", "ece", "auroc-mcm"))
    assert project.pytest("-n2").returncode == 0


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_interrupting_keeps_what_was_measured_and_exits_130(project, workers):
    (project.root / "mine.py").write_text(
        "import time\nimport clipq\n@clipq.quantizers.register('slow')\n"
        "def slow(model, spec, calibration):\n    open('started', 'w').close()\n"
        "    time.sleep(60)\n    return model\n"
    )
    project.settings(quantizers=("rtn:w8", "slow"), metrics=("top1",), extra='plugins = ["mine"]')
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "test_gate.py", workers, "--clipq-metric", "top1"],
        cwd=project.root,
        env=os.environ | {"PYTHONPATH": str(project.root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell's background job ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 90
    while not (project.root / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    record = report(project)
    assert [case["case"] for case in record["cases"]] == ["vit-clean/rtn:w8/id.top1"]
    assert record["unreported"] == ["vit-clean/slow/id.top1"]
    assert record["passed"] is False


def test_an_edited_quantizer_never_reuses_what_its_old_code_cached(project):
    source = BROKEN.replace(".round() * step", ".round() * step * 0 + parameter * 1.0001")
    (project.root / "mine.py").write_text(source)
    project.settings(quantizers=("broken",), metrics=("top1",), extra='plugins = ["mine"]')
    assert project.pytest("-n0", "--clipq-metric", "top1").returncode == 0
    (project.root / "mine.py").write_text(BROKEN)
    assert project.pytest("-n0", "--clipq-metric", "top1").returncode == 1


def test_a_project_without_settings_is_left_alone(tmp_path):
    (tmp_path / "test_other.py").write_text("def test_nothing():\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "clipq" not in done.stdout


class TestEachCaseOnce:
    """Whatever runs a case how often, the record has it once, with its figures."""

    def same_as_alone(self, project, *arguments: str) -> None:
        assert project.pytest("-n0").returncode == 0
        alone = report(project)
        done = project.run("pytest", "-p", "no:cacheprovider", ".", *arguments)
        assert done.returncode == 0, done.stdout
        repeated = report(project)
        assert repeated["evidence"]["figures"].keys() == alone["evidence"]["figures"].keys()
        assert repeated["evidence"]["figures"] == alone["evidence"]["figures"]
        assert repeated["cases"] == alone["cases"]
        assert (repeated["planned"], len(repeated["cases"])) == (6, 6)

    @pytest.mark.parametrize("processes", ["-n0", "-n2"])
    def test_two_modules_with_the_two_line_test(self, project, processes):
        two_lines = (project.root / "test_gate.py").read_text()
        (project.root / "test_again.py").write_text(two_lines)
        self.same_as_alone(project, processes)

    def test_a_plugin_that_tries_again(self, project):
        (project.root / "conftest.py").write_text(
            "from _pytest.runner import runtestprotocol\n"
            "def pytest_runtest_protocol(item, nextitem):\n"
            "    runtestprotocol(item, nextitem=nextitem, log=True)\n"
            "    runtestprotocol(item, nextitem=nextitem, log=True)\n"
            "    return True\n"
        )
        self.same_as_alone(project, "-n0")

    def test_the_order_of_cases_changes_nothing(self, project):
        (project.root / "conftest.py").write_text(
            "def pytest_collection_modifyitems(items):\n    items.reverse()\n"
        )
        self.same_as_alone(project, "-n0")


UNFINISHED = {
    "no matrix": '[clipq]\npolicy = "ci"\n',
    "no TOML": "[clipq\n",
    "an unknown key": "[matricks]\n",
}


class TestUnfinishedSettings:
    """A settings file that is not finished stops the tests that need it, and no other."""

    @pytest.mark.parametrize("text", UNFINISHED.values(), ids=UNFINISHED)
    def test_unrelated_tests_run(self, project, text):
        (project.root / "clipq.toml").write_text(text)
        (project.root / "test_other.py").write_text(
            "import pytest\n@pytest.mark.parametrize('x', ['a/b'])\ndef test_other(x): pass\n"
        )
        done = project.run("pytest", "-p", "no:cacheprovider", "test_other.py", "-n0")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 passed" in done.stdout
        assert "cannot be used; a test that takes a case will say why" in done.stdout

    @pytest.mark.parametrize("text", UNFINISHED.values(), ids=UNFINISHED)
    def test_a_test_that_takes_a_case_fails_with_the_message(self, project, text):
        (project.root / "clipq.toml").write_text(text)
        done = project.pytest("-n0")
        assert done.returncode == 2
        assert "clipq.toml" in done.stdout
        assert "fix:" in done.stdout
        assert "Traceback" not in done.stdout + done.stderr

    def test_a_plugin_that_is_not_there_stops_only_tests_that_take_a_case(self, project):
        project.settings(extra='plugins = ["no_such_module"]')
        (project.root / "test_other.py").write_text("def test_other(): pass\n")
        other = project.run("pytest", "-p", "no:cacheprovider", "test_other.py", "-n0")
        assert other.returncode == 0, other.stdout
        done = project.pytest("-n0")
        assert done.returncode == 2
        assert "plugin 'no_such_module'" in done.stdout

    def test_an_option_that_names_no_file_is_wrong_usage(self, project):
        done = project.pytest("-n0", "--clipq-config", "nowhere.toml")
        assert done.returncode == 4
        assert "nowhere.toml is no file" in done.stdout + done.stderr
