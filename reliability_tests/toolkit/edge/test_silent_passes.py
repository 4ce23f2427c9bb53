"""Ways to exit 0 without having measured: each is a failure that says what happened."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_project import CASES, TWO_LINES, at_home, read_report, run_pytest, write_project

from clipq.cli import main

ONE = CASES[0]


@pytest.fixture(autouse=True)
def _no_options_of_this_run(monkeypatch):
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)


def last_line(text: str) -> str:
    return text.rstrip().splitlines()[-1]


# -- whose test is it? ------------------------------------------------------------------------

FAILING = {ONE: "fail"}
SWALLOWED = """\
import pytest

@pytest.mark.xfail
def test_reliability(clipq_case, clipq_gate):
    {body}
"""
SUITES = {
    "a parameter above": f"import pytest\n@pytest.mark.parametrize('x', [0])\n"
    f"{TWO_LINES.replace('(clipq_case', '(x, clipq_case', 1)}",
    "brackets in a parameter": f"import pytest\n@pytest.mark.parametrize('x', ['a]b[c/d'])\n"
    f"{TWO_LINES.replace('(clipq_case', '(x, clipq_case', 1)}",
    "a parametrized fixture": "import pytest\n@pytest.fixture(params=['a/b', 'c'], autouse=True)\n"
    f"def other(request): return request.param\n{TWO_LINES}",
    "a fixture in between": "import pytest\n@pytest.fixture\ndef mine(clipq_case, clipq_gate):\n"
    "    return lambda: clipq_gate(clipq_case)\ndef test_it(mine):\n    mine()\n",
    "a class": "class TestMine:\n    def test_it(self, clipq_case, clipq_gate):\n"
    "        clipq_gate(clipq_case)\n",
    "an expected failure": SWALLOWED.format(body="clipq_gate(clipq_case)"),
    "a failure that is caught": SWALLOWED.format(
        body="try:\n        clipq_gate(clipq_case)\n    except BaseException:\n        pass"
    ),
}
REPEAT = """
def pytest_generate_tests(metafunc):  # what pytest-repeat does for --count 2
    metafunc.fixturenames.append("_step")
    metafunc.parametrize("_step", range(2), ids=["1-2", "2-2"])
@pytest.fixture
def _step(request):
    return request.param
