"""A wrong option of `clipq gate`, which hands what it does not know to pytest.

Only pytest, with all of its plugins loaded, can say that an option is nobody's. It would say so of
its own command line, which the caller never saw.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Generator
from typing import Any

import pytest

from clipq.cli.unknown import unknown

__all__ = ["PytestUsage"]

_UNKNOWN = re.compile("unrecognized arguments: (.+)")


class PytestUsage:
    """A plugin of pytest that turns its complaint about an option into clipq's.

    Args:
        command: that was given the option.
    """

    def __init__(self, command: argparse.ArgumentParser) -> None:
        self._command = command

    @pytest.hookimpl(wrapper=True)
    def pytest_cmdline_parse(self) -> Generator[None, Any, Any]:
        """Let pytest parse its command line.

        Raises:
            UnknownNameError: it has an option that neither pytest nor a plugin knows.
        """
        try:
            return (yield)
        except pytest.UsageError as error:
            match = _UNKNOWN.search(str(error))
            if match is None:
                raise
            words = match[1].split()
        raise unknown(words, self._command, besides="; and pytest's: pytest --help")
