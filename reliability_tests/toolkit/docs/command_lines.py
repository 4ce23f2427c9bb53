"""Whether command lines are ones that clipq understands, without running them."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator

from clipq.cli.main import parser

_SHELL = ("cd", "echo", "exit", "export", "mkdir", "source", "test", "true")
_PROGRAMS = (
    "clipq",
    "gh",
    "git",
    "mkdocs",
    "pip",
    "pytest",
    "python",
    "ssh-keygen",
    "tox",
    "twine",
    *_SHELL,
)
_PYTEST = re.compile(r"-[nkxqvp]|-n\d+|-n=?auto|--lf|--numprocesses|--(maxfail|durations)=\d+")
_EXPRESSION = re.compile(r"\$\{\{.*?\}\}")
_SEPARATORS = frozenset(("&&", "||", "|", ";"))


def check_commands(text: str) -> int:
    """Parse every command of a script; return how many of them are clipq's.

    Raises:
        ValueError: an unknown program, or a command line that clipq would refuse.
    """
    count = 0
    for words in _commands(text):
        if words[0] not in _PROGRAMS:
            raise ValueError(f"{words[0]!r} in {' '.join(words)!r} is no program known here")
        if words[0] == "clipq":
            _check_clipq(words[1:])
            count += 1
    return count


def _commands(text: str) -> Iterator[list[str]]:
    joined = _EXPRESSION.sub("EXPRESSION", text).replace("\\\n", " ")
    for line in joined.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in _SEPARATORS:
                if words:
                    yield words
                words = []
            elif words or not re.fullmatch(r"[A-Za-z_]+=.*", word):  # not NAME=value
                words.append(word)


def _check_clipq(arguments: list[str]) -> None:
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(io.StringIO()):
            options, rest = parser().parse_known_args(arguments)
    except SystemExit as stop:
        if stop.code:
            raise ValueError(f"clipq {' '.join(arguments)}: {complaint.getvalue()}") from None
        return  # --help, --version
    if rest and options.command != "gate":
        raise ValueError(f"clipq {' '.join(arguments)}: unrecognized {rest}")
    for word in rest:
        if word.startswith("-") and not _PYTEST.fullmatch(word):
            raise ValueError(f"clipq {' '.join(arguments)}: {word} is no option of clipq gate")
