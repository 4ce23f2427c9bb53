"""Runs ONNX graphs with ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError, did_you_mean
from clipq.runtimes.onnx_file import OnnxFile, check_there
from clipq.runtimes.onnxruntime_session import CPU, Asked, asked_of
from clipq.runtimes.runtime import Look, Port, Tower, TowerFacts, TowerPorts

__all__ = ["RUNTIME", "OnnxRuntime"]

_DTYPES = {"float": "float32", "double": "float64"}
"""Where ONNX Runtime's name of a type is not numpy's."""
_RANKS = {"image": 4, "text": 2}
_TAKES = {
    "image": "images: (B, 3, H, W) or (B, H, W, 3)",
    "text": "tokens: (B, L), integers",
}
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


class OnnxRuntime:
    """ONNX Runtime, `clipq.runtimes`' ``onnxruntime``.

    >>> RUNTIME.open(Path("deploy"), TowerPorts("image"), SessionSettings())
    Traceback (most recent call last):
    clipq.errors.ArtifactError: there is no file deploy
      fix: export it first, or mend the path
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
        file = OnnxFile(path)
        file.check_sidecars()
        return Look(bytes=file.bytes)

    def open(self, path: Path, ports: TowerPorts, session: SessionSettings, /) -> Tower:
        """Open a tower.

        Raises:
            ArtifactError: the file cannot be read, a name, provider or option is unknown, or the
                graph is of the other tower.
        """
        check_there(path)
        library = _library()
        asked = asked_of(library, session)
        try:
            opened = library.InferenceSession(
                str(path),
                sess_options=asked.options,
                providers=_providers(asked),
                enable_fallback=0,  # else it would run on the CPU and say so on the screen only
            )
        except Exception as error:  # every binding error has a class of its own, below Exception
            raise _refused(library, path, error) from error
        if opened.get_providers()[0] != asked.provider:
            raise ArtifactError(
                f"{asked.provider} could not be started; onnxruntime fell back to "
                f"{opened.get_providers()[0]}",
                hint="install what the provider needs (drivers, libraries), or name another",
            )
        return _OnnxTower(library, opened, path=path, ports=ports, asked=asked)


class _OnnxTower:
    def __init__(
        self, library: Any, opened: Any, *, path: Path, ports: TowerPorts, asked: Asked
    ) -> None:
        inputs = {arg.name: _port(arg) for arg in opened.get_inputs()}
        outputs = {arg.name: _port(arg) for arg in opened.get_outputs()}
        self._session = opened
        self._name = path.name
        self._kind = ports.kind
        self._input, self._mask = _chosen_inputs(inputs, ports, name=path.name)
        self._output = _chosen_output(outputs, ports, name=path.name)
        _check_kind(self._input, ports.kind, name=path.name)
        self.facts = TowerFacts(
            inputs=tuple(inputs.values()),
            outputs=tuple(outputs.values()),
            batch=max(0, self._input.batch),
            precision=asked.precision,
            provider=asked.provider,
            said={"providers": opened.get_providers(), "onnxruntime": library.__version__},
        )

    def run(self, inputs: Mapping[str, np.ndarray], /) -> np.ndarray:
        """Return features (B, D) of a batch."""
        given = _as_taken(self._input, inputs["input"], name=self._name, kind=self._kind)
        feed = {self._input.name: given}
        if self._mask is not None:
            mask = inputs["mask"].astype(self._mask.dtype, copy=False)
            feed[self._mask.name] = _as_taken(self._mask, mask, name=self._name, kind="mask")
        try:
            features = np.asarray(self._session.run([self._output.name], feed)[0])
        except Exception as error:
            raise ArtifactError(
                f"{self._name} fails on {given.dtype} {given.shape}: {_plainly(error)}",
                hint="its sizes may be fixed inside, at another batch or length than its inputs "
                "say: export it again with a dynamic batch axis",
            ) from error
        if features.ndim != 2 or len(features) != len(given):
            raise ArtifactError(
                f"{self._name}'s output {self._output.name!r} is {features.shape} for "
                f"{len(given)} samples, not ({len(given)}, D)",
                hint="name the output that holds one embedding per sample; where there is one, "
                "its batch was fixed at export: export it again with a dynamic batch axis",
            )
        return features


