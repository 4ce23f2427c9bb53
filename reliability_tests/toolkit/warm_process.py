"""Run `python -m MODULE` in a fork of a process that has imported clipq's libraries already.

Importing them takes a fresh process eight seconds, leaving it another: most of what a command does
on a small project. clipq itself is imported in the fork, as in a fresh process.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from _pytest.config import default_plugins

_PRELOADED = (
    "torch", "open_clip", "scipy.stats", "pandas", "sklearn.metrics", "sklearn.linear_model",
    "netcal.metrics", "webdataset", "rich.progress", "hydra.utils", "hypothesis.strategies",
    "sqlalchemy.orm", "alembic.command", "ruptures", "pytest", "xdist.plugin", "execnet",
    "anyio.pytest_plugin", "kgb.pytest_plugin", "PIL.PngImagePlugin", "PIL.WebPImagePlugin",
    *(f"_pytest.{name}" for name in default_plugins),
)  # fmt: skip
_WITH_PLUGINS = ("hypothesis", "_hypothesis_globals", "hydra", "anyio", "xdist", "kgb")
"""What has plug-ins: pytest would warn that it comes too late to rewrite them."""


def outside_of_tests(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of somebody who is not inside a test run.

    Under tox, pytest keeps what failed last in tox's folder: runs in many projects would share it.
    """
    return {k: v for k, v in environment.items() if not k.startswith(("PYTEST", "TOX_"))}


class WarmProcess:
    """The process that forks. Start it once, `close` it at the end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        self.address = f"{self._folder.name}/socket"
        environment = outside_of_tests(os.environ)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.address)
            listening.listen()
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(listening.fileno())],
                env=environment | {"OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS", "1")},
                pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def run(
        self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a module with arguments, as `subprocess.run` with captured text does.

        Raises:
            TimeoutExpired: it took longer than `timeout` seconds; it was killed.
        """
        request = {
            "command": ["-m", *command], "cwd": str(cwd), "environment": dict(environment)
        }  # fmt: skip
        with (
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
            open(os.devnull, "rb") as nothing,
            socket.socket(socket.AF_UNIX) as channel,
        ):
            channel.connect(self.address)
            line = json.dumps(request).encode() + b"\n"
            socket.send_fds(channel, [line], [nothing.fileno(), output.fileno(), errors.fileno()])
            with channel.makefile("r") as answers:
                late = threading.Timer(timeout, os.kill, (int(answers.readline()), signal.SIGKILL))
                late.start()
                code = int(answers.readline())
            expired = not late.is_alive()
            late.cancel()
            texts = []
            for stream in (output, errors):
                stream.seek(0)
                texts.append(stream.read().decode())
        if expired:
            raise subprocess.TimeoutExpired(list(command), timeout, *texts)
        return subprocess.CompletedProcess(list(command), code, *texts)

    def write_programs(self, folder: Path) -> None:
        """Write `python`, `clipq` and `pytest`, which a shell runs in a fork of this process."""
        text = _PROGRAM.format(python=sys.executable, address=self.address)
        for name in ("python", "clipq", "pytest"):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(timeout=60)
        self._folder.cleanup()


_PROGRAM = """\
#!{python} -SE
import json, os, socket, sys
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
words = words if name == "python" else ["-m", name, *words]
if not words or words[0].startswith("-") and words[0] not in ("-m", "-c"):
    os.execv({python!r}, [{python!r}, *words])
request = {{"command": words, "cwd": os.getcwd(), "environment": dict(os.environ)}}
channel = socket.socket(socket.AF_UNIX)
channel.connect({address!r})
socket.send_fds(channel, [json.dumps(request).encode() + b"\\n"], [0, 1, 2])
_, code = channel.makefile("r")
sys.exit(int(code) if int(code) >= 0 else 128 - int(code))
"""


