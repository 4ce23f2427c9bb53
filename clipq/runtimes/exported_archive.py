"""A .pt2 of `torch.export.save`, read as data: its graph is JSON, its weights are bytes.

`torch.export.load` unpickles weights of tensor subclasses and custom objects, which runs whatever
is in the pickle. Nothing is unpickled here, so that a file can be looked at before it is trusted.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from clipq.errors import ArtifactError
from clipq.runtimes.call_spec import CallSpec
from clipq.runtimes.runtime import Port

__all__ = ["ExportedArchive", "ExportedNode", "Stored"]

_TYPES: Mapping[int, str] = {
    **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32"},
    **{8: "float64", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn"},
    **{30: "float8_e5m2"},
}
"""Of `ScalarType` in the archive's schema."""
_PROGRAM = "/models/model.json"
_SYMBOL = re.compile(r"Symbol\('(\w+)'")


@dataclass(frozen=True, slots=True)
class ExportedNode:
    """One call of a graph.

    Args:
        namespace: of the operator, ``aten``, ``torchao`` ...
        operator: its name, without overload.
        tensors: names of the tensors that it takes, in order.
        floats: numbers that it takes.
        outputs: names of the tensors that it returns.
    """

    namespace: str
    operator: str
    tensors: tuple[str, ...]
    floats: tuple[float, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """What an archive stores for a parameter, buffer or constant.

    Args:
        name: as the model calls it.
        parameter: whether it is one.
        values: flat; empty where they are no floats.
    """

    name: str
    parameter: bool
    values: np.ndarray


class ExportedArchive:
    """The graph and the weights of a program.

    Args:
        path: of a .pt2.

    Raises:
        ArtifactError: it is damaged, holds no program, or is of another version of the format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._names = archive.namelist()
                if broken := archive.testzip():  # torch does not look at sums
                    raise zipfile.BadZipFile(f"{broken} is not what was written")
        except zipfile.BadZipFile as error:
            raise self._damaged(error) from error
        found = [name for name in self._names if "/models/" in name and name.endswith(".json")]
        if not any(name.endswith(_PROGRAM) for name in found):
            held = ", ".join(sorted(Path(name).stem for name in found)) or "none"
            raise ArtifactError(
                f"{path} holds no program 'model' (programs: {held})",
                hint="write it with torch.export.save of torch 2.8 or newer",
            )
        program_file = next(name for name in found if name.endswith(_PROGRAM))
        self._root = program_file.removesuffix(_PROGRAM)
        program = self._json(_PROGRAM)
        try:
            self._signature = program["graph_module"]["signature"]
            self._graph = program["graph_module"]["graph"]
            self._call = program["graph_module"]["module_call_graph"][0]
            self.torch_version = str(program.get("torch_version", ""))
            self.opset = f"aten {program['opset_version']['aten']}"
            self._ranges = program["range_constraints"]
        except (KeyError, IndexError, TypeError) as error:
            raise ArtifactError(
                f"{path} is of a version of the format that is not known: it lacks {error}",
                hint="export it with the torch that is installed",
            ) from error

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What its caller gives."""
        specs = self._signature["input_specs"]
        return tuple(
            self._ports(spec["user_input"]["arg"] for spec in specs if "user_input" in spec)
        )

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it returns."""
        specs = self._signature["output_specs"]
        found = self._ports(spec["user_output"]["arg"] for spec in specs if "user_output" in spec)
        return tuple(
            replace(port, name=name or port.name)
            for port, name in zip_longest(found, self.call_spec.outputs)
            if port is not None
        )

    @property
    def leaves(self) -> tuple[Any, ...]:
        """What a call takes, in order: a `Port`, or the constant that it was exported with."""
        specs, ports = self._signature["input_specs"], iter(self.inputs)
        return tuple(
            next(ports) if "user_input" in spec else _constant(spec["constant_input"]["value"])
            for spec in specs
            if "user_input" in spec or "constant_input" in spec
        )

    @property
    def call_spec(self) -> CallSpec:
        """How it is called."""
        called = self._call["signature"]
        return CallSpec.parse(called["in_spec"], called["out_spec"])

    @property
    def batch_range(self) -> tuple[int, int] | None:
        """Smallest and largest batch that it was exported for; None where it takes one only."""
        for port in self.inputs:
            size = self._graph["tensor_values"][port.name]["sizes"][:1]
            symbol = size and "as_expr" in size[0] and _SYMBOL.match(size[0]["as_expr"]["expr_str"])
            if symbol and (limits := self._ranges.get(symbol[1])):
                low, high = limits["min_val"], limits["max_val"]
                return (1 if low is None else low, 2**63 - 1 if high is None else high)
        return None

    @cached_property
    def nodes(self) -> tuple[ExportedNode, ...]:
        """Every call, in order."""
        return tuple(map(_node, self._graph["nodes"]))

    @property
    def weights(self) -> frozenset[str]:
        """Names that the graph gives to parameters, buffers and constants."""
        return frozenset(
            part["arg"]["name"]
            for spec in self._signature["input_specs"]
            for kind, part in spec.items()
            if kind in ("parameter", "buffer", "tensor_constant")
        )

    def dtype_of(self, tensor: str) -> str:
        """Return the type of a tensor of the graph, in numpy's words; "" of one that has none."""
        return _TYPES.get(self._graph["tensor_values"].get(tensor, {}).get("dtype", 0), "")

    @property
    def pickled(self) -> tuple[str, ...]:
        """Names of weights and constants whose values are pickled."""
        return tuple(name for _, name, part in self._payloads() if _is_pickled(part))

    def stored(self) -> Iterator[Stored]:
        """Yield weights and constants that are bytes, each once.

        Raises:
            ArtifactError: bytes are missing, or are not those that were written.
        """
        seen: set[str] = set()
        for folder, name, part in self._payloads():
            file = f"/data/{folder}/{part['path_name']}"
            if file in seen:
                continue
            seen.add(file)
            if not _is_pickled(part):
                dtype = _TYPES.get(part["tensor_meta"]["dtype"], "")
                yield Stored(name, bool(part["is_param"]), _floats(self._bytes(file), dtype))

    def _payloads(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        for folder in ("weights", "constants"):
            listed = f"/data/{folder}/model_{folder}_config.json"
            if self._root + listed in self._names:
                for name, part in self._json(listed)["config"].items():
                    yield folder, name, part

    def _ports(self, arguments: Iterator[Any]) -> Iterator[Port]:
        for argument in arguments:
            if "as_tensor" not in argument:
                continue
            name = argument["as_tensor"]["name"]
            sizes = self._graph["tensor_values"][name]["sizes"]
            shape = tuple(size.get("as_int", -1) for size in sizes)
            yield Port(name, self.dtype_of(name), shape)

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self._bytes(name))
        except ValueError as error:
            raise self._damaged(error) from error

    def _bytes(self, name: str) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self._root + name)
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ArtifactError:
        return ArtifactError(
            f"{self.path} is damaged: {error}", hint="copy it again, or export the model again"
        )


