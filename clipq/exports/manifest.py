"""What lies beside exported files and says what they are: ``manifest.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from clipq.artifact_settings import LARGEST_BATCH, IoSettings
from clipq.errors import ArtifactError
from clipq.files import write_atomically
from clipq.provenance import sha256_file
from clipq.shapes import Document, Finite, Meta, Text, whole

__all__ = ["MANIFEST", "Manifest"]

MANIFEST = "manifest.json"
_SCHEMA = "clipq-artifact/1"
_FIX = "make the artifact again with `clipq artifact quantize` or `export`, into an empty folder"

_Hash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="a sha256 in hex")]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the files of a folder are, and of which model they were made. Paths are names in it.

    Args:
        recipe: that made them.
        recipe_version: bumped whenever a recipe's results change.
        runtime: that runs them.
        image: file of the image tower; ``FILE.py:FUNCTION`` for the runtime ``torch``.
        files: sha256 of each file, sidecars too.
        state_sha256: of the float model's tensors: names, types, shapes and values.
        logit_scale: exponentiated (1 / temperature).
        text: file of the text tower; "" where `image` makes both.
        logit_bias: 0 where the model has none.
        format: number format, for margins; "" for float.
        precision: what float operations are meant to be executed in; "" for the runtime's own.
        batch: the only one that the graphs take; 0 where they take any.
        float_image: float graph that `image` was made from; "" where there is none.
        float_text: float graph that `text` was made from; "" where there is none.
        opset: version of the operator set or of the file format; "" where there is none.
        io: what the graphs take and return.
        calibration: images and texts that ranges were taken from, how many of each.
        packages: versions of what made them.

    >>> manifest = Manifest("mine", 1, "onnxruntime", "image.onnx", text="text.onnx",
    ...     files={"image.onnx": "0" * 64, "text.onnx": "1" * 64}, state_sha256="2" * 64,
    ...     logit_scale=100.0)
    >>> sorted(manifest.settings(Path("deploy")))
    ['image', 'io', 'runtime', 'text']
    """

    recipe: Text
    recipe_version: Annotated[int, whole(1)]
    runtime: Text
    image: Text
    files: Mapping[str, _Hash]
    state_sha256: _Hash
    logit_scale: Finite
    text: str = ""
    logit_bias: Finite = 0.0
    format: str = ""
    precision: str = ""
    batch: Annotated[int, whole(0, LARGEST_BATCH)] = 0
    float_image: str = ""
    float_text: str = ""
    opset: str = ""
    io: IoSettings = field(default_factory=IoSettings)
    calibration: Mapping[str, Annotated[int, whole(0)]] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Return the manifest of a folder, whose files are as they were when they were made.

        Raises:
            ArtifactError: it is missing or damaged, or a file of it is missing or was changed.

        >>> Manifest.read(Path("fixtures"))
        Traceback (most recent call last):
        clipq.errors.ArtifactError: fixtures/manifest.json cannot be read as JSON: ...
        ...
        """
        found = _stored(folder)
        for name, sha256 in found.files.items():
            path = folder / name
            try:
                actual = sha256_file(path)
            except OSError as error:
                cause = error.strerror or error
                raise ArtifactError(f"{path} cannot be read: {cause}", hint=_FIX) from error
            if actual != sha256:
                raise ArtifactError(
                    f"{path} is not the file that was made: its sha256 is {actual}, "
                    f"{MANIFEST} says {sha256}",
                    hint=_FIX,
                )
        return found

    @staticmethod
    def names(folder: Path) -> tuple[str, ...]:
        """Return the files that the manifest of a folder names, and the manifest itself.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        return (*_stored(folder).files, MANIFEST)

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        text = json.dumps(_said(asdict(_Stored(_SCHEMA, self))), indent=1, allow_nan=False)
        write_atomically(folder / MANIFEST, f"{text}\n".encode())

    def settings(self, folder: Path) -> dict[str, str | int | dict[str, str]]:
        """Return the keys of an `[[artifacts]]` table, but for its name and model.

        Args:
            folder: where the files are, as the table is to say it.
        """

        def at(name: str) -> str:
            return (folder / name).as_posix()

        table: dict[str, str | int | dict[str, str]] = {
            "runtime": self.runtime,
            "image": at(self.image),
        }
        if self.text:
            table["text"] = at(self.text)
        if self.float_image:
            made_from = {"image": self.float_image, "text": self.float_text}
            table["float"] = {key: at(name) for key, name in made_from.items() if name}
        if self.format:
            table["format"] = self.format
        if self.batch:
            table["batch"] = self.batch
        if self.precision:
            table["session"] = {"precision": self.precision}
        plain = asdict(IoSettings())
        io = {key: value for key, value in asdict(self.io).items() if value != plain[key]}
        table["io"] = io or {"output": self.io.output}
        return table


@dataclass(frozen=True, slots=True)
class _Stored:
    schema: Annotated[str, Meta(pattern=rf"\A{_SCHEMA}\Z", description=f"{_SCHEMA!r}")]
    artifact: Manifest


def _stored(folder: Path) -> Manifest:
    """Return the manifest of a folder, as it is written; no file that it names is elsewhere."""
    found = Document(folder / MANIFEST, "JSON", ArtifactError, _FIX).read(_Stored).artifact
    for name in found.files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtifactError(f"{folder / MANIFEST}: file {name!r} is elsewhere", hint=_FIX)
    return found


def _said(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a record without the texts that it leaves empty."""
    return {
        key: _said(value) if isinstance(value, dict) else value
        for key, value in plain.items()
        if value != ""
    }
