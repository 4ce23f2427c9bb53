"""Tensors and facts as two files that are whole, or are known not to be.

`NAME.safetensors` holds the tensors, `NAME.json` the facts, the sha256 of the tensors' file and one
of the facts themselves. The JSON is written last, so that tensors without it are nothing, and each
file comes under its name by a rename after its bytes are on the disk: a process that is killed, a
machine that loses power or a disk that is full leaves the files of before. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from clipq.errors import CacheError, TrainingError
from clipq.files import replace_atomically
from clipq.provenance import digest, sha256_file
from clipq.shapes import Document, Meta

__all__ = ["read_facts", "read_sealed", "remove_sealed", "write_sealed"]

_SCHEMA = "clipq-sealed/1"
_Hash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="a sha256 in hex")]


@dataclass(frozen=True, slots=True)
class _Seal:
    """What the JSON holds; the facts are a text, whose hash is that of its bytes."""

    schema: Annotated[str, Meta(pattern=rf"\A{_SCHEMA}\Z", description=f"{_SCHEMA!r}")]
    tensors_sha256: _Hash
    facts_sha256: _Hash
    facts: str


def write_sealed(
    place: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> None:
    """Write both files, or leave what was there.

    Args:
        place: their path without an ending.
        tensors: by name, on any device.
        facts: strict-JSON values.

    Raises:
        CacheError: the folder is read-only or full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_sealed(Path(folder, "a"), {"x": torch.ones(2)}, {"step": 3})
    ...     read_sealed(Path(folder, "a"))
    ({'step': 3}, {'x': tensor([1., 1.])})
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sums: list[str] = []

    def fill(temporary: Path) -> None:
        place.with_suffix(".json").unlink(missing_ok=True)  # which would vouch for other tensors
        try:
            save_file(plain, temporary)
        except SafetensorError as error:  # what its writer makes of a full disk
            raise OSError(str(error)) from error
        sums.append(sha256_file(temporary))

    text = json.dumps(dict(facts), sort_keys=True, allow_nan=False)
    replace_atomically(place.with_suffix(".safetensors"), fill)
    seal = {
        "schema": _SCHEMA,
        "tensors_sha256": sums[0],
        "facts_sha256": digest(text),
        "facts": text,
    }
    replace_atomically(
        place.with_suffix(".json"), lambda path: _write_text(path, json.dumps(seal, indent=1))
    )
    _settle(place.parent)


def read_facts(place: Path) -> dict[str, Any]:
    """Return the facts alone.

    Raises:
        TrainingError: the JSON is missing or damaged.
    """
    return _read_seal(place)[1]


def read_sealed(place: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return facts and tensors, on the CPU, as they were written.

    Raises:
        TrainingError: a file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    seal, facts = _read_seal(place)
    path = place.with_suffix(".safetensors")
    try:
        if (found := sha256_file(path)) != seal.tensors_sha256:
            raise ValueError(f"its sha256 is {found[:12]}, not {seal.tensors_sha256[:12]}")
        return facts, load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(f"{path} is damaged: {error}", hint="remove it") from error


def remove_sealed(place: Path) -> None:
    """Remove both files, first the one without which the other is nothing."""
    with suppress(OSError):
        place.with_suffix(".json").unlink(missing_ok=True)
        place.with_suffix(".safetensors").unlink(missing_ok=True)


def _read_seal(place: Path) -> tuple[_Seal, dict[str, Any]]:
    path = place.with_suffix(".json")
    seal = Document(path, "JSON", TrainingError, "remove it").read(_Seal)
    if digest(seal.facts) != seal.facts_sha256:
        raise TrainingError(f"{path} is damaged: its facts are not those written", hint="remove it")
    facts: dict[str, Any] = json.loads(seal.facts)
    return seal, facts


def _write_text(path: Path, text: str) -> None:
    path.write_text(f"{text}\n", encoding="utf-8")


def _settle(folder: Path) -> None:
    """Have the names of a folder on the disk, where the system can be asked to."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise CacheError(
            f"cannot write {folder}: {error.strerror}", hint="choose another folder"
        ) from error
    finally:
        os.close(descriptor)
