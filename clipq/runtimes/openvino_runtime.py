"""OpenVINO: IR (.xml beside .bin) and .onnx.

As it comes, OpenVINO executes an FP32 graph in BF16 wherever the processor has AMX or AVX512_BF16,
so that one file answers differently on two machines. What it executes is read from the compiled
graph, layer by layer, and recorded; `session.precision` decides it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError, did_you_mean
from clipq.runtimes.graph_ports import (
    check_features,
    chosen_inputs,
    chosen_output,
    fitting,
    fixed_batch,
)
from clipq.runtimes.openvino_files import (
    FLOATS,
    graph_files,
    ports_of,
    read_graph,
    said_by,
    stored_floats,
)
from clipq.runtimes.openvino_look import look_at
from clipq.runtimes.optional_library import library
from clipq.runtimes.runtime import Look, TowerFacts, TowerPorts

__all__ = ["RUNTIME", "OpenVinoRuntime", "OpenVinoTower"]

_THREADS = "INFERENCE_NUM_THREADS"
_PRECISION = "INFERENCE_PRECISION_HINT"
_OURS = {_THREADS: "threads", _PRECISION: "precision"}
_VIRTUAL = ("AUTO", "BATCH", "HETERO", "MULTI")
_MOVING = frozenset(
    (
        *("Broadcast", "Concatenation", "Const", "Convert", "Gather", "Input", "Output"),
        *("Reorder", "Reshape", "ShapeOf", "Split", "StridedSlice", "Transpose"),
    )
)
"""Layers that hold or move values: of weights too, in whatever type these are held."""


class OpenVinoTower:
    """A compiled graph. Made by `OpenVinoRuntime.open`.

    >>> import tempfile
    >>> import numpy as np, openvino.opset13 as ops, openvino
    >>> x = ops.parameter([-1, 2], np.int64, "input_ids")
    >>> x.output(0).set_names({"input_ids"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "text.xml")
    ...     openvino.save_model(openvino.Model([ops.convert(x, "f32")], [x], "g"), path)
    ...     tower = RUNTIME.open(path, TowerPorts("text"), SessionSettings(precision="f32"))
    >>> tower.run({"input": np.array([[3, 4]])})
    array([[3., 4.]], dtype=float32)
    """

    def __init__(
        self,
        compiled: Any,
        facts: TowerFacts,
        *,
        places: Mapping[str, int],
        output: int,
        path: Path,
        kind: str,
    ) -> None:
        self.facts = facts
        self._compiled = compiled
        self._places = places
        self._output = output
        self._path = path
        self._kind = kind

    def run(self, inputs: Mapping[str, np.ndarray], /) -> np.ndarray:
        """Return features (B, D) of one batch, as the graph returns them.

        Raises:
            ArtifactError: an input does not fit the graph, or OpenVINO refuses it.
        """
        kind = {"input": self._kind, "mask": "mask"}
        given = {
            place: fitting(inputs[name], self.facts.inputs[place], self._path, kind=kind[name])
            for name, place in self._places.items()
        }
        try:
            results = self._compiled(given)
        except RuntimeError as error:
            shapes = ", ".join(str(array.shape) for array in given.values())
            raise ArtifactError(
                f"OpenVINO cannot run {self._path} on {shapes}: {said_by(error)}",
                hint="export it at the model's image size and context length",
            ) from error
        return check_features(results[self._output], len(inputs["input"]), self._path)


class OpenVinoRuntime:
    """Runs what OpenVINO reads.

    >>> RUNTIME.sidecars(Path("deploy/image.xml"))
    (PosixPath('deploy/image.bin'),)
    """

    version = 1
    packages = ("openvino",)
    extra = "openvino"

    def sidecars(self, path: Path, /) -> tuple[Path, ...]:
        """Return the .bin of an IR, the external data of an ONNX model."""
        return graph_files(path)

    def look(self, path: Path, /) -> Look:
        """Return what a graph says of itself."""
        return look_at(path)

    def open(self, path: Path, ports: TowerPorts, session: SessionSettings, /) -> OpenVinoTower:
        """Compile a graph for a device.

        Args:
            path: .xml or .onnx.
            ports: which input and output carry what.
            session: `provider` is a device, "CPU" if none is named; `options` are OpenVINO's
                properties.

        Raises:
            ArtifactError: the file is damaged, a name, device or property is unknown, or OpenVINO
                refuses the graph.
        """
        openvino = library("openvino", self.extra)
        core = openvino.Core()
        device = _device(core, session.provider or "CPU")
        properties = _properties(core, device, session)
        graph = read_graph(path)
        inputs, outputs = ports_of(graph.inputs), ports_of(graph.outputs)
        places = chosen_inputs(inputs, ports, path)
        output = chosen_output(outputs, ports, path)
        try:
            compiled = core.compile_model(graph, device, properties)
        except RuntimeError as error:
            raise ArtifactError(
                f"OpenVINO cannot compile {path} for {device}: {said_by(error)}",
                hint="mend the session's options, or export the graph again",
            ) from error
        executed = _executed(compiled)
        facts = TowerFacts(
            inputs=inputs,
            outputs=outputs,
            batch=fixed_batch([inputs[place] for place in places.values()], path),
            precision=_precision(compiled, executed),
            provider=device,
            said={
                "executed": executed,
                "hint": _property(compiled, _PRECISION),
                "stored": stored_floats(graph),
                **{name: _property(compiled, name) for name in (_THREADS, *session.options)},
            },
        )
        return OpenVinoTower(
            compiled, facts, places=places, output=output, path=path, kind=ports.kind
        )


def _device(core: Any, asked: str) -> str:
    """Return a device that is there; one made of others is left to OpenVINO."""
    devices = core.available_devices
    if asked in devices or asked.partition(":")[0] in _VIRTUAL:
        return asked
    raise ArtifactError(f"OpenVINO has no device {asked!r} here", hint=did_you_mean(asked, devices))


def _properties(core: Any, device: str, session: SessionSettings) -> dict[str, Any]:
    plugin = device.partition(":")[0]  # of a device that is made of others: itself alone says
    supported = core.get_property(plugin, "SUPPORTED_PROPERTIES")
    writable = [name for name, access in supported.items() if access != "RO"]
    for name in session.options:
        if name in _OURS:
            raise ArtifactError(
                f"the option {name!r} has a setting of its own",
                hint=f"write session = {{ {_OURS[name]} = ... }}",
            )
        if name not in writable:
            raise ArtifactError(
                f"OpenVINO's {device} has no property {name!r} that can be set",
                hint=did_you_mean(name, [each for each in writable if each not in _OURS]),
            )
    properties = dict(session.options)
    if session.threads:
        properties[_THREADS] = session.threads
    if session.precision:
        properties[_PRECISION] = session.precision
    return properties


def _executed(compiled: Any) -> dict[str, int]:
    """Return how many layers take values of each type; {} where the device does not say.

    Of the three things that OpenVINO says of a layer, ``primitiveType`` ends with the type of the
    values that it takes. ``runtimePrecision`` may be that of its weights before they are widened,
    ``outputPrecisions`` that of what follows it.
    """
    try:
        layers = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ops()]
    except RuntimeError:  # devices made of others have no graph of their own
        return {}
    names = [
        layer["primitiveType"].astype(str).rpartition("_")[2]
        for layer in layers
        if layer["layerType"].astype(str) not in _MOVING
    ]
    return dict(sorted(Counter("u8" if name == "I8" else name for name in names).items()))


def _precision(compiled: Any, executed: Mapping[str, int]) -> str:
    """Return the narrowest float type that a layer takes."""
    hint = _property(compiled, _PRECISION)
    return next((name for name in FLOATS if name in executed), hint if hint in FLOATS else "")


def _property(compiled: Any, name: str) -> str:
    """Return a property in OpenVINO's words; "" where the device does not say."""
    try:
        value = compiled.get_property(name)
    except (RuntimeError, TypeError):
        return ""
    return str(value.get_type_name() if hasattr(value, "get_type_name") else value)


RUNTIME = OpenVinoRuntime()
"""What the registry knows as ``openvino``."""
