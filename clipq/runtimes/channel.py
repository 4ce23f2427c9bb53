"""Messages between clipq and the process that runs an artifact: JSON, and arrays as bytes.

Nothing is pickled: what a process says that runs files of unknown origin is read as data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

__all__ = ["Arrays", "Packed", "packed", "receive", "send", "send_packed"]

Arrays = Mapping[str, np.ndarray]
Packed = tuple[bytes, list[np.ndarray]]


def send(connection: Connection, message: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Send a message of strict-JSON values, and arrays by name.

    >>> from multiprocessing import Pipe
    >>> here, there = Pipe()
    >>> send(here, {"do": "run"}, {"input": np.ones((2, 3), np.float32)})
    >>> message, arrays = receive(there)
    >>> message, arrays["input"].shape
    ({'do': 'run'}, (2, 3))
    """
    send_packed(connection, packed(message, arrays))


def packed(message: Mapping[str, Any], arrays: Arrays | None = None) -> Packed:
    """Return a message as bytes, all of it, before any is sent.

    Raises:
        TypeError, ValueError: it holds something else than strict-JSON values.

    >>> header, parts = packed({"batch": 2}, {"input": np.ones((), np.float32)})
    >>> header.decode(), len(parts)
    ('[{"batch": 2}, [["input", "<f4", []]]]', 1)
    """
    held = arrays or {}
    shapes = [[name, array.dtype.str, list(array.shape)] for name, array in held.items()]
    header = json.dumps([message, shapes], allow_nan=False).encode()
    return header, [np.ascontiguousarray(array) for array in held.values()]


def send_packed(connection: Connection, message: Packed) -> None:
    """Send what `packed` returned."""
    header, parts = message
    connection.send_bytes(header)
    for part in parts:
        if part.size:
            _write(connection.fileno(), part.reshape(-1).view(np.uint8).data)


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
            _read(connection.fileno(), part.reshape(-1).view(np.uint8).data)
        arrays[name] = part
    return message, arrays


# Not by the connection, which reads into a buffer that grows, and copies that.


def _write(descriptor: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _read(descriptor: int, rest: memoryview) -> None:
    while rest:
        count = os.readv(descriptor, [rest])
        if not count:
            raise EOFError
        rest = rest[count:]