"""


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_a_case_is_known_by_the_parameter_of_its_test(suite, tmp_path, capsys):
    write_project(tmp_path, suite=suite, verdicts=FAILING)
    assert run_pytest(tmp_path) == 1
    found = read_report(tmp_path)
    assert [case["case"] for case in found["cases"]] == list(CASES)
    assert found["counts"] == {"pass": 5, "fail": 1}
    assert last_line(capsys.readouterr().out).startswith("RELIABILITY GATE FAILED: 1 of 6 cases")


def test_a_case_that_is_repeated_counts_once(tmp_path, capsys):
    write_project(tmp_path, conftest=REPEAT)
    assert run_pytest(tmp_path) == 0
    assert (read_report(tmp_path)["planned"], len(read_report(tmp_path)["cases"])) == (6, 6)
    assert "12 passed" in capsys.readouterr().out


def test_a_case_that_is_judged_twice_and_not_alike_is_an_error(tmp_path):
    once = "VERDICTS[case.id] = 'improved' if case.id in VERDICTS else 'pass'"
    write_project(tmp_path, conftest=REPEAT, body=once)
    assert run_pytest(tmp_path) == 1
    (reason,) = {case["reason"] for case in read_report(tmp_path)["cases"]}
    assert "it was judged more than once, and was pass and then improved" in reason


def test_a_folder_with_brackets_is_a_folder(tmp_path):
    write_project(tmp_path)
    (tmp_path / "suite[gpu]").mkdir()
    (tmp_path / "test_gate.py").rename(tmp_path / "suite[gpu]" / "test_gate.py")
    assert run_pytest(tmp_path) == 0
    assert len(read_report(tmp_path)["cases"]) == 6


LOOPS = {
    "over all cases": (
        "from clipq.cases import Case\n"
        f"def test_all(clipq_gate):\n    for name in {CASES}:\n"
        "        clipq_gate(Case.parse(name))\n"
    ),
    "and hides that it failed": (
        f"from clipq.cases import Case\ndef test_all(clipq_gate):\n    for name in {CASES}:\n"
        "        try:\n            clipq_gate(Case.parse(name))\n"
        "        except BaseException:\n            pass\n"
    ),
    "by a fixture that is asked for by name": (
        f"from clipq.cases import Case\ndef test_all(request):\n    for name in {CASES}:\n"
        "        try:\n            request.getfixturevalue('clipq_gate')(Case.parse(name))\n"
        "        except BaseException:\n            pass\n"
    ),
    "of another test's case": (
        "from clipq.cases import Case\nimport pytest\n@pytest.mark.xfail\n"
        f"def test_all(clipq_case, clipq_gate):\n    clipq_gate(Case.parse({ONE!r}))\n"
    ),
}


@pytest.mark.parametrize("suite", LOOPS.values(), ids=LOOPS)
def test_a_test_judges_no_case_but_its_own(suite, tmp_path, capsys):
    write_project(tmp_path, suite=suite)
    assert run_pytest(tmp_path) == 1
    out = capsys.readouterr().out
    assert "which is not the case that it was planned for" in out or "is of no case" in out
    assert "RELIABILITY GATE FAILED" in last_line(out)
    assert read_report(tmp_path)["problems"] or read_report(tmp_path)["unreported"]


def test_a_skipped_case_was_never_reported(tmp_path, capsys):
    write_project(tmp_path, suite=f"import pytest\npytestmark = pytest.mark.skip\n{TWO_LINES}")
    assert run_pytest(tmp_path) == 1
    assert len(read_report(tmp_path)["unreported"]) == 6
    assert "6 that were planned were never reported" in last_line(capsys.readouterr().out)


# -- plugins that are missing -----------------------------------------------------------------


def test_no_run_goes_without_what_notices_that_something_is_missing(tmp_path, capsys):
    write_project(tmp_path, suite=SUITES["an expected failure"], verdicts=FAILING)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:clipq-collector\n")
    assert run_pytest(tmp_path) == 4
    assert "-p no:clipq-collector would let failures pass" in capsys.readouterr().err
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    take = (
        "    plugins = session.config.pluginmanager\n    plugins.unregister(name='clipq-collector')"
    )
    write_project(
        tmp_path,
        suite=SUITES["an expected failure"],
        conftest="@pytest.hookimpl(trylast=True)\n"
        f"def pytest_collection_finish(session):\n    {take}\n",
    )
    assert run_pytest(tmp_path) != 0


# -- what is left out -------------------------------------------------------------------------

PARTS = {
    "-k": (("-k", "w8"), 3),
    "-m": (("-m", "not slow"), 6),
    "--deselect": (("--deselect", f"test_gate.py::test_reliability[{ONE}]"), 5),
    "a node id": ((f"test_gate.py::test_reliability[{ONE}]",), 1),
    "-x": (("-x",), 1),
    "a selector": (("--clipq-metric", "ece"), 2),
}
LOOSE = '[[margin]]\n[margin.metrics]\n"*" = 0.9\n'
DROP = "def pytest_collection_modifyitems(items):\n    del items[{}:]\n"


@pytest.mark.parametrize(("arguments", "cases"), PARTS.values(), ids=PARTS)
def test_a_part_says_everywhere_that_it_is_one_and_is_no_release(
    arguments, cases, tmp_path, capsys
):
    failing = FAILING if arguments == ("-x",) else None
    write_project(tmp_path, verdicts=failing)
    code = run_pytest(tmp_path, *arguments, "--clipq-policy", "release")
    out = capsys.readouterr().out
    if cases == 6:  # nothing was left out
        assert (code, read_report(tmp_path)["selection"]) == (0, {})
        return
    assert code == 1
    said = f"part of the matrix: {cases} of 6 cases"
    folder = tmp_path / "report"
    assert said in last_line(out)
    assert "refuses a part" in last_line(out)
    assert f"policy release refuses a {said}" in out
    assert said in (folder / "report.md").read_text().split("##")[0]
    assert said in (folder / "report.html").read_text().split("<script")[0]
    suite = ElementTree.parse(folder / "junit.xml").getroot()[0]
    properties = {p.get("name"): p.get("value") for p in suite.find("properties")}
    assert said in properties["part"]
    assert [c for c in suite.findall("testcase") if said in c.get("name")]
    assert read_report(tmp_path)["passed"] is False


def test_everyday_a_part_may_pass_and_says_so(tmp_path, capsys):
    write_project(tmp_path, conftest=DROP.format(1))
    assert run_pytest(tmp_path) == 0
    said = "RELIABILITY GATE PASSED: 1 cases, policy ci; part of the matrix: 1 of 6 cases"
    assert last_line(capsys.readouterr().out).startswith(said)


def test_a_conftest_that_drops_every_case_is_named(tmp_path, capsys):
    ours = "[item for item in items if 'clipq_case' not in item.fixturenames]"
    write_project(
        tmp_path,
        conftest=f"def pytest_collection_modifyitems(items):\n    items[:] = {ours}\n",
        suite=f"def test_other(): pass\n{TWO_LINES}",
    )
    assert run_pytest(tmp_path) == 1
    assert "all 6 tests of the matrix were collected and then taken away" in capsys.readouterr().out
    write_project(tmp_path, suite=f"def test_other(): pass\n{TWO_LINES}")
    assert run_pytest(tmp_path, "-k", "other") == 0  # who asks for other tests gets those
    assert "RELIABILITY" not in capsys.readouterr().out


def test_other_margins_are_named_with_their_hash(tmp_path, capsys):
    write_project(tmp_path)
    loose = tmp_path / "loose.toml"
    loose.write_text(LOOSE)
    assert run_pytest(tmp_path) == 0
    usual = read_report(tmp_path)["inputs"]
    assert run_pytest(tmp_path, "--clipq-margins=loose.toml") == 0
    out = capsys.readouterr().out
    found = read_report(tmp_path)["inputs"]
    assert found["margins"]["file"] == "loose.toml"
    assert found["margins"]["instead_of"] == "baselines/margins.toml"
    assert found["margins"]["sha256"] != usual["margins"]["sha256"]
    assert found["settings"] == usual["settings"]
    said = "margins of loose.toml instead of baselines/margins.toml"
    assert said in out
    for name in ("report.md", "report.html", "junit.xml"):
        assert said in (tmp_path / "report" / name).read_text(), name


def test_margins_that_change_during_a_run_fail_it(tmp_path, capsys):
    body = "from pathlib import Path\nPath('baselines/margins.toml').write_text(EDITED)"
    write_project(tmp_path, body=body, conftest=f"EDITED = {LOOSE!r}\n")
    assert run_pytest(tmp_path) == 1
    assert "baselines/margins.toml (margins) was edited while the run was on" in last_line(
        capsys.readouterr().out
    )


# -- the banner is the exit code --------------------------------------------------------------


def test_a_report_that_cannot_be_written_is_no_pass(tmp_path, capsys):
    write_project(tmp_path)
    (tmp_path / "report").write_text("a file, no folder")
    assert run_pytest(tmp_path, "-q") == 1
    assert "RELIABILITY GATE FAILED: no report was written" in last_line(capsys.readouterr().out)


def test_a_failing_test_of_somebody_else_is_no_pass(tmp_path, capsys):
    write_project(tmp_path, suite=f"def test_other(): assert 0\n{TWO_LINES}")
    assert run_pytest(tmp_path, "-q", "--no-summary") == 1
    line = last_line(capsys.readouterr().out)
    assert line == "RELIABILITY GATE FAILED: 1 failures outside of the gate; policy ci"
    assert read_report(tmp_path)["passed"] is True


def test_who_sets_the_exit_code_to_0_is_not_believed(tmp_path, capsys):
    write_project(
        tmp_path,
        verdicts=FAILING,
        suite=SUITES["an expected failure"],
        conftest="def pytest_unconfigure(config):\n    SESSION[0].exitstatus = 0\nSESSION = []\n"
        "def pytest_sessionstart(session):\n    SESSION.append(session)\n",
    )
    assert run_pytest(tmp_path) == 1
    assert "RELIABILITY GATE FAILED" in last_line(capsys.readouterr().out)


def test_with_errors_the_conclusion_comes_last(tmp_path, capsys):
    body = "raise RuntimeError('one\\ntwo\\nthree')"
    write_project(tmp_path, body=body)
    assert run_pytest(tmp_path) == 1
    line = last_line(capsys.readouterr().out)
    assert line == "RELIABILITY GATE FAILED: 6 of 6 cases block; policy ci"


# -- clipq gate -------------------------------------------------------------------------------

NO_RUNS = (
    ("--collect-only", 2),
    ("--co", 2),
    ("--fixtures", 2),
    ("--fixtures-per-test", 2),
    ("--markers", 2),
    ("--help", 2),
    ("--setup-plan", 1),
    ("--setup-only", 1),
    ("-k nothing", 5),
)


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """`clipq gate` in this process on a project whose shipped suite is judged by the stand-in."""

    def run(*arguments: str) -> int:
        # The shipped suite does not lie in the project: its conftest comes as a plugin.
        monkeypatch.setattr("clipq.cli.gate._SUITE", tmp_path)
        for name in ("test_reliability.py", "test_kernels.py"):
            (tmp_path / name).write_text(TWO_LINES if "reliab" in name else "")
        (tmp_path / "test_gate.py").unlink(missing_ok=True)
        options = ["-n0", "-p", "no:cacheprovider", "--import-mode=importlib"]
        with at_home(tmp_path):
            return main(["gate", *options, *arguments])

    return run


@pytest.mark.parametrize(("options", "code"), NO_RUNS)
def test_a_gate_that_runs_nothing_fails_whatever_pytest_says(
    options, code, gate, tmp_path, monkeypatch, capfd
):
    write_project(tmp_path)
    monkeypatch.setenv("PYTEST_ADDOPTS", options)
    assert gate() == code
    found = capfd.readouterr()
    assert "RELIABILITY GATE FAILED" in found.out + found.err
    assert "RELIABILITY GATE PASSED" not in found.out + found.err
    if code == 2:
        assert options.replace("--co", "--collect-only")[:12] in found.err
        assert not (tmp_path / "report").exists()


def test_a_gate_passes_by_a_whole_run(gate, tmp_path, capfd):
    write_project(tmp_path)
    assert gate() == 0
    assert last_line(capfd.readouterr().out) == "RELIABILITY GATE PASSED: 6 cases, policy ci"


def test_a_gate_whose_modules_cannot_be_collected_misses_everything(gate, tmp_path, capfd):
    write_project(tmp_path, after="[profiles.quick]\n")
    (tmp_path / "test_broken.py").write_text("import nothing_of_that_name\n")
    assert gate("test_broken.py") == 2
    line = last_line(capfd.readouterr().out)
    assert line.startswith("RELIABILITY GATE FAILED: nothing was measured; 6 that were planned")


def test_a_gate_needs_no_plugin_loaded_by_itself(gate, tmp_path, monkeypatch, capfd):
    write_project(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert gate() == 0
    assert "RELIABILITY GATE PASSED" in last_line(capfd.readouterr().out)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_gate_that_cannot_say_anything_fails_and_leaves_the_last_report(
    gate, tmp_path, monkeypatch, capsys
):
    write_project(tmp_path)
    assert gate() == 0
    before = read_report(tmp_path)
    for buffering in (1, -1):  # noticed with the first line; when the buffer is emptied
        with open("/dev/full", "w", buffering) as full, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", full)
            assert gate() == 2
        assert "its output cannot be written: No space left on device" in capsys.readouterr().err
        assert buffering != 1 or read_report(tmp_path) == before
    before = read_report(tmp_path)
    assert len(before["cases"]) == 6
    with monkeypatch.context() as patched:  # `>&-`
        patched.setattr(sys, "stdout", None)
        assert gate() == 2
    assert "standard output or error is closed" in capsys.readouterr().err
    assert read_report(tmp_path) == before


def test_an_early_exit_of_the_process_is_no_pass(tmp_path, warm_process):
    write_project(tmp_path, body="import os; os._exit(0)")
    (tmp_path / "shim.py").write_text(
        "import runpy, sys\nfrom pathlib import Path\nimport clipq.cli.gate as gate\n"
        "gate._SUITE = Path.cwd()\nsys.argv = ['clipq', 'gate', '-n0']\n"
        "from clipq.cli import main\nsys.exit(main())\n"
    )
    (tmp_path / "test_gate.py").rename(tmp_path / "test_reliability.py")
    (tmp_path / "test_kernels.py").write_text("")
    done = warm_process.run(("shim",), cwd=tmp_path, environment={"PATH": "/bin"}, timeout=120)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "exited 0 before the run was over" in done.stderr
    (tmp_path / "conftest.py").write_text(
        (tmp_path / "conftest.py").read_text().replace("os._exit(0)", "os.kill(os.getpid(), 9)")
    )
    done = warm_process.run(("shim",), cwd=tmp_path, environment={"PATH": "/bin"}, timeout=120)
    assert done.returncode == 137
    assert "the gate's process was ended by SIGKILL" in done.stderr
