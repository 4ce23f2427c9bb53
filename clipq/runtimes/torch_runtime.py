"""The runtime `torch`: a function of the user's makes the towers.

``image = "deploy/build.py:make"``. The function gets the FP32 model, an open_clip module on the CPU
in evaluation mode, as `make(model)`; or nothing, as `make()`. It returns

- a module with `encode_image` and `encode_text`, as open_clip's: torchao, quanto, torch.ao;
- a model of Hugging Face's transformers: CLIPModel, SiglipModel;
- or a pair: what encodes images, and what encodes texts; each a callable or one of the above.

All that the file imports of its project, and the files that it names, are part of what identifies
the artifact.
"""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipq.artifact_settings import SessionSettings
from clipq.dependencies.code_file import CodeFile, variables_behind
from clipq.dependencies.import_graph import Dependencies, project_root
from clipq.dependencies.installed import versions_behind
from clipq.errors import ArtifactError
from clipq.runtimes.code_made import made
from clipq.runtimes.finding import Finding
from clipq.runtimes.float_products import Products, float_products, quantized_weights
from clipq.runtimes.hugging_face import features_of, tower_of
from clipq.runtimes.runtime import Look, TowerFacts, TowerPorts

__all__ = ["RUNTIME", "TorchRuntime", "TorchTower"]

_Encode = Callable[[Any, Any], Any]
_MASKS = ("attention_mask", "mask")
_PRECISIONS = {"highest": "f32", "high": "tf32", "medium": "bf16"}


@dataclass(frozen=True, slots=True, eq=False)
class TorchTower:
    """A tower that a function made.

    Args:
        facts: what is known of it.
        encode: returns features of inputs, and of a mask or None.
        kind: ``image`` or ``text``.
        device: where inputs go.

    >>> tower = TorchTower(TowerFacts(), lambda inputs, mask: inputs.flatten(1), "image", "cpu")
    >>> tower.run({"input": np.ones((2, 3, 4, 4), np.float32)}).shape
    (2, 48)
    """

    facts: TowerFacts
    encode: _Encode
    kind: str
    device: str

    def run(self, inputs: Mapping[str, np.ndarray], /) -> np.ndarray:
        """Return features (B, D), float32, as the function's tower returns them.

        Raises:
            ArtifactError: it returns no matrix.
        """
        given = {name: torch.tensor(array, device=self.device) for name, array in inputs.items()}
        with torch.inference_mode():
            features = features_of(self.encode(given["input"], given.get("mask")), self.kind)
            if type(features) is not Tensor and hasattr(features, "dequantize"):
                features = features.dequantize()  # quanto's last layer returns codes and a scale
            found: np.ndarray = features.float().numpy(force=True)
        return found


