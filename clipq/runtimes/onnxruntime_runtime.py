"""Runs ONNX graphs with ONNX Runtime."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError
from clipq.runtimes.file_kinds import ONNX, ORT, check_kind
from clipq.runtimes.graph_ports import (
    check_features,
    chosen_inputs,
    chosen_output,
    fitting,
    fixed_batch,
)
from clipq.runtimes.onnx_file import OnnxFile
from clipq.runtimes.onnx_look import look_at, versions_of
from clipq.runtimes.onnxruntime_session import CPU, Asked, asked_of
from clipq.runtimes.optional_library import library
from clipq.runtimes.runtime import Look, Port, TowerFacts, TowerPorts

__all__ = ["RUNTIME", "OnnxRuntime", "OnnxTower"]

_DTYPES = {"float": "float32", "double": "float64"}
"""Where ONNX Runtime's name of a type is not numpy's."""
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"\S+\.(?:cc|h|cpp):\d+ .*?\)(?: const)?(?: \[with [^\]]*\])? (?=\S)")
_READS_UP_TO = re.compile(r"(?:max supported IR version: |is till opset )(\d+)")


class OnnxRuntime:
    """Runs what ONNX Runtime reads.

    >>> RUNTIME.open(Path("clipq"), TowerPorts("image"), SessionSettings())
    Traceback (most recent call last):
    clipq.errors.ArtifactError: clipq is a folder, not a file
      fix: name the file in it
    """

    version = 1
    packages = ("onnxruntime",)
    extra = "onnxruntime"

    def sidecars(self, path: Path, /) -> tuple[Path, ...]:
        """Return the files that hold values of the graph, whether they are there or not.

        Raises:
            ArtifactError: the file is missing, truncated or of another format.
        """
        return OnnxFile(path).sidecars

    def look(self, path: Path, /) -> Look:
        """Return what a graph says of itself.

        Raises:
            ArtifactError: it, or a sidecar, is missing, truncated or of another format.
        """
        return look_at(OnnxFile(path), library("onnxruntime", self.extra))

    def open(self, path: Path, ports: TowerPorts, session: SessionSettings, /) -> OnnxTower:
        """Open a tower.

        Raises:
            ArtifactError: the file cannot be read, a name, provider or option is unknown, or the
                graph is of the other tower.
        """
        check_kind(path, (ONNX, ORT))
        onnxruntime = library("onnxruntime", self.extra)
        asked = asked_of(onnxruntime, session)
        try:
            opened = onnxruntime.InferenceSession(
                str(path),
                sess_options=asked.options,
                providers=_providers(asked),
                enable_fallback=0,  # else it would run on the CPU and say so on the screen only
            )
        except Exception as error:  # every binding error has a class of its own, below Exception
            raise _refused(onnxruntime, path, error) from error
        if opened.get_providers()[0] != asked.provider:
            raise ArtifactError(
                f"{asked.provider} could not be started; onnxruntime fell back to "
                f"{opened.get_providers()[0]}",
                hint="install what the provider needs (drivers, libraries), or name another",
            )
        return OnnxTower(opened, asked, ports=ports, path=path)


class OnnxTower:
    """A session, and which of its inputs and outputs carry what. Made by `OnnxRuntime.open`.

    >>> import tempfile
    >>> import onnx
    >>> graph = onnx.parser.parse_model(
    ...     '<ir_version: 10, opset_import: ["" : 20]> '
    ...     'g (int64[B, 2] ids) => (float[B, 2] features) { features = Cast <to = 1> (ids) }')
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "text.onnx")
    ...     onnx.save(graph, path)
    ...     tower = RUNTIME.open(path, TowerPorts("text"), SessionSettings())
    >>> tower.run({"input": np.array([[3, 4]])})
    array([[3., 4.]], dtype=float32)
    """

    def __init__(self, opened: Any, asked: Asked, *, ports: TowerPorts, path: Path) -> None:
        inputs, outputs = (
            tuple(map(_port, found())) for found in (opened.get_inputs, opened.get_outputs)
        )
        places = chosen_inputs(inputs, ports, path)
        self._ports = {name: inputs[place] for name, place in places.items()}
        self._output = outputs[chosen_output(outputs, ports, path)].name
        self._kinds = {"input": ports.kind, "mask": "mask"}
        self._session = opened
        self._path = path
        self.facts = TowerFacts(
            inputs=inputs,
            outputs=outputs,
            batch=fixed_batch(list(self._ports.values()), path),
            precision=asked.precision,
            provider=asked.provider,
            said={"providers": opened.get_providers(), "nodes": _nodes_of(opened)},
        )

    def run(self, inputs: Mapping[str, np.ndarray], /) -> np.ndarray:
        """Return features (B, D) of one batch, as the graph returns them.

        Raises:
            ArtifactError: an input does not fit the graph, or ONNX Runtime fails in it.
        """
        given = {
            port.name: fitting(inputs[name], port, self._path, kind=self._kinds[name])
            for name, port in self._ports.items()
        }
        try:
            (features,) = self._session.run([self._output], given)
        except Exception as error:  # every binding error has a class of its own, below Exception
            shapes = ", ".join(str(array.shape) for array in given.values())
            raise ArtifactError(
                f"ONNX Runtime fails in {self._path} on {shapes}: {_plainly(error)}",
                hint="where a batch or a length was fixed inside: export it again with a dynamic "
                "batch axis, at the model's image size and context length",
            ) from error
        return check_features(np.asarray(features), len(inputs["input"]), self._path)


def _providers(asked: Asked) -> list[str | tuple[str, dict[str, str]]]:
    """Return the provider, and the CPU for what it does not take, as the runtime itself does."""
    if asked.provider == CPU:
        return [CPU]
    return [(asked.provider, asked.provider_options), CPU]


def _nodes_of(opened: Any) -> dict[str, int]:
    """Return how many nodes each provider executes; {} where the session does not tell."""
    if not hasattr(opened, "get_provider_graph_assignment_info"):
        return {}
    nodes: Counter[str] = Counter()
    for part in opened.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    return dict(nodes)


def _port(arg: Any) -> Port:
    dtype = arg.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in arg.shape)
    return Port(arg.name, _DTYPES.get(dtype, dtype), shape)


def _refused(onnxruntime: Any, path: Path, error: Exception) -> ArtifactError:
    """Return why a file cannot be opened: looked for in the file first, then as it was said."""
    file = OnnxFile(path)
    file.check_sidecars()
    said = _plainly(error)
    runtime = f"onnxruntime {onnxruntime.__version__}"
    if newest := _READS_UP_TO.search(said):
        what = "IR version" if "IR version" in said else "opset"
        return ArtifactError(
            f"{path} is newer than {runtime} reads, which is up to "
            f"{what} {newest[1]}; it is of opset {versions_of(file.proto)}",
            hint="export it with an older opset_version, or update onnxruntime",
        )
    if "not a registered function/op" in said or "No Op registered" in said:
        return ArtifactError(
            f"{path} uses an operator that {runtime} lacks: {said}",
            hint="export it without, or with a package of onnxruntime that has it",
        )
    if "NOT_IMPLEMENTED" in str(error):
        return ArtifactError(
            f"{runtime} cannot execute an operator of {path} in its types: {said}",
            hint="export it in float32; a quantized operator in types that the provider executes, "
            "or left out of op_types_to_quantize",
        )
    return ArtifactError(
        f"{runtime} refuses {path}: {said}",
        hint="clipq artifact check says what is in the file",
    )


def _plainly(error: Exception) -> str:
    """Return the sentence of an error, without the place in the library's own source."""
    lines = _SOURCE.sub("", _PREFIX.sub("", str(error))).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


RUNTIME = OnnxRuntime()
"""What the registry knows as ``onnxruntime``."""