def _library() -> Any:
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise ArtifactError(
            "onnxruntime is not installed", hint="pip install 'pytest-clipq[onnxruntime]'"
        ) from error


def _providers(asked: Asked) -> list[str | tuple[str, dict[str, str]]]:
    """Return the provider, and the CPU for what it does not take, as the runtime itself does."""
    if asked.provider == CPU:
        return [CPU]
    return [(asked.provider, asked.provider_options), CPU]


def _port(arg: Any) -> Port:
    dtype = arg.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in arg.shape)
    return Port(arg.name, _DTYPES.get(dtype, dtype), shape)


def _chosen_inputs(
    inputs: Mapping[str, Port], ports: TowerPorts, *, name: str
) -> tuple[Port, Port | None]:
    mask = _named(inputs, ports.mask, key="io.mask_input", name=name) if ports.mask else None
    free = {each: port for each, port in inputs.items() if port is not mask}
    key = f"io.{ports.kind}_input"
    if ports.input:
        chosen = _named(free, ports.input, key=key, name=name)
    elif len(free) == 1:
        chosen = next(iter(free.values()))
    else:
        raise ArtifactError(
            f"{name} has {len(free)} inputs: {_written(free.values())}",
            hint=f"name the one that takes {'images' if ports.kind == 'image' else 'tokens'} "
            f"with {key}",
        )
    extra = [port for port in free.values() if port is not chosen]
    if extra:
        raise ArtifactError(
            f"{name} also needs {_written(extra)}",
            hint=_mending_extra(extra[0], ports),
        )
    return chosen, mask


def _mending_extra(port: Port, ports: TowerPorts) -> str:
    if ports.kind == "text" and not ports.mask and "mask" in port.name:
        return f"where it takes 1 for a token and 0 for padding: io.mask_input = {port.name!r}"
    return "export each tower by itself, so that images or tokens are all that it takes"


def _chosen_output(outputs: Mapping[str, Port], ports: TowerPorts, *, name: str) -> Port:
    key = f"io.{ports.kind}_output"
    if ports.output:
        chosen = _named(outputs, ports.output, key=key, name=name)
    elif len(outputs) == 1:
        chosen = next(iter(outputs.values()))
    else:
        raise ArtifactError(
            f"{name} has {len(outputs)} outputs: {_written(outputs.values())}",
            hint=f"name the one that holds the embeddings (B, D) with {key}",
        )
    if chosen.shape and len(chosen.shape) != 2:
        others = [port for port in outputs.values() if len(port.shape) == 2]
        raise ArtifactError(
            f"{name}'s output {_written([chosen])} has {len(chosen.shape)} axes; embeddings have 2",
            hint=f"name another with {key}: {_written(others)}"
            if others
            else "export encode_image or encode_text, pooling and projection included",
        )
    return chosen


def _named(found: Mapping[str, Port], wanted: str, *, key: str, name: str) -> Port:
    if wanted not in found:
        raise ArtifactError(
            f"{name} has no {wanted!r}, which {key} names", hint=did_you_mean(wanted, found)
        )
    return found[wanted]


def _check_kind(port: Port, kind: str, *, name: str) -> None:
    """Raise where the input is of the other tower."""
    rank, integers = len(port.shape), "int" in port.dtype
    if not port.shape or (rank == _RANKS[kind] and (kind == "image" or integers)):
        return
    other = "text" if kind == "image" else "image"
    swapped = rank == _RANKS[other] and (integers or other == "image")
    raise ArtifactError(
        f"{name} stands as the {kind} tower, and its input {_written([port])} does not take "
        f"{_TAKES[kind]}",
        hint=f"it is a graph of the {other} tower: are image and text swapped?"
        if swapped
        else f"export encode_{kind} with {_TAKES[kind]}",
    )


