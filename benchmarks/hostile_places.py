"""What may lie where a file should be: a folder, a link to itself, a pipe, a device, nothing."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PLACES", "put"]

PLACES = ("folder", "nothing", "link to itself", "broken link", "pipe", "device", "socket", "empty")


def put(path: Path, what: str) -> None:
    """Put something in the place of a file."""
    path.unlink(missing_ok=True)
    if what == "folder":
        path.mkdir()
    elif what == "link to itself":
        path.symlink_to(path.name)
    elif what == "broken link":
        path.symlink_to("no such file")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as made:
            before = Path.cwd()
            os.chdir(path.parent)  # an address of a socket is short
            try:
                made.bind(path.name)
            finally:
                os.chdir(before)
    elif what == "empty":
        path.touch()
