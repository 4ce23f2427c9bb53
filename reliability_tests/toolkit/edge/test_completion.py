"""Shells complete clipq's commands and options by a script made from clipq itself."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from clipq.cli.main import COMMANDS, main

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture
def script(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "clipq.bash"
    path.write_text(capsys.readouterr().out)
    return path


def completed(script: Path, *words: str) -> list[str]:
    """Return what bash's programmable completion offers for the last word."""
    line = " ".join(words)
    quoted = " ".join(f"'{word}'" for word in words)
    previous = words[-2] if len(words) > 1 else ""
    program = f"""
        source '{script}'
        function=$(complete -p clipq | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
        COMP_LINE='{line}'; COMP_POINT={len(line)}
        "$function" clipq '{words[-1]}' '{previous}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert not done.stderr
    return done.stdout.split()


@needs_bash
def test_bash_loads_the_script(script):
    program = f"source '{script}'; complete -p clipq"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0
    assert "clipq" in done.stdout
    assert not done.stderr


@needs_bash
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("clipq", "ga"), ["gate"]),
        (("clipq", "list", "ca"), ["cases"]),
        (("clipq", "baseline", "ver"), ["verify"]),
        (("clipq", "gate", "--pol"), ["--policy"]),
        (("clipq", "gate", "--pro"), ["--profile", "--probe"]),
        (("clipq", "completion", ""), ["bash", "zsh", "tcsh"]),
    ],
)
def test_commands_options_and_choices_are_completed(script, words, offered):
    assert completed(script, *words) == offered


@needs_bash
def test_every_command_is_offered(script):
    assert set(COMMANDS) <= set(completed(script, "clipq", ""))


@needs_bash
@pytest.mark.parametrize(
    "words", [("compare", "rep"), ("gate", "--report", "rep"), ("compare", "a", "rep")]
)
def test_files_are_completed_where_they_may_stand(script, words, tmp_path, monkeypatch):
    (tmp_path / "report.json").touch()
    monkeypatch.chdir(tmp_path)
    assert completed(script, "clipq", *words) == ["report.json"]


@needs_bash
def test_a_tab_at_an_interactive_prompt_completes(script):
    controller, terminal = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": "$ "},
        start_new_session=True,
    )
    os.close(terminal)
    try:
        os.write(controller, f"source '{script}'; echo rea''dy\n".encode())
        _read_until(controller, r"ready\r")
        os.write(controller, b"clipq ga\t")
        assert "clipq gate" in _read_until(controller, r"clipq gate")
    finally:
        shell.kill()
        shell.wait()
        os.close(controller)


def _read_until(controller: int, pattern: str) -> str:
    text, deadline = "", time.monotonic() + 30
    while not re.search(pattern, text) and time.monotonic() < deadline:
        if select.select([controller], [], [], 0.2)[0]:
            text += os.read(controller, 4096).decode(errors="replace")
    return text


def test_the_scripts_of_other_shells_are_theirs(capsys):
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef clipq")
    assert main(["completion", "tcsh"]) == 0
    assert "complete clipq" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_reads_its_script(tmp_path, capsys):
    assert main(["completion", "zsh"]) == 0
    path = tmp_path / "_clipq"
    path.write_text(capsys.readouterr().out)
    assert subprocess.run(["zsh", "-n", path]).returncode == 0


def test_help_says_how_to_install_it(capsys):
    with pytest.raises(SystemExit):
        main(["completion", "--help"])
    shown = capsys.readouterr().out
    for words in ("bash-completion/completions/clipq", "fpath", ".tcshrc"):
        assert words in shown


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["completion", "fish"])
    assert stopped.value.code == 2
    assert "bash" in capsys.readouterr().err
