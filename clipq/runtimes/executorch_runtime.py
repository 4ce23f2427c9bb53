"""ExecuTorch: .pte.

Which backend executes what is decided at export; here it is only looked up whether it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError, did_you_mean
from clipq.runtimes.executorch_look import look_at_pte
from clipq.runtimes.executorch_program import METHOD, ExecuTorchProgram
from clipq.runtimes.file_kinds import EXECUTORCH, check_kind
from clipq.runtimes.graph_ports import (
    check_batch,
    check_features,
    chosen_inputs,
    chosen_output,
    fitting,
    fixed_batch,
)
from clipq.runtimes.optional_library import library
from clipq.runtimes.precision import check_as_exported, narrowest
from clipq.runtimes.runtime import Look, TowerFacts, TowerPorts

__all__ = ["RUNTIME", "ExecuTorchRuntime"]

_PORTABLE = "portable"
"""What is said of a program that no backend has a part of: ExecuTorch's own kernels run it."""


class _MethodTower:
    """A method that is loaded."""

    def __init__(
        self,
        program: Any,
        facts: TowerFacts,
        *,
        places: Mapping[str, int],
        output: int,
        path: Path,
        kind: str,
    ) -> None:
        self.facts = facts
        self._program = program  # holds the memory of its method
        self._method = program.load_method(METHOD)
        self._places = places
        self._output = output
        self._path = path
        self._kind = kind

    def run(self, inputs: Mapping[str, np.ndarray], /) -> np.ndarray:
        """Return features (B, D) of one batch, as the program returns them; bfloat16 as float32.

        Raises:
            ArtifactError: an input does not fit the program, or ExecuTorch refuses it.
        """
        import torch

        check_batch(len(inputs["input"]), self.facts, self._path)
        given: list[Any] = [None] * len(self._places)
        for name, place in self._places.items():
            kind = "mask" if name == "mask" else self._kind
            array = fitting(inputs[name], self.facts.inputs[place], self._path, kind=kind)
            given[place] = torch.from_numpy(array if array.flags.writeable else array.copy())
        try:
            features = self._method.execute(given)[self._output]
        except RuntimeError as error:
            shapes = ", ".join(str(tuple(each.shape)) for each in given)
            raise ArtifactError(
                f"ExecuTorch cannot run {self._path} on {shapes}: {error}",
                hint="export it at the model's image size and context length",
            ) from error
        if features.dtype == torch.bfloat16:
            features = features.float()
        return check_features(features.numpy(), len(inputs["input"]), self._path)


class ExecuTorchRuntime:
    """Runs what ExecuTorch's Python runtime runs.

    >>> RUNTIME.look(Path("README.md"))
    Traceback (most recent call last):
    clipq.errors.ArtifactError: README.md is text, not an ExecuTorch program
      fix: name a file that this runtime takes, or export the model again
    """

    version = 1
    packages = ("executorch",)
    extra = "executorch"

    def sidecars(self, path: Path, /) -> tuple[Path, ...]:
        """Return the .ptd beside it, where there is one or a tensor lies in one."""
        check_kind(path, (EXECUTORCH,))
        beside = path.with_suffix(".ptd")
        return (beside,) if beside.exists() or ExecuTorchProgram(path).external else ()

    def look(self, path: Path, /) -> Look:
        """Return what a program says of itself, without ExecuTorch."""
        return look_at_pte(path)

    def open(self, path: Path, ports: TowerPorts, session: SessionSettings, /) -> _MethodTower:
        """Load the method ``forward``.

        Args:
            path: .pte.
            ports: which input and output carry what. A .pte keeps no names: they are "input 0",
                "input 1" ..., "output 0" ...
            session: `provider` is the backend that it was exported for, if one is named; there are
                no `options`. Threads are those of the one pool of the process.

        Raises:
            ArtifactError: the file is damaged, a name is unknown, an option is given, or a backend
                that it needs is not there.
        """
        check_kind(path, (EXECUTORCH,))
        program = ExecuTorchProgram(path)
        executed = narrowest(program.types)
        backends = tuple(sorted(program.delegates)) or (_PORTABLE,)
        _check_session(session, path, backends=backends)
        check_as_exported(session.precision, executed, path)
        inputs, outputs = program.inputs, program.outputs
        places = chosen_inputs(inputs, ports, path)
        output = chosen_output(outputs, ports, path)
        loaded = self._loaded(path, backends, session.threads)
        facts = TowerFacts(
            inputs=inputs,
            outputs=outputs,
            batch=fixed_batch([inputs[place] for place in places.values()], path),
            precision=executed,
            provider=", ".join(backends),
            said={
                "stored": executed,
                "delegated": dict(program.delegates),
                **({"batch_range": [1, largest]} if (largest := program.largest_batch) else {}),
            },
        )
        try:
            return _MethodTower(
                loaded, facts, places=places, output=output, path=path, kind=ports.kind
            )
        except RuntimeError as error:
            raise ArtifactError(
                f"ExecuTorch cannot load {path}: {error}",
                hint="export it with the executorch that is installed",
            ) from error

    def _loaded(self, path: Path, backends: tuple[str, ...], threads: int) -> Any:
        runtime = library("executorch.runtime", self.extra).Runtime.get()
        known = [_PORTABLE, *runtime.backend_registry.registered_backend_names]
        if missing := [name for name in backends if name not in known]:
            raise ArtifactError(
                f"{path} needs the backend {missing[0]!r}, which this executorch lacks",
                hint=did_you_mean(missing[0], known),
            )
        beside = path.with_suffix(".ptd")
        if not beside.exists() and ExecuTorchProgram(path).external:
            raise ArtifactError(
                f"{beside}, which holds weights of {path}, does not exist",
                hint="copy both files: the .ptd stands beside its .pte",
            )
        if threads:
            pool = library("executorch.extension.pybindings.portable_lib", self.extra)
            pool._unsafe_reset_threadpool(threads)  # there is no other way to say it
        try:
            return runtime.load_program(path, data_path=beside if beside.exists() else None)
        except RuntimeError as error:
            raise ArtifactError(
                f"ExecuTorch cannot load {path}: {error}",
                hint="export it with the executorch that is installed",
            ) from error


def _check_session(session: SessionSettings, path: Path, *, backends: tuple[str, ...]) -> None:
    if session.options:
        raise ArtifactError(
            f"the runtime executorch has no option {min(session.options)!r}",
            hint="it has none: what a .pte does is decided at its export",
        )
    if session.provider and session.provider not in backends:
        raise ArtifactError(
            f"{path} was exported for {', '.join(backends)}, not for {session.provider!r}",
            hint="leave provider out, or export the model for that backend",
        )


RUNTIME = ExecuTorchRuntime()
"""What the registry knows as ``executorch``."""
