"""Where a case changed is found between two runs, and git finds the commit from there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import history_runs
import made_results
import pytest

from clipq.history.bisect import (
    find_value_change,
    find_verdict_change,
    git_commands,
    is_new_value,
    is_new_verdict,
)
from clipq.history.model import RunInfo, StoredResult
from clipq.verdicts import POLICIES, Verdict

P, F, I = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE  # noqa: E741


def rows(*states: tuple[Verdict, float | None], baseline: float = 0.95) -> list[StoredResult]:
    found = []
    for number, (verdict, observed) in enumerate(states, 1):
        commit = {"sha": f"{number:040x}", "date": "", "subject": "", "branch": "m", "dirty": False}
        info = RunInfo(f"{number:064x}", number, f"2025-01-0{number}", commit, "ci", True, 1)
        loss = None if observed is None else baseline - observed
        found.append(
            StoredResult("vit/rtn:w4/id.top1", info, verdict, observed, baseline, loss, 0.02, None,
                         None, 0.01)
        )  # fmt: skip
    return found


def test_the_first_bad_run_follows_the_last_good_one():
    change = find_verdict_change(
        rows((P, 0.9), (P, 0.9), (F, 0.8), (F, 0.8)), policy=POLICIES["ci"]
    )
    assert (change.before.run.number, change.after.run.number) == (2, 3)
    assert (change.worse, change.runs_since, change.by) == (True, 2, "verdict")


def test_of_several_changes_the_last_one_counts():
    history = rows((F, 0.8), (P, 0.9), (F, 0.8), (P, 0.9), (F, 0.8))
    change = find_verdict_change(history, policy=POLICIES["ci"])
    assert (change.before.run.number, change.after.run.number) == (4, 5)


def test_what_blocks_depends_on_the_policy():
    history = rows((P, 0.9), (I, 0.9))
    assert find_verdict_change(history, policy=POLICIES["ci"]) is None
    assert find_verdict_change(history, policy=POLICIES["release"]).after.run.number == 2


def test_a_case_that_was_always_alike_has_no_change():
    assert find_verdict_change(rows((F, 0.8), (F, 0.7)), policy=POLICIES["ci"]) is None
    assert find_value_change(rows((P, 0.9), (F, 0.9)), policy=POLICIES["ci"]) is None
    assert find_value_change(rows((P, 0.9)), policy=POLICIES["ci"]) is None


def test_float_noise_is_no_change_of_a_value_and_a_step_is():
    history = rows((P, 0.9), (P, 0.9 + 1e-9), (P, 0.91), (P, 0.91 - 1e-9))
    change = find_value_change(history, policy=POLICIES["ci"])
    assert (change.before.run.number, change.after.run.number) == (2, 3)
    assert change.worse is False


def test_a_value_that_vanished_or_another_fp32_value_is_a_change():
    assert find_value_change(rows((P, 0.9), (Verdict.ERROR, None)), policy=POLICIES["ci"]).worse
    history = rows((P, 0.9), (P, 0.9))
    history[1] = replace(history[1], baseline=0.97)
    assert find_value_change(history, policy=POLICIES["ci"]).after.run.number == 2


def test_there_is_nothing_for_git_within_a_commit_or_without_one():
    history = rows((P, 0.9), (F, 0.8))
    change = find_verdict_change(history, policy=POLICIES["ci"])
    for commit in (history[1].run.commit, {}):
        run = replace(history[0].run, commit=commit)
        same = replace(change, before=replace(history[0], run=run))
        assert git_commands(same, folder="out") == []


def test_globs_in_a_quantizer_s_text_are_taken_literally():
    change = find_verdict_change(rows((P, 0.9), (F, 0.8)), policy=POLICIES["ci"])
    case = "vit/gptq:w4,float=visual.*[0]/id.top1"
    named = replace(change, after=replace(change.after, case=case))
    assert "visual.[*][[]0]" in git_commands(named, folder="out")[1]


@pytest.mark.parametrize(
    ("value", "old", "new", "expected"),
    [
        (0.84, 0.9, 0.8, True),
        (0.86, 0.9, 0.8, False),
        (None, 0.9, None, True),
        (0.9, 0.9, None, False),
        (0.9, None, 0.9, True),
        (None, None, 0.9, False),
        (None, 0.9, 0.8, None),
        (0.9, None, None, None),
    ],
)
def test_a_value_is_judged_by_which_side_it_is_nearer_to(value, old, new, expected):
    assert is_new_value(value, old=old, new=new) is expected


@pytest.mark.parametrize(
    ("verdict", "old", "new", "policy", "expected"),
    [
        (Verdict.IMPROVED, P, F, "ci", False),
        (Verdict.WAIVED, P, F, "ci", False),
        (Verdict.NON_FINITE, P, F, "ci", True),
        (I, P, F, "ci", False),
        (I, P, F, "release", True),
        (P, F, P, "ci", True),
        (F, F, P, "ci", False),
        (Verdict.MISSING, P, F, "ci", None),
        (Verdict.ERROR, P, F, "ci", None),
        (Verdict.INCOMPARABLE, F, P, "ci", None),
        (Verdict.DRIFTED, P, F, "ci", None),
        (Verdict.VANISHED, P, F, "ci", None),
        (Verdict.MISSING, P, Verdict.ERROR, "ci", None),
        (Verdict.ERROR, P, Verdict.ERROR, "ci", True),
        (Verdict.ERROR, Verdict.ERROR, P, "ci", False),
    ],
)
def test_a_verdict_is_judged_by_whether_it_blocks(verdict, old, new, policy, expected):
    assert is_new_verdict(verdict, old=old, new=new, policy=POLICIES[policy]) is expected


def test_the_gate_is_called_as_the_project_needs_it():
    change = find_verdict_change(rows((P, 0.9), (F, 0.8)), policy=POLICIES["release"])
    _, run = git_commands(
        change, folder="sub/out", program="clipq --config sub/clipq.toml", profile="full"
    )
    assert "clipq --config sub/clipq.toml gate --model vit" in run
    assert "--report sub/out --profile full --policy release -n0" in run


# A stand-in for a gate: what it does is in the file that the commits change.
GATE = """\
#!{python}
import json, sys
from pathlib import Path
sys.path[:0] = {folders!r}
if sys.argv[1] == "bisect":
    from clipq.cli import main
    raise SystemExit(main(sys.argv[1:]))
