"""An ONNX file as it lies on disk: the graph, the files that it names, and the values of tensors.

Values that lie in a sidecar are mapped, not read; a file that cannot be an ONNX model is told from
one that was cut short.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from clipq.errors import ArtifactError, listed

__all__ = ["ONNX_LIBRARY", "OnnxFile", "check_there", "tensors_of"]

ONNX_LIBRARY = "onnx"

_OTHER_FORMATS = (
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file itself: git lfs pull"),
    (b"PK\x03\x04", "a zip archive", "a .pt2 is run by runtime = 'torch-export'"),
    (b"<?xml", "an XML file", "OpenVINO IR is run by runtime = 'openvino'"),
    (b"<!DOCTYPE", "a web page", "download the file itself, not the page about it"),
    (b"<html", "a web page", "download the file itself, not the page about it"),
    (b"\x93NUMPY", "a numpy array", "features are read by runtime = 'features'"),
)
_ORT_FORMAT = b"ORTM"
"""Bytes 4 to 8 of a file in ONNX Runtime's own format, which holds all of its values."""


def check_there(path: Path) -> None:
    """Raise unless `path` is a file that may be an ONNX graph.

    Raises:
        ArtifactError: it is missing, a folder, empty, or plainly of another format.

    >>> check_there(Path("clipq"))
    Traceback (most recent call last):
    clipq.errors.ArtifactError: clipq is a folder, not an ONNX file
      fix: name the .onnx file in it
    """
    if path.is_dir():
        inside = sorted(each.name for each in path.glob("*.onnx"))
        raise ArtifactError(
            f"{path} is a folder, not an ONNX file",
            hint=f"name one of {listed(inside)}" if inside else "name the .onnx file in it",
        )
    if not path.is_file():
        near = sorted(each.name for each in path.parent.glob("*.onnx"))
        raise ArtifactError(
            f"there is no file {path}",
            hint=f"beside it: {listed(near)}" if near else "export it first, or mend the path",
        )
    with path.open("rb") as file:
        start = file.read(32)
    if not start:
        raise ArtifactError(f"{path} is empty", hint="export it again")
    for magic, what, hint in _OTHER_FORMATS:
        if start.startswith(magic):
            raise ArtifactError(f"{path} is {what}, not an ONNX file", hint=hint)


class OnnxFile:
    """A graph without the values of its sidecars, and where these lie.

    Args:
        path: of the ``.onnx`` file.

    Attributes:
        proto: onnx's ModelProto; None for ONNX Runtime's own format, which onnx does not read.
        sidecars: files that hold values, whether they are there or not.

    Raises:
        ArtifactError: onnx is not installed, or the file is missing, truncated, of another format,
            or names a sidecar outside of its folder.

    >>> OnnxFile(Path("README.md"))
    Traceback (most recent call last):
    clipq.errors.ArtifactError: README.md is not an ONNX file
      fix: name the file that torch.onnx.export or a quantizer of ONNX graphs wrote
    """

    def __init__(self, path: Path) -> None:
        check_there(path)
        self.path = path
        self.proto = _parsed(path)
        self._maps: dict[Path, np.ndarray] = {}
        self._used: dict[Path, int] = {}
        if self.proto is not None:
            for tensor in tensors_of(self.proto):
                if where := _external(tensor):
                    file = self._beside(where["location"], tensor.name)
                    end = int(where.get("offset", 0)) + _stored_bytes(tensor, where)
                    self._used[file] = max(end, self._used.get(file, 0))

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
        import onnx
        from onnx import numpy_helper

        where = _external(tensor)
        if not where:
            return np.asarray(numpy_helper.to_array(tensor))
        start, size = int(where.get("offset", 0)), _stored_bytes(tensor, where)
        stored = self._mapped(self._beside(where["location"], tensor.name))[start : start + size]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if _bits(tensor) == 8 * np.dtype(dtype).itemsize:
            return stored.view(dtype).reshape(tuple(tensor.dims))
        whole = onnx.TensorProto(
            data_type=tensor.data_type, dims=tensor.dims, raw_data=stored.tobytes()
        )
        return np.asarray(numpy_helper.to_array(whole))  # packed below a byte

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
    with path.open("rb") as file:
        start = file.read(8)
    if start[4:8] == _ORT_FORMAT:
        return None
    try:
        onnx = import_module(ONNX_LIBRARY)
    except ImportError as error:
        raise ArtifactError(
            f"{path.name} is read with onnx, which is not installed",
            hint="pip install 'pytest-clipq[onnxruntime]'",
        ) from error
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, of whichever protobuf is installed
        raise _damaged(path, start) from error
    if not proto.graph.node or not proto.opset_import:
        raise _damaged(path, start)
    return proto


def _damaged(path: Path, start: bytes) -> ArtifactError:
    if start[:1] == b"\x08":  # field 1 of a ModelProto, its IR version, comes first
        size = path.stat().st_size
        return ArtifactError(
            f"{path} is a damaged or truncated ONNX file ({size:,} bytes)",
            hint="copy or export it again",
        )
    return ArtifactError(
        f"{path} is not an ONNX file",
        hint="name the file that torch.onnx.export or a quantizer of ONNX graphs wrote",
    )


def _external(tensor: Any) -> dict[str, str]:
    """Return where a tensor's values lie; {} where they are in the graph."""
    if tensor.data_location != 1:  # TensorProto.EXTERNAL
        return {}
    found = {entry.key: entry.value for entry in tensor.external_data}
    return found if "location" in found else {}


def _stored_bytes(tensor: Any, where: dict[str, str]) -> int:
    size = math.ceil(math.prod(tensor.dims) * _bits(tensor) / 8)
    return int(where.get("length", 0)) or size


def _bits(tensor: Any) -> int:
    import onnx

    names = onnx.TensorProto.DataType
    for bits, ending in ((4, "4"), (2, "2"), (4, "E2M1")):
        if names.Name(tensor.data_type) in {f"INT{ending}", f"UINT{ending}", f"FLOAT4{ending}"}:
            return bits
    return 8 * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