def _serve(listening: socket.socket) -> None:
    for name in _PRELOADED:
        __import__(name)
    for name in _WITH_PLUGINS:
        sys.modules[name].__doc__ = "PYTEST_DONT_REWRITE"
    others = [task for task in Path("/proc/self/task").glob("*") if task.name != str(os.getpid())]
    names = {(task / "comm").read_text().strip() for task in others}
    # pyarrow's allocator has a thread that it starts again after a fork.
    if names - {"jemalloc_bg_thd"}:
        sys.exit(f"an import started threads that a fork would lack: {', '.join(sorted(names))}")
    # What is imported by now lives as long as the forks, which collect garbage more than once.
    gc.collect()
    gc.freeze()
    keepers: set[int] = set()
    while True:
        channel, _ = listening.accept()
        with channel:
            keepers -= {pid for pid in keepers if os.waitpid(pid, os.WNOHANG)[0]}
            keeper = os.fork()
            if not keeper:
                listening.close()
                _keep(channel)
            keepers.add(keeper)


def _keep(channel: socket.socket) -> None:
    """Start what a channel asks for, and answer with its process and exit code; never returns."""
    line, descriptors = b"", []
    while not line.endswith(b"\n"):
        part, more, *_ = socket.recv_fds(channel, 2**16, 3)
        line, descriptors = line + part, [*descriptors, *more]
        if not part:
            os._exit(0)
    child = os.fork()
    if not child:
        channel.close()
        _become(json.loads(line), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    channel.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    channel.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(request: dict[str, object], descriptors: Sequence[int]) -> None:
    """Turn this fork into Python with a command's arguments; never returns."""
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    what, *arguments = request["command"]
    if what in ("-m", "-c"):
        named, *arguments = arguments
    sys.argv = [named if what == "-m" else what, *arguments]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [request["cwd"], *(path for path in given if path)]
    _lend_workers(sum(int(a[2:]) for a in arguments if re.fullmatch(r"-n[0-9]+", a)))
    code: object = 0
    try:
        if what == "-m":
            runpy.run_module(named, run_name="__main__", alter_sys=True)
        elif what == "-c":
            exec(named, {"__name__": "__main__"})
        else:
            runpy.run_path(what, run_name="__main__")
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not by sys.exit: the teardown of what was imported takes a second.
    os._exit(code if isinstance(code, int) else int(code is not None))


def _lend_workers(count: int) -> None:
    """Fork the interpreters that pytest-xdist will ask for, for they would import it all again."""
    if not count:
        return
    from execnet import gateway_io

    class Forked:
        """The part of `subprocess.Popen` that execnet uses."""

        def __init__(self, pid: int, stdin: int, stdout: int) -> None:
            self.pid = pid
            self.stdin, self.stdout = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb")

        def wait(self) -> int:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

        def kill(self) -> None:
            os.kill(self.pid, signal.SIGKILL)

    ready: list[Forked] = []
    for _ in range(count):
        (their_input, stdin), (stdout, their_output) = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            for held in ready:
                held.stdin.close()
                held.stdout.close()
            os.close(stdin)
            os.close(stdout)
            os.dup2(their_input, 0)
            os.dup2(their_output, 1)
            sys.stdin = os.fdopen(0, "r", encoding="utf-8")
            sys.argv = ["-c"]
            line = sys.stdin.readline()  # what a worker is: sent by execnet, when it wants one
            if line:
                exec(eval(line), {"__name__": "__main__"})
            os._exit(0)
        os.close(their_input)
        os.close(their_output)
        ready.append(Forked(pid, stdin, stdout))
    start = gateway_io.Popen2IOMaster.__init__

    def take(self: gateway_io.Popen2IOMaster, args: list[str], execmodel: object) -> None:
        if not ready or args[0] != sys.executable:
            start(self, args, execmodel)
            return
        self.popen = process = ready.pop(0)
        super(gateway_io.Popen2IOMaster, self).__init__(process.stdin, process.stdout, execmodel)

    gateway_io.Popen2IOMaster.__init__ = take


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
