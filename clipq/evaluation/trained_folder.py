"""A trained quantizer as a folder: its tensors, and what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipq.errors import QuantizerError
from clipq.evaluation.trained_manifest import TRAINED, TrainedManifest
from clipq.evaluation.training_unit import differing_parent
from clipq.files import read_file, write_atomically
from clipq.provenance import sha256_file

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["STATE", "TrainedFolder", "folders_below", "write_trained"]

STATE = "trained.safetensors"
_FORMAT = "clipq-trained/1"
_FIX = "train it again with `clipq train`, or restore the folder as it was written"
_MOST_BYTES = 1 << 36
_DEPTH = 3


@dataclass(frozen=True, slots=True)
class TrainedFolder:
    """A trained quantizer: where it lies, and what it is.

    >>> import tempfile, torch
    >>> from clipq.evaluation.training_unit import TrainingUnit
    >>> unit = TrainingUnit("vit", "lsq:w4", {}, {"weights_sha256": "0f"}, {})
    >>> manifest = TrainedManifest(unit, "0" * 64)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     made = write_trained(Path(place), manifest, {"step": torch.ones(3)})
    ...     TrainedFolder.read(Path(place)).state()["step"].tolist()
    [1.0, 1.0, 1.0]
    """

    path: Path
    manifest: TrainedManifest

    @staticmethod
    def read(path: Path) -> TrainedFolder:
        """Return a folder whose state is, byte by byte, the one that its manifest describes.

        Raises:
            QuantizerError: a file is missing or damaged, or the state is another one.
        """
        if not path.is_dir():
            raise QuantizerError(f"no trained quantizer in {path}: it is no folder", hint=_FIX)
        manifest = TrainedManifest.read(path)
        try:
            actual = sha256_file(path / STATE)
        except OSError as error:
            raise QuantizerError(
                f"{path / STATE} cannot be read: {error.strerror or error}", hint=_FIX
            ) from error
        if actual != manifest.state_sha256:
            raise QuantizerError(
                f"{path / STATE} is not the state that was trained: its sha256 is {actual}, "
                f"{TRAINED} says {manifest.state_sha256}",
                hint=_FIX,
            )
        return TrainedFolder(path, manifest)

    @property
    def bytes(self) -> int:
        """Of the file of tensors."""
        return (self.path / STATE).stat().st_size

    def state(self) -> dict[str, Tensor]:
        """Return its tensors by name.

        Raises:
            QuantizerError: they are not as they were written, or hold what is no number.
        """
        import hashlib

        from safetensors import SafetensorError
        from safetensors.torch import load

        place = self.path / STATE
        try:
            content = read_file(place, most=_MOST_BYTES)
            if hashlib.sha256(content).hexdigest() != self.manifest.state_sha256:
                raise ValueError("it changed since it was looked at")
            if _format(content) != _FORMAT:
                raise ValueError(f"it is of format {_format(content)!r}, not of {_FORMAT!r}")
            found = load(content)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise QuantizerError(f"{place} is no trained state: {error}", hint=_FIX) from error
        for name, values in found.items():
            if values.is_floating_point() and not bool(values.isfinite().all()):
                raise QuantizerError(
                    f"{place}: {name} holds NaN or infinity",
                    hint="nothing can be computed with it; train it again with a lower lr",
                )
        return found

    def differences(self, quantizer: str, parent: Mapping[str, str]) -> Iterator[str]:
        """Yield why this is not the trained state of a quantizer of a model.

        Args:
            quantizer: its text.
            parent: what identifies the model.
        """
        if self.manifest.quantizer != quantizer:
            yield f"it is {self.manifest.quantizer!r}, not {quantizer!r}"
        if wrong := list(differing_parent(self.manifest.unit.parent, parent)):
            yield f"it was trained from another model: {'; '.join(wrong)}"

    def require(self, quantizer: str, parent: Mapping[str, str], model: str) -> None:
        """Refuse to be the trained state of anything else.

        Args:
            quantizer: its text.
            parent: what identifies the model.
            model: what the model is called here.

        Raises:
            QuantizerError: it is of another quantizer or another model.
        """
        if wrong := list(self.differences(quantizer, parent)):
            raise QuantizerError(
                f"{self.path} is no trained state of {quantizer!r} of {model!r}: {wrong[0]}",
                hint=f"clipq train {model} '{quantizer}' --output FOLDER makes one",
            )


def write_trained(
    path: Path, manifest: TrainedManifest, state: Mapping[str, Tensor], *, write: bool = True
) -> TrainedFolder:
    """Write a trained quantizer: the state, then the manifest, so that there is never a part.

    Args:
        path: a folder; is made.
        manifest: what it is; what it says of the state's hash is replaced.
        state: tensors by name.
        write: whether this process is the one that writes; of several that trained together, one.

    Raises:
        CacheError: the folder is read-only or full.
    """
    import hashlib

    from safetensors.torch import save

    plain = {name: values.detach().cpu().contiguous() for name, values in sorted(state.items())}
    content = save(plain, {"format": _FORMAT})
    manifest = replace(manifest, state_sha256=hashlib.sha256(content).hexdigest())
    if write:
        (path / TRAINED).unlink(missing_ok=True)  # which would vouch for another state
        write_atomically(path / STATE, content)
        manifest.write(path)
    return TrainedFolder(path, manifest)


def folders_below(root: Path) -> list[Path]:
    """Return the folders in which a trained quantizer lies, in or below one, sorted.

    Those whose names begin with a dot are left out, and what lies deeper than three.

    >>> folders_below(Path("fixtures/models/vit-clean"))
    []
    """
    found, level = [], [root]
    for _ in range(_DEPTH + 1):
        found += [folder for folder in level if (folder / TRAINED).is_file()]
        level = [
            inner
            for folder in level
            if folder.is_dir()
            for inner in folder.iterdir()
            if inner.is_dir() and not inner.name.startswith(".")
        ]
    return sorted(found)


def _format(content: bytes) -> str:
    """Return the format that a file of tensors names in its header, "" where it names none."""
    import json

    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return str(header.get("__metadata__", {}).get("format", ""))
