"""What clipq says to people: the one place that writes to standard output and standard error.

Names of classes, models, quantizers and files come from elsewhere, and so do messages of others'
quantizers. Printed as they are they could move the cursor, hide a line, or be taken by a CI system
for a command of its own (``::set-output``, ``##vso[...]``).
"""

from __future__ import annotations

import re
import shutil
import sys
from typing import TextIO

from clipq.redaction import redacted

__all__ = ["emit", "one_line", "printable", "say", "shown_width"]

# GitHub takes a line for a command where `::` follows nothing but space, and `##[` anywhere in it;
# Azure Pipelines and TeamCity look for `##vso[` and `##teamcity[`.
_COMMAND = re.compile(r"^([^\S\n]*):(?=:)", re.MULTILINE)
_SERVICE = re.compile(r"#(?=#(?:[a-z]{0,20})\[)", re.IGNORECASE)


def printable(text: str) -> str:
    r"""Return text that any terminal and CI log shows as text, line breaks kept.

    Control characters, invisible and reordering ones, and halves of characters become escapes as
    Python writes them; what a CI system would obey is taken apart by a space.

    >>> printable("cat\x1b[2J\n::error::all good\t")
    'cat\\x1b[2J\n: :error::all good    '
    """
    if not text.isascii() or not text.replace("\n", "").isprintable():
        text = text.replace("\r\n", "\n").replace("\t", "    ")
        text = "".join(
            letter if letter == "\n" or letter.isprintable() else ascii(letter)[1:-1]
            for letter in text
        )
    return _SERVICE.sub("# ", _COMMAND.sub(r"\g<1>: ", text))


def one_line(text: object) -> str:
    r"""Return what stands in a cell of a table or the middle of a sentence: printable, one line.

    >>> one_line("a\n  name\x07")
    'a name\\x07'
    """
    return printable(" ".join(str(text).split()))


def say(*texts: object, error: bool = False) -> None:
    """Print texts, made printable and without credentials, to standard output or error.

    Args:
        texts: of lines; joined by spaces as `print` does.
        error: whether it is about the run instead of its result.

    >>> say("https://ada:enigma@example.org/ was read")
    https://***@example.org/ was read
    """
    text = printable(redacted(" ".join(map(str, texts))))
    stream = sys.stderr if error else sys.stdout
    print(_encodable(text, stream), file=stream, flush=error)


def emit(text: str, *, end: str = "\n") -> None:
    r"""Print what a program reads (JSON, CSV, Markdown, a shell's script) as it is.

    >>> emit('{"passed": true}\n', end="")
    {"passed": true}
    """
    sys.stdout.write(_encodable(text + end, sys.stdout))


def shown_width() -> int | None:
    """Return how many columns standard output has; None where it is no terminal, or does not say.

    >>> shown_width() is None  # a test's output is kept
    True
    """
    try:
        if not sys.stdout.isatty():
            return None
    except ValueError:  # closed
        return None
    return shutil.get_terminal_size(fallback=(0, 0)).columns or None


def _encodable(text: str, stream: TextIO) -> str:
    """Return a text that a stream can take: with escapes for what its encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # A name that the terminal's encoding lacks is no reason to end without a result.
    return text.encode(encoding, "backslashreplace").decode(encoding)