def _is_pickled(part: Mapping[str, Any]) -> bool:
    return bool(part["use_pickle"]) or part["tensor_meta"] is None


def _constant(value: Mapping[str, Any]) -> Any:
    """Return a constant of the schema: {"as_none": true}, {"as_int": 3} ..."""
    ((kind, held),) = value.items()
    return None if kind == "as_none" else held


def _node(node: Mapping[str, Any]) -> ExportedNode:
    parts = node["target"].split(".")  # torch.ops.aten.linear.default, _operator.mul
    known = parts[:2] == ["torch", "ops"] and len(parts) > 3
    arguments = [each["arg"] for each in node["inputs"]]
    return ExportedNode(
        namespace=parts[2] if known else parts[0],
        operator=parts[3] if known else parts[-1],
        tensors=tuple(_tensors(arguments)),
        floats=tuple(float(each["as_float"]) for each in arguments if "as_float" in each),
        outputs=tuple(_tensors(node["outputs"])),
    )


def _tensors(arguments: list[Any]) -> Iterator[str]:
    for argument in arguments:
        if "as_tensor" in argument:
            yield argument["as_tensor"]["name"]
        elif "as_tensors" in argument:
            yield from (each["name"] for each in argument["as_tensors"])


def _floats(data: bytes, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":  # the upper half of a float32
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype in ("float16", "float32", "float64"):
        return np.frombuffer(data, dtype)
    return np.empty(0, np.float32)
