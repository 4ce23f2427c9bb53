"""What a runtime is, and the registry of runtimes.

A runtime opens files that somebody exported and runs them. A decorator, `add` or an entry point of
the group `clipq.runtimes` registers one::

    from clipq.runtimes import runtimes

    runtimes.add("mine", MyRuntime())

It is never run in clipq's own process: `tower_process` starts one per artifact, in which the
library is imported, so that what it needs at its start (environment variables), does to its process
or dies of stays there. This module imports no library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from clipq.artifact_settings import SessionSettings
from clipq.registry import Registry
from clipq.runtimes.finding import Finding

__all__ = ["Look", "Port", "Runtime", "Tower", "TowerFacts", "TowerPorts", "runtimes"]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph.

    Args:
        name: as the graph calls it.
        dtype: in numpy's words, ``float32``, ``int64``; "" where the file does not say.
        shape: sizes; -1 where any size goes.

    >>> Port("pixel_values", "float32", (-1, 3, 224, 224)).batch
    -1
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def batch(self) -> int:
        """Size of the first axis; -1 where any goes."""
        return self.shape[0] if self.shape else -1


@dataclass(frozen=True, slots=True)
class Look:
    """What a file says of itself before anything is run.

    Args:
        bytes: of the file and of what belongs to it.
        quantized: quantized operators, how many of each type.
        in_float: products with weights (MatMul, Gemm, Conv ...) left in float, how many of each.
        opset: version of the operator set, or of the format; "" where there is none.
        inputs: of the graph; () where the file does not say.
        outputs: likewise.
        findings: what is wrong, or worth knowing.

    >>> Look(bytes=1024, quantized={"MatMulInteger": 12}).to_plain()["bytes"]
    1024
    """

    bytes: int
    quantized: Mapping[str, int] = field(default_factory=dict)
    in_float: Mapping[str, int] = field(default_factory=dict)
    opset: str = ""
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    findings: tuple[Finding, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return it as strict-JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TowerPorts:
    """Which inputs and output of a graph carry what; "" means: the only one there is.

    Args:
        kind: ``image`` or ``text``.
        input: images or tokens.
        mask: attention mask; "" where the graph takes none.
        output: features.
        function: of a file that holds code: what in it to call; "" otherwise.
        reference: returns the FP32 model, an open_clip module, loaded when it is first called.

    >>> TowerPorts("text", input="input_ids").output
    ''
    """

    kind: str
    input: str = ""
    mask: str = ""
    output: str = ""
    function: str = ""
    reference: Callable[[], Any] | None = None


@dataclass(frozen=True, slots=True)
class TowerFacts:
    """What a runtime says of a tower that it has opened.

    Args:
        inputs: of the graph; () where the runtime does not know.
        outputs: likewise.
        batch: the only batch that it takes; 0 where it takes any.
        precision: what float operations are executed in, ``f32``, ``f16``, ``bf16`` ...; "" where
            the runtime does not say.
        provider: what executes it.
        said: whatever else is worth recording, as strict-JSON values.

    >>> TowerFacts(precision="f32", provider="CPUExecutionProvider").batch
    0
    """

    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    batch: int = 0
    precision: str = ""
    provider: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def executed(self) -> dict[str, Any]:
        """How it is executed, as records say it: precision, provider and whatever else is said.

        >>> TowerFacts(precision="bf16", provider="CPU", said={"stored": "f32"}).executed
        {'precision': 'bf16', 'provider': 'CPU', 'stored': 'f32'}
        """
        return {"precision": self.precision, "provider": self.provider, **self.said}


class Tower(Protocol):
    """A graph that is open."""

    @property
    def facts(self) -> TowerFacts:
        """What the runtime says of it."""

    def run(self, inputs: Mapping[str, np.ndarray], /) -> np.ndarray:
        """Return features (B, D) of one batch, as the graph returns them.

        Args:
            inputs: ``input``, images (B, 3, H, W), (B, H, W, 3) or tokens (B, L) as the artifact's
                `io` says; and ``mask`` (B, L) where it names one.
        """


class Runtime(Protocol):
    """Opens files and runs them. `version` is bumped whenever results change."""

    version: int
    packages: tuple[str, ...]
    """Distributions whose versions are part of what identifies a result."""
    extra: str
    """clipq's optional extra that installs them; "" where they are not clipq's."""

    def sidecars(self, path: Path, /) -> tuple[Path, ...]:
        """Return the files without which `path` is incomplete, whether they are there or not.

        Raises:
            ArtifactError: `path` is damaged, so that nobody can tell.
        """

    def look(self, path: Path, /) -> Look:
        """Return what a file says of itself, without running it.

        Raises:
            ArtifactError: it is truncated or of another format.
        """

    def open(self, path: Path, ports: TowerPorts, session: SessionSettings, /) -> Tower:
        """Open a tower.

        Raises:
            ArtifactError: a name, a provider or an option is unknown, or the runtime refuses it.
        """


runtimes: Registry[Runtime] = Registry("runtime", group="clipq.runtimes")
for _name in ("executorch", "features", "onnxruntime", "openvino", "torch", "torch-export"):
    _module = _name.replace("-", "_")
    runtimes.register_lazy(_name, f"clipq.runtimes.{_module}_runtime:RUNTIME")
