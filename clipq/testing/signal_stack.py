"""The stack on which signals are handled: a library that gives it back wrongly ends the process.

OpenVINO's CPU plug-in puts a stack of its own in the place of the thread's alternate signal stack
(`sigaltstack`), and where the plug-in is released by another thread, it unmaps that stack and
leaves the first thread with it. The next signal that has a handler (SIGINT, or SIGCHLD of a child
that ended) then ends the process by SIGSEGV, far from the cause and without a traceback.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["SignalStack"]


class _StackT(ctypes.Structure):
    """Linux's `stack_t`."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


class SignalStack:
    """The alternate signal stack that the calling thread has now; nothing elsewhere than on Linux.

    >>> SignalStack().restore()  # nothing has changed it
    False
    """

    def __init__(self) -> None:
        self._found = _StackT()
        if sys.platform == "linux":
            self._call(None, ctypes.byref(self._found))

    def restore(self) -> bool:
        """Give the calling thread this stack again; return whether it had another one."""
        if sys.platform != "linux":
            return False
        now = _StackT()
        self._call(None, ctypes.byref(now))
        if (now.address, now.size) == (self._found.address, self._found.size):
            return False
        self._call(ctypes.byref(self._found), None)
        return True

    @staticmethod
    def _call(new: object, old: object) -> None:
        ctypes.CDLL(None).sigaltstack(new, old)