class TorchRuntime:
    """Has a function make towers; see `clipq.runtimes.Runtime`."""

    version = 1
    packages = ("torch", "open_clip_torch", "torchao", "optimum-quanto", "transformers")
    extra = ""

    def __init__(self) -> None:
        self._made: dict[tuple[Path, str], Any] = {}

    def sidecars(self, path: Path, /) -> tuple[Path, ...]:
        """Return what a file imports of its project, and what it names: files, models' folders.

        >>> [p.name for p in TorchRuntime().sidecars(Path("benchmarks/feature_import.py"))]
        ['benchmark.py']
        """
        files = self._depends(path).files
        folders = {folder for file in files if file.suffix == ".py" for folder in _models_in(file)}
        named = {file for folder in folders for file in folder.iterdir() if file.is_file()}
        return tuple(sorted((files | named) - {path.resolve()}))

    def environment(self, path: Path, /) -> dict[str, str]:
        """Return what else decides what a file makes: versions of packages, digests of variables.

        Those are the packages that the file and its project's modules import, and what they
        require; and the environment variables that they read.
        """
        found = self._depends(path)
        values = variables_behind(found.variables).items()
        said = {f"variable {name}": value for name, value in values}
        versions = versions_behind(found.packages).items()
        return dict(sorted({f"package {name}": of for name, of in versions}.items() | said.items()))

    def look(self, path: Path, /) -> Look:
        """Return sizes, and what cannot be told of the code without running it.

        Raises:
            ArtifactError: it is no file of Python.
        """
        found = self._depends(path)
        try:
            compile(path.read_bytes(), path, "exec")
        except (SyntaxError, ValueError) as error:
            raise ArtifactError(
                f"{path} is no Python: {error}", hint="image = 'FILE.py:FUNCTION'"
            ) from error
        unknown = tuple(
            Finding(
                "code-unknown",
                f"{each}: what that leads to is no part of what identifies the artifact",
                "name modules and files as texts",
                wrong=False,
            )
            for each in sorted(found.unknown)
        )
        size = sum(file.stat().st_size for file in (path, *self.sidecars(path)) if file.is_file())
        return Look(bytes=size, findings=unknown)

    def open(self, path: Path, ports: TowerPorts, session: SessionSettings, /) -> TorchTower:
        """Have the function make the towers, once for both, and return one.

        Raises:
            ArtifactError: it fails, returns what encodes nothing or reads files of its project that
                it does not name; or the session asks for what cannot be had.
        """
        _check(session)
        if session.threads:
            torch.set_num_threads(session.threads)
        where, key = f"{path.name}:{ports.function}", (path.resolve(), ports.function)
        if key not in self._made:
            known = {path.resolve(), *self.sidecars(path)}
            self._made[key] = made(path, ports.function, ports.reference, known=known)
        if session.threads:  # which the function may have set as well
            torch.set_num_threads(session.threads)
        if session.precision == "f32":
            torch.set_float32_matmul_precision("highest")
        part = _part(self._made[key], ports.kind)
        if session.provider and isinstance(part, nn.Module):
            part.to(session.provider)
        encode = _encoder(part, ports, where)
        device = session.provider or _device(part)
        return TorchTower(_facts(part, encode, ports, device), encode, ports.kind, device)

    def _depends(self, path: Path) -> Dependencies:
        if path.suffix != ".py" or not path.is_file():
            there = "is no file of Python" if path.is_file() else "is missing"
            raise ArtifactError(
                f"{path} {there}", hint="runtime 'torch' takes image = 'FILE.py:FUNCTION'"
            )
        return CodeFile(path, ArtifactError).depends()


def _check(session: SessionSettings) -> None:
    """Refuse what a session asks for and a function alone can do."""
    if session.options:
        raise ArtifactError(
            f"unknown session option {next(iter(session.options))!r}",
            hint="runtime 'torch' has none: set what you need in the function",
        )
    if session.precision not in ("", "f32"):
        raise ArtifactError(
            f"session.precision = {session.precision!r}: runtime 'torch' runs what the function "
            "returns",
            hint="convert the model in the function, for example model.bfloat16()",
        )
    if not session.provider or session.provider == "cpu":
        return
    count = torch.cuda.device_count()
    kinds = ["cpu", *(["cuda"] if count else []), *(f"cuda:{number}" for number in range(count))]
    if session.provider not in kinds:
        raise ArtifactError(
            f"session.provider = {session.provider!r} is not here",
            hint=f"here there are: {', '.join(kinds)}",
        )


def _part(result: Any, kind: str) -> Any:
    if isinstance(result, tuple | list) and len(result) == 2:
        return result[kind == "text"]
    return result


