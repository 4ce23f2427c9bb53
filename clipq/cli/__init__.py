"""The command line."""

from clipq.cli.main import main

__all__ = ["main"]
