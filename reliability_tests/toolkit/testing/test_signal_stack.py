"""What a library does to the stack of signals does not end the process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_PROGRAM = """\
import faulthandler, signal, sys, threading
import openvino
from clipq.testing.signal_stack import SignalStack

faulthandler.enable()
stack = SignalStack()
cores = [openvino.Core()]
cores[0].get_property("CPU", "FULL_DEVICE_NAME")
other = threading.Thread(target=cores.clear)
other.start()
other.join()
if sys.argv[1] == "restored":
    assert stack.restore() and not stack.restore()
signal.signal(signal.SIGUSR1, lambda number, frame: print("handled"))
signal.raise_signal(signal.SIGUSR1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's signal stacks")
def test_a_plug_in_that_another_thread_releases_leaves_signals_a_stack():
    program = [sys.executable, "-c", _PROGRAM]
    left = subprocess.run([*program, "left"], capture_output=True, text=True, check=False)
    assert left.returncode == -signal.SIGSEGV, "openvino mended it: delete this, and its use"
    restored = subprocess.run([*program, "restored"], capture_output=True, text=True, check=False)
    assert (restored.returncode, restored.stdout) == (0, "handled\n"), restored.stderr
