"""Which input of a graph takes what, and whether what is given fits it.

Runtimes differ in what they refuse: one casts int32 to int64, another reads beyond the end of a
smaller array. So it is checked here, before a runtime sees it, with the same words for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clipq.errors import ArtifactError, did_you_mean
from clipq.runtimes.runtime import Port, TowerFacts, TowerPorts

__all__ = [
    "check_batch",
    "check_features",
    "chosen_inputs",
    "chosen_output",
    "fitting",
    "fixed_batch",
    "shown",
]

_RANKS = {"image": 4, "text": 2}
_TAKES = {"image": "images (B, 3, H, W)", "text": "tokens (B, L)"}


def shown(port: Port) -> str:
    """Return a port for a sentence.

    >>> shown(Port("pixel_values", "float32", (-1, 3, 224, 224)))
    "'pixel_values' float32 (?, 3, 224, 224)"
    """
    sizes = ", ".join("?" if size < 0 else str(size) for size in port.shape)
    shape = f" ({sizes})" if port.shape else ""
    return f"{port.name!r}{' ' if port.dtype else ''}{port.dtype}{shape}"


def chosen_inputs(inputs: Sequence[Port], ports: TowerPorts, path: Path) -> Mapping[str, int]:
    """Return where in `inputs` each of ``input`` and ``mask`` is.

    Args:
        inputs: of the graph.
        ports: what the artifact's `io` says.
        path: the graph, for messages.

    Raises:
        ArtifactError: a name is unknown, a name has to be given, or the graph takes something else,
            as it does where towers are swapped.

    >>> takes = (Port("input_ids", "int64", (-1, 77)), Port("attention_mask", "int64", (-1, 77)))
    >>> chosen_inputs(takes, TowerPorts("text", "input_ids", "attention_mask"), Path("text.onnx"))
    {'input': 0, 'mask': 1}
    """
    key = f"{ports.kind}_input"
    found: dict[str, int] = {}
    if ports.mask:
        found["mask"] = _named(inputs, ports.mask, "mask_input", path)
    left = [place for place in range(len(inputs)) if place not in found.values()]
    if ports.input:
        found["input"] = _named(inputs, ports.input, key, path)
    elif len(left) == 1:
        found["input"] = left[0]
    else:
        raise ArtifactError(
            f"{path} has {len(inputs)} inputs and io names none: {_all(inputs)}",
            hint=f'say which takes the {_TAKES[ports.kind]}: io = {{ {key} = "NAME" }}',
        )
    spare = [inputs[place] for place in left if place != found["input"]]
    if spare:
        fix = 'name the mask: io = { mask_input = "NAME" }; nothing else can be given'
        raise ArtifactError(f"{path} also takes {_all(spare)}, which io does not name", hint=fix)
    _check_tower(inputs[found["input"]], ports.kind, path)
    return {name: found[name] for name in ("input", "mask") if name in found}


def chosen_output(outputs: Sequence[Port], ports: TowerPorts, path: Path) -> int:
    """Return where in `outputs` the features are.

    Raises:
        ArtifactError: a name is unknown or has to be given, or that output is not (B, D).

    >>> outputs = (Port("last_hidden_state", "float32", (-1, 50, 768)),
    ...     Port("image_embeds", "float32", (-1, 512)))
    >>> chosen_output(outputs, TowerPorts("image", output="image_embeds"), Path("image.onnx"))
    1
    """
    key = f"{ports.kind}_output"
    if ports.output:
        place = _named(outputs, ports.output, key, path, what="output")
    elif len(outputs) == 1:
        place = 0
    else:
        raise ArtifactError(
            f"{path} has {len(outputs)} outputs and io names none: {_all(outputs)}",
            hint=f'say which holds the features (B, D): io = {{ {key} = "NAME" }}',
        )
    shape = outputs[place].shape
    if shape and len(shape) != 2:
        raise ArtifactError(
            f"{path} returns {shown(outputs[place])}, which is not features (B, D)",
            hint=f"export the pooled and projected features, or name another output by {key}",
        )
    return place


def fixed_batch(inputs: Sequence[Port], path: Path) -> int:
    """Return the only batch that a graph's inputs take; 0 where they take any.

    Raises:
        ArtifactError: two inputs take different batches.

    >>> fixed_batch((Port("x", "float32", (8, 3, 32, 32)),), Path("image.pte"))
    8
    """
    batches = sorted({port.batch for port in inputs if port.batch >= 0})
    if len(batches) > 1:
        raise ArtifactError(
            f"{path} takes inputs of different batches: {_all(inputs)}", hint="export it again"
        )
    return batches[0] if batches else 0


def check_batch(size: int, facts: TowerFacts, path: Path) -> None:
    """Refuse a batch that a graph was not exported for.

    Args:
        size: of the batch.
        facts: ``said["batch_range"]``, where it is, holds the smallest and the largest.
        path: the graph, for messages.

    Raises:
        ArtifactError: it is smaller or larger.

    >>> check_batch(64, TowerFacts(said={"batch_range": [1, 8]}), Path("image.pte"))
    Traceback (most recent call last):
    clipq.errors.ArtifactError: image.pte takes 1 to 8 samples at a time, but is given 64
      fix: write batch = 8, or export it for larger batches
    """
    low, high = facts.said.get("batch_range", (0, size))
    if not low <= size <= high:
        fix = f"write batch = {high}" if size > high else f"give {low} or more"
        raise ArtifactError(
            f"{path} takes {low} to {high} samples at a time, but is given {size}",
            hint=f"{fix}, or export it for {'larger' if size > high else 'smaller'} batches",
        )


def fitting(array: np.ndarray, port: Port, path: Path, *, kind: str) -> np.ndarray:
    """Return an array as a port takes it: contiguous, images in half where it takes them so.

    A mask holds ones and zeros, which are the same in every type.

    Args:
        array: images or tokens, (B, ...).
        port: what takes it.
        path: the graph, for messages.
        kind: ``image``, ``text`` or ``mask``.

    Raises:
        ArtifactError: its rank, a size or its type is another.

    >>> tokens, port = np.ones((2, 64), np.int64), Port("ids", "int64", (-1, 77))
    >>> fitting(tokens, port, Path("t.xml"), kind="text")
    Traceback (most recent call last):
    clipq.errors.ArtifactError: t.xml takes 'ids' int64 (?, 77), but is given int64 (2, 64)
      fix: export the text tower for 64 tokens, the context length of the model's tokenizer
    """
    given = f"{array.dtype} {array.shape}"
    problem = f"{path} takes {shown(port)}, but is given {given}"
    if port.shape and not _fits(array.shape, port.shape):
        raise ArtifactError(problem, hint=_shape_fix(array.shape, port.shape, kind))
    if port.dtype and array.dtype.name != port.dtype:
        if kind != "mask" and not (array.dtype == np.float32 and port.dtype == "float16"):
            raise ArtifactError(problem, hint=_dtype_fix(port.dtype, kind))
        array = array.astype(port.dtype)
    return np.ascontiguousarray(array)


def check_features(features: np.ndarray, batch: int, path: Path) -> np.ndarray:
    """Return features if they are (batch, D) numbers.

    Raises:
        ArtifactError: they are of another shape, or no float numbers.

    >>> check_features(np.ones((2, 4), np.float32), 2, Path("image.xml")).shape
    (2, 4)
    """
    if features.ndim != 2 or features.shape[0] != batch or features.dtype.kind != "f":
        raise ArtifactError(
            f"{path} returned {features.dtype} {features.shape} for a batch of {batch}, "
            f"not float features ({batch}, D)",
            hint="export the pooled and projected features with a free first axis",
        )
    return features


def _named(found: Sequence[Port], name: str, key: str, path: Path, *, what: str = "input") -> int:
    names = [port.name for port in found]
    if name not in names:
        raise ArtifactError(
            f"{path} has no {what} {name!r}; it has {_all(found)}",
            hint=f"in io, {key}: {did_you_mean(name, names)}",
        )
    return names.index(name)


def _all(found: Sequence[Port]) -> str:
    return ", ".join(map(shown, found)) or "none"


def _check_tower(port: Port, kind: str, path: Path) -> None:
    other = "text" if kind == "image" else "image"
    integer = port.dtype.startswith("int")
    rank = len(port.shape)
    floating = port.dtype.startswith(("float", "bfloat"))
    wrong = (rank and rank != _RANKS[kind]) or (integer if kind == "image" else floating)
    if not wrong:
        return
    swapped = rank in (0, _RANKS[other]) and (integer if other == "text" else not integer)
    raise ArtifactError(
        f"{path} is named as the {kind} tower, but takes {shown(port)}, not {_TAKES[kind]}",
        hint="swap `image` and `text`"
        if swapped
        else f"name the input that takes {_TAKES[kind]}, or export the {kind} tower",
    )


def _fits(given: Sequence[int], taken: Sequence[int]) -> bool:
    pairs = zip(given, taken, strict=False)
    return len(given) == len(taken) and all(one == other or other < 0 for one, other in pairs)


def _shape_fix(given: Sequence[int], taken: Sequence[int], kind: str) -> str:
    if len(given) == len(taken) and _fits(given[1:], taken[1:]):
        return f"call it with {taken[0]} samples, or export it with a free first axis"
    if kind != "image" and len(given) == len(taken) == 2:
        return (
            f"export the text tower for {given[1]} tokens, "
            "the context length of the model's tokenizer"
        )
    if kind == "image" and len(given) == len(taken) == 4:
        turned = (given[0], *given[2:], given[1]), (given[0], given[3], *given[1:3])
        if _fits(turned[0], taken):
            return 'say that channels come last: io = { layout = "NHWC" }'
        if _fits(turned[1], taken):
            return 'say that channels come first: io = { layout = "NCHW" }'
        return "export the image tower at the image size of the model, or name its own model"
    return f"export the {kind} tower to take {_TAKES.get(kind, 'a mask (B, L)')}"


def _dtype_fix(taken: str, kind: str) -> str:
    if kind == "image" and taken == "uint8":
        return 'say that it takes bytes: io = { pixels = "bytes" }'
    if kind == "image" and taken in ("float32", "float16"):
        return 'say that it takes numbers: io = { pixels = "normalised" }, or "unit"'
    if kind != "image" and taken in ("int64", "int32"):
        return f'say so: io = {{ text_dtype = "{taken}" }}'
    return f"export it with {'float32 images' if kind == 'image' else 'int64 tokens'}"