def _as_taken(port: Port, given: np.ndarray, *, name: str, kind: str) -> np.ndarray:
    """Return an array in the graph's float type, or raise where it is not what the graph takes."""
    fits = len(port.shape) in (0, given.ndim) and all(
        size in (-1, held) for size, held in zip(port.shape, given.shape, strict=False)
    )
    if not fits:
        raise ArtifactError(
            f"{name} takes {_written([port])}, and is given {given.dtype} "
            f"({', '.join(map(str, given.shape))})",
            hint=_mending_shape(port, given, kind=kind),
        )
    if port.dtype == given.dtype.name:
        return np.ascontiguousarray(given)
    if "float" in port.dtype and given.dtype.kind == "f" and port.dtype != "bfloat16":
        return np.ascontiguousarray(given, dtype=port.dtype)
    raise ArtifactError(
        f"{name} takes {_written([port])}, and is given {given.dtype.name}",
        hint=_mending_dtype(port, kind=kind),
    )


def _mending_shape(port: Port, given: np.ndarray, *, kind: str) -> str:
    if len(port.shape) != given.ndim:
        return "are image and text swapped?"
    if port.batch not in (-1, given.shape[0]):
        return f"its batch was fixed at export: write batch = {port.batch}, or export it again"
    if kind != "image":
        return (
            f"it was exported for texts of {port.shape[1]} tokens and the model's tokenizer gives "
            f"{given.shape[1]}: name the model that it was made from, or export it again"
        )
    for layout, axis in (("NHWC", 3), ("NCHW", 1)):
        if port.shape[axis] == 3 and given.shape[axis] != 3:
            return f"its images are {layout}: write io.layout = '{layout}'"
    return (
        "it was exported at another image size than the model's: export it again, or name the "
        "model that it was made from"
    )


def _mending_dtype(port: Port, *, kind: str) -> str:
    if kind == "image" and port.dtype == "uint8":
        return "write io.pixels = 'bytes'"
    if kind == "image" and "float" in port.dtype:
        return "write io.pixels = 'normalised' or 'unit'"
    if kind == "text" and port.dtype in ("int32", "int64"):
        return f"write io.text_dtype = {port.dtype!r}"
    return f"export it again with an input of another type than {port.dtype}"


def _written(ports: Any) -> str:
    """Return ports as a sentence has them: `pixel_values` float32 (B, 3, 224, 224)."""
    return ", ".join(f"{each.name!r} {each.dtype} {_axes(each.shape)}" for each in ports)


def _axes(shape: tuple[int, ...]) -> str:
    free = "B" if shape[:1] == (-1,) else "?"
    sizes = [
        free if at == 0 and size < 0 else "?" if size < 0 else str(size)
        for at, size in enumerate(shape)
    ]
    return f"({', '.join(sizes)})"


def _refused(library: Any, path: Path, error: Exception) -> ArtifactError:
    """Return why a file cannot be opened: looked for in the file first, then as it was said."""
    file = OnnxFile(path)
    file.check_sidecars()
    said = _plainly(error)
    if "IR version" in said or "opset" in said.lower():
        return ArtifactError(
            f"{path.name} is newer than onnxruntime {library.__version__} reads: {said}",
            hint="export it with an older opset_version, or update onnxruntime",
        )
    if "not a registered function/op" in said or "No Op registered" in said:
        return ArtifactError(
            f"{path.name} uses an operator that onnxruntime {library.__version__} lacks: {said}",
            hint="export it without, or with a package of onnxruntime that has it",
        )
    return ArtifactError(
        f"onnxruntime {library.__version__} refuses {path.name}: {said}",
        hint="clipq artifact check says what is in the file",
    )


def _plainly(error: Exception) -> str:
    lines = _PREFIX.sub("", str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


RUNTIME = OnnxRuntime()