assert sys.argv[1:] == ["gate", "--model", "vit-0", "--quantizer", "rtn:w4",
                        "--probe", "id", "--metric", "top1", "--report", "out",
                        "--policy", "ci", "-n0"]
state, _, problem = Path("state").read_text().strip().partition(" ")
if state == "broken":
    raise SystemExit(2)
if state == "crashed":
    raise SystemExit(1)
from clipq.verdicts import POLICIES, Verdict
from history_runs import small_run
value = float(state)
verdict = Verdict.PASS if value > 0.85 else Verdict.FAIL
if problem == "missing":
    verdict = Verdict.MISSING
Path("out").mkdir(exist_ok=True)
record = small_run(0, value=value, verdict=verdict)
Path("out/report.json").write_text(json.dumps(record.to_plain()))
raise SystemExit(int(verdict is not Verdict.PASS or problem == "expired"))
"""


@pytest.fixture
def repository(tmp_path: Path):
    """Makes a git repository whose commits hold the given states; returns it and their hashes."""
    root = tmp_path / "repository"

    def make(states: list[str]) -> tuple[Path, list[str]]:
        root.mkdir()
        programs = tmp_path / "programs"
        programs.mkdir()
        script = programs / "clipq"
        folders = [str(Path(module.__file__).parent) for module in (history_runs, made_results)]
        script.write_text(GATE.format(python=sys.executable, folders=folders))
        script.chmod(0o755)
        git(root, "init", "-q")
        hashes = []
        for state in states:
            (root / "state").write_text(f"{state}\n")
            (root / "count").write_text(f"{len(hashes)}\n")
            git(root, "add", ".")
            git(root, "commit", "-qm", f"state {state}")
            hashes.append(git(root, "rev-parse", "HEAD"))
        return root, hashes

    return make


def git(root: Path, *command: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    done = subprocess.run(
        ["git", *identity, *command], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def bisected(root: Path, commands: list[str]) -> str:
    """Run the commands as printed; return what git says."""
    done = ""
    for command in commands:
        shell = subprocess.run(
            f'PATH="{root.parent}/programs:$PATH"; {command}',
            shell=True, cwd=root, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert shell.returncode == 0, shell.stdout + shell.stderr
        done += shell.stdout
    return done


def at(run: RunInfo, sha: str) -> RunInfo:
    return replace(run, commit={**run.commit, "sha": sha})


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize(
    ("states", "by", "culprit"),
    [
        (["0.9", "0.91", "broken", "0.92", "0.7"], "verdict", 4),
        (["0.7", "0.71", "0.9", "0.91"], "verdict", 2),
        (["0.95", "0.95", "0.95", "0.93", "0.93"], "value", 3),
        (["0.9", "0.91 expired", "0.92 expired", "0.93", "0.7"], "verdict", 4),
        (["0.7", "0.71", "0.9 expired", "0.91 expired"], "verdict", 2),
        (["0.9", "0.91", "0.92 missing", "0.93", "0.7"], "verdict", 4),
        (["0.9", "0.91", "crashed", "0.93", "0.7"], "verdict", 4),
        (["0.9", "0.93", "0.7", "crashed", "0.71"], "verdict", 2),
    ],
    ids=[
        "got worse", "got better", "has another value", "a waiver had expired",
        "got better while a waiver had expired", "a baseline was missing", "nothing was written",
        "a report was left from before",
    ],
)  # fmt: skip
def test_the_printed_commands_find_the_commit(repository, states, by, culprit):
    root, hashes = repository(states)
    (root / "out").mkdir()  # a report that another gate left
    stale = history_runs.small_run(0, value=0.7, verdict=F).to_plain()
    (root / "out/report.json").write_text(json.dumps(stale))
    ends = [float(state.split()[0]) for state in (states[0], states[-1])]
    history = rows(*((P if value > 0.85 else F, value) for value in ends))
    history = [
        replace(row, run=at(row.run, sha), case="vit-0/rtn:w4/id.top1")
        for row, sha in zip(history, (hashes[0], hashes[-1]), strict=True)
    ]
    find = find_verdict_change if by == "verdict" else find_value_change
    commands = git_commands(find(history, policy=POLICIES["ci"]), folder="out")
    said = bisected(root, commands)
    assert f"{hashes[culprit]} is the first" in said
