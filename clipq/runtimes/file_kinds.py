"""What a file is by what it begins with, so that another format is named and not misread."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection
from pathlib import Path

from clipq.errors import ArtifactError

__all__ = [
    "AOTI",
    "EXECUTORCH",
    "EXPORTED",
    "IR",
    "ONNX",
    "ORT",
    "check_kind",
    "kind_of",
]

AOTI = "an AOTInductor package"
EXECUTORCH = "an ExecuTorch program"
EXPORTED = "a torch.export program"
IR = "an OpenVINO IR"
ONNX = "an ONNX model"
ORT = "a model in ONNX Runtime's own format"

_RUN_BY = {
    AOTI: "torch-export",
    EXECUTORCH: "executorch",
    EXPORTED: "torch-export",
    IR: "openvino",
    ONNX: "onnxruntime",
    ORT: "onnxruntime",
}
_LFS = "a Git LFS pointer"
_DAMAGED_ZIP = "a damaged or truncated zip archive"
_STARTS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        # Flatbuffers begin with an offset, which may look like any other beginning.
        (rb".{4}ET\d\d", EXECUTORCH),
        (rb".{4}ORTM", ORT),
        (rb".{4}TFL3", "a TensorFlow Lite model"),
        (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>)?\s*(<!--.*?-->\s*)*<net[\s>]", IR),
        (rb"(\xef\xbb\xbf)?\s*<[!?A-Za-z]", "XML or HTML"),
        (rb"GGUF", "a GGUF file"),
        (rb"version https://git-lfs", _LFS),
        (rb"\x7fELF", "a shared library"),
        (rb"\x1f\x8b", "gzip"),
        (rb"[\x80].\x8a", "a file of torch.save"),
        (rb".{8}\{\"", "a safetensors file"),
        # The first field of a ModelProto is ir_version, a small number; another field follows.
        (rb"\x08[\x01-\x7f][\x12\x1a\x22\x28\x32\x3a\x42\x72]", ONNX),
        (rb"[\t\n\r\x20-\x7e]+\Z", "text"),
    )
)
_READ = 4096


def kind_of(path: Path) -> str:
    """Return what a file is, in words; "" of one that is like nothing known.

    Raises:
        ArtifactError: there is no such file, or it is a folder, empty or unreadable.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "image.xml")
    ...     _ = path.write_text('<?xml version="1.0"?><net name="Model0" version="11">')
    ...     kind_of(path)
    'an OpenVINO IR'
    """
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder, not a file", hint="name the file in it")
    try:
        with path.open("rb") as file:
            start = file.read(_READ)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} does not exist",
            hint="paths are relative to clipq.toml; export the model, or mend the path",
        ) from None
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror}", hint="mend its permissions"
        ) from error
    if not start:
        raise ArtifactError(f"{path} is empty", hint="export the model again")
    if start.startswith(b"PK"):
        return _kind_of_archive(path)
    return next((kind for pattern, kind in _STARTS if pattern.match(start)), "")


def check_kind(path: Path, wanted: Collection[str], /) -> str:
    """Return which of the kinds `wanted` a file is.

    Raises:
        ArtifactError: it is of another kind; the message says which, and what runs that.

    >>> check_kind(Path(__file__), [IR])
    Traceback (most recent call last):
    clipq.errors.ArtifactError: .../file_kinds.py is text, not an OpenVINO IR
      fix: name a file that this runtime takes, or export the model again
    """
    kind = kind_of(path)
    if kind in wanted:
        return kind
    names = " or ".join(wanted)
    if kind == _LFS:
        hint = "fetch what it points to: git lfs pull"
    elif kind == _DAMAGED_ZIP:
        hint = "copy it again, or export the model again"
    elif kind in _RUN_BY:
        hint = f'that is run by runtime = "{_RUN_BY[kind]}"'
    else:
        hint = "name a file that this runtime takes, or export the model again"
    raise ArtifactError(f"{path} is {kind or 'of no known format'}, not {names}", hint=hint)


def _kind_of_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return _DAMAGED_ZIP
    if any("/data/aotinductor/" in f"/{name}" for name in names):
        return AOTI
    if any(name.endswith("archive_format") or "exported_program" in name for name in names):
        return EXPORTED
    if any(name.endswith("data.pkl") for name in names):
        return "a file of torch.save or TorchScript"
    if names and all(name.endswith(".npy") for name in names):
        return "an npz file"
    return "a zip archive"
