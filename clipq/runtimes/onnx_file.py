"""An ONNX file as it lies on disk: the graph, the files that it names, and the values of tensors.

Values that lie in a sidecar are mapped, not read; a file that cannot be an ONNX model is told from
one that was cut short.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from clipq.errors import ArtifactError
from clipq.runtimes.file_kinds import ONNX, ORT, check_kind
from clipq.runtimes.optional_library import library

__all__ = ["OnnxFile", "tensors_of"]

_EXTERNAL = 1
"""onnx's TensorProto.EXTERNAL."""


class OnnxFile:
    """A graph without the values of its sidecars, and where these lie.

    Args:
        path: of the ``.onnx`` file.

    Attributes:
        proto: onnx's ModelProto; None for ONNX Runtime's own format, which onnx does not read.
        bytes_used: of the sidecars, what belongs to a tensor.

    Raises:
        ArtifactError: onnx is not installed, or the file is missing, truncated, of another format,
            or names a sidecar outside of its folder.

    >>> OnnxFile(Path("LICENSE"))
    Traceback (most recent call last):
    clipq.errors.ArtifactError: LICENSE is text, not an ONNX model or ...
      fix: name a file that this runtime takes, or export the model again
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.proto = _parsed(path)
        self._maps: dict[Path, np.ndarray] = {}
        self._used: dict[Path, int] = {}
        parts: set[tuple[Path, int, int]] = set()  # which tensors may share
        if self.proto is not None:
            for tensor in tensors_of(self.proto):
                if where := self._where(tensor):
                    file = self._beside(where["location"], tensor.name)
                    start, size = self._span(tensor, where)
                    self._used[file] = max(start + size, self._used.get(file, 0))
                    parts.add((file, start, size))
        self.bytes_used = sum(size for _, _, size in parts)

    @property
    def sidecars(self) -> tuple[Path, ...]:
        """Files beside the graph that hold its values, in the order of their names."""
        return tuple(sorted(self._used))

    @property
    def bytes(self) -> int:
        """Of the graph and its sidecars."""
        return sum(each.stat().st_size for each in (self.path, *self.sidecars))

    def check_sidecars(self) -> None:
        """Raise unless every sidecar is there and long enough.

        Raises:
            ArtifactError: naming the sidecar, and what the graph needs of it.
        """
        for file, needed in sorted(self._used.items()):
            if not file.is_file():
                raise ArtifactError(
                    f"{self.path.name} keeps its values in {file.name}, and {file} is not there",
                    hint="copy the two together; the name of the second is written in the first",
                )
            if (held := file.stat().st_size) < needed:
                raise ArtifactError(
                    f"{file} holds {held:,} bytes, and {self.path.name} needs {needed:,}",
                    hint="it is cut short or of another graph; copy or export both again",
                )

    def values(self, tensor: Any) -> np.ndarray:
        """Return a tensor's values, mapped where they lie in a sidecar.

        Args:
            tensor: onnx's TensorProto.
        """
        try:
            return self._values(tensor)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise self._misfit(tensor, error) from error

    def _values(self, tensor: Any) -> np.ndarray:
        import onnx
        from onnx import numpy_helper

        where = self._where(tensor)
        if not where:
            return np.asarray(numpy_helper.to_array(tensor))
        start, size = self._span(tensor, where)
        if not size:
            return np.empty(tuple(tensor.dims), np.float32)
        stored = self._mapped(self._beside(where["location"], tensor.name))[start : start + size]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if _bits(tensor) == 8 * np.dtype(dtype).itemsize:
            return stored.view(dtype).reshape(tuple(tensor.dims))
        whole = onnx.TensorProto(
            data_type=tensor.data_type, dims=tensor.dims, raw_data=stored.tobytes()
        )
        return np.asarray(numpy_helper.to_array(whole))  # packed below a byte

    def _where(self, tensor: Any) -> dict[str, str]:
        """Return where a tensor's values lie; {} where they are in the graph."""
        if tensor.data_location != _EXTERNAL:
            return {}
        found = {entry.key: entry.value for entry in tensor.external_data}
        if not isinstance(found.get("location"), str):  # bytes, of what is no text
            raise self._misfit(tensor, ValueError("it does not say in which file they are"))
        return found

    def _span(self, tensor: Any, where: dict[str, str]) -> tuple[int, int]:
        """Return where in a sidecar a tensor begins, and its bytes."""
        try:
            size = math.ceil(math.prod(tensor.dims) * _bits(tensor) / 8)
            start, size = int(where.get("offset", 0)), int(where.get("length", 0)) or size
        except (ValueError, KeyError) as error:
            raise self._misfit(tensor, error) from error
        if start < 0 or size < 0:
            raise self._misfit(tensor, ValueError(f"{size} bytes from {start} on"))
        return start, size

    def _misfit(self, tensor: Any, error: Exception) -> ArtifactError:
        return ArtifactError(
            f"{self.path}: the values of {tensor.name!r} do not fit its sizes "
            f"{list(tensor.dims)}: {error}",
            hint="the file is damaged; copy it again, or export the model again",
        )

    def _mapped(self, file: Path) -> np.ndarray:
        if file not in self._maps:
            with file.open("rb") as handle:
                mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
            self._maps[file] = np.frombuffer(mapped, dtype=np.uint8)
        return self._maps[file]

    def _beside(self, location: str, tensor: str) -> Path:
        relative = PurePosixPath(location.replace("\\", "/"))
        if relative.is_absolute() or ".." in relative.parts or ":" in location:
            raise ArtifactError(
                f"{self.path.name} says that {tensor!r} lies in {location!r}, outside of "
                "its folder",
                hint="export it again with its values beside it; no runtime reads them elsewhere",
            )
        return self.path.parent / relative


def tensors_of(proto: Any) -> Iterator[Any]:
    """Yield every tensor of a model: initializers and attributes, of inner graphs too.

    Args:
        proto: onnx's ModelProto.
    """
    yield from _tensors_in_graph(proto.graph)
    for function in proto.functions:
        yield from _tensors_in_nodes(function.node)


def _tensors_in_graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
    yield from _tensors_in_nodes(graph.node)


def _tensors_in_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors_in_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _tensors_in_graph(graph)


def _parsed(path: Path) -> Any:
    if check_kind(path, (ONNX, ORT)) == ORT:
        return None
    onnx = library("onnx", "onnxruntime")
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, of whichever protobuf is installed
        raise _damaged(path) from error
    if not proto.graph.node or not proto.opset_import:
        raise _damaged(path)
    return proto


def _damaged(path: Path) -> ArtifactError:
    return ArtifactError(
        f"{path} is damaged or truncated ({path.stat().st_size:,} bytes)",
        hint="copy it again, or export the model again",
    )


def _bits(tensor: Any) -> int:
    import onnx

    packed = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4}
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    return packed.get(name) or 8 * int(
        onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    )
