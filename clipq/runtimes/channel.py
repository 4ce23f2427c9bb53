"""Messages between clipq and the process that runs an artifact: JSON, and arrays as bytes.

Nothing is pickled: what a process says that runs files of unknown origin is read as data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

__all__ = ["Arrays", "receive", "send"]

Arrays = Mapping[str, np.ndarray]


def send(connection: Connection, message: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Send a message of strict-JSON values, and arrays by name.

    >>> from multiprocessing import Pipe
    >>> here, there = Pipe()
    >>> send(here, {"do": "run"}, {"input": np.ones((2, 3), np.float32)})
    >>> message, arrays = receive(there)
    >>> message, arrays["input"].shape
    ({'do': 'run'}, (2, 3))
    """
    parts = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    shapes = [[name, part.dtype.str, list(part.shape)] for name, part in parts.items()]
    connection.send_bytes(json.dumps([message, shapes]).encode())
    for part in parts.values():
        if part.size:
            connection.send_bytes(part.view(np.uint8).reshape(-1).data)


def receive(connection: Connection) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the next message and its arrays.

    Raises:
        EOFError: the other side is gone.
    """
    message, shapes = json.loads(connection.recv_bytes())
    arrays = {}
    for name, kind, shape in shapes:
        part = np.empty(shape, np.dtype(kind))
        if part.size:
            connection.recv_bytes_into(part.view(np.uint8).reshape(-1).data)
        arrays[name] = part
    return message, arrays
