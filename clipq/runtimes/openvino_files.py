"""Files that OpenVINO reads: what belongs to them, whether they are whole, what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from clipq.errors import ArtifactError
from clipq.runtimes.file_kinds import IR, ONNX, check_kind
from clipq.runtimes.onnx_file import OnnxFile
from clipq.runtimes.optional_library import library
from clipq.runtimes.runtime import Port

__all__ = ["FLOATS", "graph_files", "ports_of", "read_graph", "said_by", "stored_floats"]

FLOATS = ("bf16", "f16", "f32", "f64")
"""OpenVINO's names of float types, from the narrowest."""

_NUMPY = {"bf16": "bfloat16", "boolean": "bool", "f16": "float16", "f32": "float32"}
_NOISE = ("Exception from", "Check '", "FrontEnd API failed", "Loading input model")


def graph_files(path: Path) -> tuple[Path, ...]:
    """Return the files without which a graph is incomplete, whether they are there or not.

    Raises:
        ArtifactError: an .onnx is damaged, so that nobody can tell.

    >>> graph_files(Path("image.xml"))
    (PosixPath('image.bin'),)
    """
    if path.suffix == ".onnx":
        return OnnxFile(path).sidecars
    return (path.with_suffix(".bin"),)


def read_graph(path: Path) -> Any:
    """Return an `openvino.Model`, read and not compiled.

    Raises:
        ArtifactError: the file or what belongs to it is missing, truncated or of another format.
    """
    openvino = library("openvino", "openvino")
    if check_kind(path, (IR, ONNX)) == IR:
        _check_weights(path)
    else:
        OnnxFile(path).check_sidecars()
    try:
        return openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ArtifactError(
            f"OpenVINO cannot read {path}: {said_by(error)}", hint="export the model again"
        ) from error


def ports_of(ports: Iterable[Any]) -> tuple[Port, ...]:
    """Return inputs or outputs of a graph."""
    return tuple(map(_port, ports))


def stored_floats(graph: Any) -> str:
    """Return the widest type of the float weights in a graph: ``f32``, ``f16`` ...; "" of none."""
    types = {
        node.get_element_type().get_type_name()
        for node in graph.get_ops()
        if node.get_type_name() == "Constant" and len(node.shape) > 1
    }
    return next((name for name in reversed(FLOATS) if name in types), "")


def said_by(error: Exception) -> str:
    """Return what OpenVINO says in an error, without where in its sources.

    >>> said_by(RuntimeError("Exception from src/core.cpp:132:\\nNotFound: Unsupported property"))
    'NotFound: Unsupported property'
    """
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(_NOISE)]
    return " ".join(telling) or str(error).strip()


def _port(port: Any) -> Port:
    names = port.get_names()
    name = port.get_any_name() if names else port.get_node().get_friendly_name()
    word = port.get_element_type().get_type_name()
    plain = word.replace("i", "int", 1) if word[:1] == "i" else word.replace("u", "uint", 1)
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return Port(name, _NUMPY.get(word, plain), ())
    sizes = tuple(-1 if size.is_dynamic else size.get_length() for size in shape)
    return Port(name, _NUMPY.get(word, plain), sizes)


def _check_weights(path: Path) -> None:
    """Refuse an IR whose .bin is missing or shorter than the IR says."""
    weights = path.with_suffix(".bin")
    needed = max(_ends(path), default=0)
    if not weights.is_file():
        raise ArtifactError(
            f"{weights}, which holds the weights of {path}, does not exist",
            hint="copy both files: the .bin stands beside its .xml",
        )
    size = weights.stat().st_size
    if size < needed:
        raise ArtifactError(
            f"{weights} has {size:,} bytes, {path.name} needs {needed:,}: it is truncated, "
            "or of another model",
            hint="copy both files of one export again",
        )


def _ends(path: Path) -> Iterator[int]:
    """Yield where each constant of an IR ends in its .bin."""
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == "data" and "offset" in element.attrib:
                yield int(element.attrib["offset"]) + int(element.attrib["size"])
            element.clear()
    except (ElementTree.ParseError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{path} is damaged or truncated: {error}", hint="copy it again, or export it again"
        ) from error
