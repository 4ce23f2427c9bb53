"""torch: programs of `torch.export.save`, and packages of AOTInductor; both are .pt2.

To open a package is to load a shared library, and to open a program whose weights are pickled is to
run what the pickle says. Open only files of people whom you would let run code; `look` runs none.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError, did_you_mean
from clipq.runtimes.aoti_package import AotiPackage
from clipq.runtimes.call_spec import CallSpec, leaves_of
from clipq.runtimes.exported_archive import ExportedArchive
from clipq.runtimes.file_kinds import AOTI, EXPORTED, check_kind
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
from clipq.runtimes.runtime import Look, Port, TowerFacts, TowerPorts
from clipq.runtimes.torch_export_look import look_at_exported, product_outputs

__all__ = ["RUNTIME", "TorchExportRuntime"]

_DEFINED_BY = {
    "quantized_decomposed": ("torch.ao.quantization.fx._decomposed", "torch"),
    "torchao": ("torchao", "torchao"),
    "torchvision": ("torchvision", "torch"),
}
"""What has to be imported before a program that calls such operators can be read."""


@dataclass(frozen=True, slots=True)
class _Called:
    """What is called, and how.

    Args:
        program: takes and returns tensors.
        spec: which inputs are given by name.
        leaves: what a call takes, in order: a `Port`, or a constant.
        inputs: where among the ports ``input`` and ``mask`` are.
        output: where among the tensors that it returns the features are.
        kind: ``image`` or ``text``.
    """

    program: Callable[..., Any]
    spec: CallSpec
    leaves: tuple[Any, ...]
    inputs: Mapping[str, int]
    output: int
    kind: str


class _ProgramTower:
    """Calls a program or a package."""

    def __init__(self, called: _Called, facts: TowerFacts, *, path: Path) -> None:
        self.facts = facts
        self._called = called
        self._path = path
        taken = [at for at, leaf in enumerate(called.leaves) if isinstance(leaf, Port)]
        self._places = {name: taken[place] for name, place in called.inputs.items()}

    def run(self, inputs: Mapping[str, np.ndarray], /) -> np.ndarray:
        """Return features (B, D) of one batch, as the program returns them; bfloat16 as float32.

        Raises:
            ArtifactError: an input does not fit the program, or torch refuses it.
        """
        import torch

        check_batch(len(inputs["input"]), self.facts, self._path)
        leaves = list(self._called.leaves)
        for name, place in self._places.items():
            kind = "mask" if name == "mask" else self._called.kind
            array = fitting(inputs[name], leaves[place], self._path, kind=kind)
            tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
            leaves[place] = tensor.to(self.facts.provider)
        args, named = self._called.spec.arguments(leaves)
        try:
            with torch.inference_mode():
                result = self._called.program(*args, **named)
        except Exception as error:  # AssertionError of a guard, RuntimeError of an operator
            shapes = ", ".join(str(inputs[name].shape) for name in self._places)
            raise ArtifactError(
                f"torch cannot run {self._path} on {shapes}: {_said_by(error)}",
                hint="export it at the model's image size and context length, its batch free",
            ) from error
        tensors = [each for each in leaves_of(result) if isinstance(each, torch.Tensor)]
        if not self.facts.outputs and len(tensors) != 1:
            raise ArtifactError(
                f"{self._path} returns {len(tensors)} tensors, and says no names",
                hint="export a module that returns features (B, D) alone",
            )
        features = tensors[self._called.output].cpu()
        if features.dtype == torch.bfloat16:
            features = features.float()
        return check_features(features.numpy(), len(inputs["input"]), self._path)


class TorchExportRuntime:
    """Runs what torch exports.

    >>> RUNTIME.sidecars(Path("image.pt2"))
    ()
    """

    version = 1
    packages = ("torch", "torchao")
    extra = ""

    def sidecars(self, path: Path, /) -> tuple[Path, ...]:
        """Return (): a .pt2 holds all that belongs to it."""
        return ()

    def look(self, path: Path, /) -> Look:
        """Return what a file says of itself; nothing in it is unpickled or loaded."""
        return look_at_exported(path)

    def open(self, path: Path, ports: TowerPorts, session: SessionSettings, /) -> _ProgramTower:
        """Load a program or a package.

        Args:
            path: .pt2 of `torch.export.save` or of `aoti_compile_and_package`.
            ports: which input and output carry what. A package names its inputs by place,
                "input 0", unless they are given by name, and its outputs only if it returns a
                dictionary.
            session: `provider` is a device, "cpu" if none is named; there are no `options`.

        Raises:
            ArtifactError: the file is damaged, a name or device is unknown, an option is given, or
                a precision other than what the file was exported in.
        """
        kind = check_kind(path, (EXPORTED, AOTI))
        if session.options:
            raise ArtifactError(
                f"the runtime torch-export has no option {min(session.options)!r}",
                hint="it has none: threads and precision are settings of their own",
            )
        import torch

        if session.threads:
            torch.set_num_threads(session.threads)
        return (_open_program if kind == EXPORTED else _open_package)(path, ports, session)


def _open_program(path: Path, ports: TowerPorts, session: SessionSettings) -> _ProgramTower:
    import torch

    archive = ExportedArchive(path)
    inputs, outputs = archive.inputs, archive.outputs
    device = _device(session.provider or "cpu")
    executed = narrowest(product_outputs(archive))
    check_as_exported(session.precision, executed, path)
    places = chosen_inputs(inputs, ports, path)
    output = chosen_output(outputs, ports, path)
    for namespace in sorted({node.namespace for node in archive.nodes} & _DEFINED_BY.keys()):
        library(*_DEFINED_BY[namespace])
    if archive.pickled:
        library("torchao", "torchao")
    with _refusing(path):
        program = torch.export.load(path)
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        module = program.module()
    said: dict[str, Any] = {"stored": executed, "torch_version": archive.torch_version}
    if limits := archive.batch_range:
        said["batch_range"] = list(limits)
    facts = TowerFacts(
        inputs=inputs,
        outputs=outputs,
        batch=fixed_batch([inputs[place] for place in places.values()], path),
        precision=_on(device, executed, asked=session.precision),
        provider=device,
        said=said,
    )
    called = _Called(module, archive.call_spec, archive.leaves, places, output, ports.kind)
    return _ProgramTower(called, facts, path=path)


def _open_package(path: Path, ports: TowerPorts, session: SessionSettings) -> _ProgramTower:
    import torch

    package = AotiPackage(path)
    package.check_machine()
    compiled_for = package.metadata.get("AOTI_DEVICE_KEY", "cpu")
    device = _device(session.provider or compiled_for)
    if device.partition(":")[0] != compiled_for:
        raise ArtifactError(
            f"{path} was compiled for {compiled_for!r}, not {device!r}",
            hint=f'compile it for that, or say provider = "{compiled_for}"',
        )
    executed = narrowest(package.floats)
    check_as_exported(session.precision, executed, path)
    if not package.specs:
        raise ArtifactError(
            f"{path} holds no source, so that nobody can tell what it takes; its library does not "
            "check",
            hint="package it with torch 2.8 or newer, which packs the source beside the library",
        )
    spec = CallSpec.parse(*package.specs)
    inputs = _named_inputs(package.inputs, spec, path)
    outputs = tuple(Port(name, "", ()) for name in spec.outputs)
    places = chosen_inputs(inputs, ports, path)
    output = chosen_output(outputs, ports, path) if outputs else 0
    with _refusing(path):
        program = torch._inductor.aoti_load_package(str(path))
    facts = TowerFacts(
        inputs=inputs,
        outputs=outputs,
        batch=fixed_batch([inputs[place] for place in places.values()], path),
        precision=_on(device, executed, asked=session.precision),
        provider=device,
        said={"stored": executed, "compiled": package.metadata},
    )
    called = _Called(program, spec, inputs, places, output, ports.kind)
    return _ProgramTower(called, facts, path=path)


def _named_inputs(inputs: Sequence[Port], spec: CallSpec, path: Path) -> tuple[Port, ...]:
    """Return inputs with the names that they are given by, where they are given by name."""
    if len(inputs) != spec.positional + len(spec.keywords):
        raise ArtifactError(
            f"{path} was exported with {spec.positional + len(spec.keywords)} inputs, of which "
            f"{len(inputs)} are tensors; which is not in the package",
            hint="export a module whose forward takes tensors alone, each another",
        )
    names = (*(port.name for port in inputs[: spec.positional]), *spec.keywords)
    return tuple(replace(port, name=name) for port, name in zip(inputs, names, strict=True))


def _device(asked: str) -> str:
    import torch

    known = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if asked in known or (asked == "cuda" and len(known) > 1):
        return asked
    raise ArtifactError(f"torch has no device {asked!r} here", hint=did_you_mean(asked, known))


def _on(device: str, executed: str, *, asked: str) -> str:
    """Return what float32 is multiplied in on a device: on CUDA, TF32 unless f32 is asked for."""
    import torch

    if device == "cpu" or executed != "f32":
        return executed
    if asked == "f32":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    narrow = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return "tf32" if narrow else "f32"


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Say in one sentence why torch cannot load a file, and not on the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise ArtifactError(
            f"torch cannot load {path}: {_said_by(error)}",
            hint="export it with the torch that is installed",
        ) from error
    finally:
        logging.disable(before)


def _said_by(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


RUNTIME = TorchExportRuntime()
"""What the registry knows as ``torch-export``."""