def _encoder(part: Any, ports: TowerPorts, where: str) -> _Encode:
    """Return what encodes inputs, and a mask or None, with what a function returned.

    Raises:
        ArtifactError: it encodes nothing, or takes no mask.
    """
    kind = ports.kind
    method = getattr(part, f"encode_{kind}", None)
    adapted = tower_of(part, kind) if method is None else None
    if adapted is not None:
        return adapted
    other = {"image": "text", "text": "image"}[kind]
    if method is None and (not callable(part) or hasattr(part, f"encode_{other}")):
        raise ArtifactError(
            f"{where} returns {type(part).__name__}, which does not encode {kind}s",
            hint="return a module with encode_image and encode_text, a CLIPModel or SiglipModel of "
            "transformers, or a pair of what encodes images and what encodes texts",
        )
    encode: Callable[..., Any] = part if method is None else method
    if not ports.mask:
        return lambda inputs, _: encode(inputs)
    taken = inspect.signature(getattr(encode, "forward", encode)).parameters
    mask = next((name for name in _MASKS if name in taken), "")
    if not mask:
        raise ArtifactError(
            f"io.mask_input = {ports.mask!r}, and what {where} returns takes no attention_mask",
            hint="remove mask_input: the text tower finds the end of a text by itself",
        )
    return lambda inputs, given: encode(inputs, **{mask: given})


def _device(part: Any) -> str:
    if isinstance(part, nn.Module):
        for tensor in (*part.parameters(), *part.buffers()):
            return str(tensor.device)
    return "cpu"


def _facts(part: Any, encode: _Encode, ports: TowerPorts, device: str) -> TowerFacts:
    """Return what is known of a tower, what one sample shows included."""
    said: dict[str, Any] = {
        "made": type(part).__name__,
        "quantized": dict(quantized_weights(part)),
    }
    if isinstance(part, nn.Module) and part.training:
        said["training"] = True
    stored = Counter(
        str(p.dtype) for p in (part.parameters() if isinstance(part, nn.Module) else ())
    )
    said["parameters"] = {name.removeprefix("torch."): count for name, count in stored.items()}
    sample = None if ports.reference is None else _sample(ports.reference(), ports.kind)
    precision = ""
    if sample is not None and ports.reference is not None:
        shown = sample.to(device)
        mask = torch.ones_like(shown) if ports.mask else None
        try:
            products = float_products(part, lambda: encode(shown, mask))
        except Exception as error:  # the artifact's io may say that it takes something else
            said["not_counted"] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            reference: Any = getattr(ports.reference(), f"encode_{ports.kind}")
            whole = float_products(ports.reference(), lambda: reference(sample))
            said |= _shares(products, whole)
            said["quantized"] = dict(quantized_weights(part, products.ran))
            precision = _executed(products)
    return TowerFacts(precision=precision, provider=device, said=said)


def _shares(products: Products, whole: Products) -> dict[str, Any]:
    """Return which weights are multiplied in float, how many by name, and their share."""
    total = whole.weights.total()
    share = {"share_in_float": products.weights.total() / total} if total else {}
    return {"in_float": dict(Counter(map(_short, products.weights))), **share}


def _short(name: str) -> str:
    """Return what a layer is called in its block: ``h.0.attn.out_proj.weight`` is ``out_proj``."""
    return name.removesuffix(".weight").rpartition(".")[2]


def _executed(products: Products) -> str:
    """Return the precision of most of what is multiplied in float."""
    most = max(products.precisions, key=lambda name: products.precisions[name], default="")
    return _PRECISIONS[torch.get_float32_matmul_precision()] if most == "f32" else most


def _sample(reference: Any, kind: str) -> Tensor | None:
    """Return an input of the FP32 model; None where its shape is not known."""
    if kind == "image":
        size = getattr(getattr(reference, "visual", None), "image_size", None)
        height, width = size if isinstance(size, tuple | list) else (size, size)
        return None if height is None else torch.zeros(1, 3, int(height), int(width))
    text = getattr(reference, "text", reference)
    length = getattr(reference, "context_length", getattr(text, "context_length", None))
    return None if length is None else torch.ones(1, int(length), dtype=torch.int64)


def _models_in(source: Path) -> set[Path]:
    """Return the folders with models of transformers that a source names."""
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return set()
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    found = set()
    for text in texts:
        for base in (source.parent, project_root(source), Path.cwd()):
            try:
                if 0 < len(text) < 256 and (base / text / "config.json").is_file():
                    found.add((base / text).resolve())
            except (OSError, ValueError):  # too long for a name, or no name
                continue
    return found


RUNTIME = TorchRuntime()
