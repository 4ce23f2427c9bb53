"""The exact inputs of a model, as files: for encoding where clipq does not run.

What comes back is looked up by sample id (`clipq.runtimes.feature_files`), so every file carries
the ids of its images. Texts go as tokens, each once: what comes back is looked up by them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipq.errors import ArtifactError, SettingsError
from clipq.evaluation.inputs import Inputs, caption_lines
from clipq.files import read_file, write_atomically
from clipq.models.zeroshot import prompt_tokens
from clipq.provenance import digest

if TYPE_CHECKING:
    from clipq.models import LoadedModel
    from clipq.settings import Settings

__all__ = ["MANIFEST", "Form", "ImageExport", "exportable"]

MANIFEST = "manifest.json"
_SCHEMA = "clipq-artifact-images/1"
_SHARD_BYTES = 1 << 28
_MOST_IN_SHARD = 4096
_OURS = re.compile(r"(?!\.)[A-Za-z0-9._-]+/[A-Za-z0-9-]+\.(npz|safetensors|json)")
_PICTURE = re.compile(r"[0-9]+-[0-9]+\.png")
_HOW = (
    "Encode every array 'images' of every file and keep its 'ids': the order is yours.",
    "Bring features back as FOLDER/PROBE.npz or FOLDER/PROBE/ANY.npz with the arrays 'ids' (N,) "
    "and 'features' (N, D), floats: np.savez(path, ids=ids, features=features). Also safetensors "
    "(ids as JSON in the metadata) or Parquet (columns id, embedding).",
    "[[artifacts]] runtime = 'features', image = FOLDER.",
    "Where the text tower ships as well: encode 'tokens' of text/tokens.npz and bring 'tokens' and "
    "'features' back in one file, text = FILE. Or make class embeddings yourself, as text/classes"
    ".json says, and bring them back with the class names as 'ids': head = FILE. Or text = 'fp32'.",
)


@dataclass(frozen=True, slots=True)
class Form:
    """What is written.

    Args:
        format: ``npz`` or ``safetensors``, many images a file, or ``png``, which holds bytes alone.
        pixels: ``normalised`` by the model's mean and deviation, ``unit`` from 0 to 1, or ``bytes``
            from 0 to 255 (uint8).
        layout: of an image, ``NCHW`` or ``NHWC``.

    Raises:
        SettingsError: PNG is asked for with anything but bytes.

    >>> Form("png", "bytes", "NHWC").dtype
    'uint8'
    """

    format: str = "npz"
    pixels: str = "normalised"
    layout: str = "NCHW"

    def __post_init__(self) -> None:
        if self.format == "png" and (self.pixels, self.layout) != ("bytes", "NHWC"):
            raise SettingsError(
                f"PNG cannot hold {self.pixels} pixels in {self.layout}",
                hint="a PNG holds bytes: pixels 'bytes', layout 'NHWC'; or format 'npz'",
            )

    @property
    def dtype(self) -> str:
        """Type of the pixels."""
        return "uint8" if self.pixels == "bytes" else "float32"

    def made(self, images: np.ndarray, loaded: LoadedModel) -> np.ndarray:
        """Return preprocessed images (N, H, W, 3) uint8 in this form."""
        if self.pixels == "bytes":
            found = images.transpose(0, 3, 1, 2)
        elif self.pixels == "unit":
            found = loaded.preprocess.pixels(images).numpy()
        else:
            found = loaded.preprocess.normalise(images).numpy()
        return np.ascontiguousarray(found if self.layout == "NCHW" else found.transpose(0, 2, 3, 1))


class ImageExport:
    """Writes the inputs of a model, a shard at a time; what was written before is kept.

    Args:
        inputs: probes and their images.
        loaded: the FP32 model: preprocessing and tokenizer.
        model: its name.
        folder: where to.
        form: in which form.
        progress: called with what is written, images done and images in all.
    """

    def __init__(
        self,
        inputs: Inputs,
        loaded: LoadedModel,
        model: str,
        folder: Path,
        *,
        form: Form,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.inputs, self.loaded, self.folder, self.form = inputs, loaded, folder, form
        self._progress = progress
        config = json.loads(loaded.preprocess.identity)
        self._said: dict[str, Any] = {
            "schema": _SCHEMA,
            "how": list(_HOW),
            "model": model,
            "weights_sha256": loaded.identity.weights_sha256,
            "preprocess": config,
            **asdict(form),
            "dtype": form.dtype,
            "mean": config.get("mean"),
            "std": config.get("std"),
            "order": "RGB",
            "complete": False,
            "probes": {},
            "text": {},
        }

    def write(self, probes: Sequence[str], *, force: bool = False) -> dict[str, Any]:
        """Write images of some probes, and all texts; return the manifest.

        Args:
            probes: their names.
            force: whether to write into a folder that holds something else.

        Raises:
            ArtifactError: the folder holds something else.
            ProbeError: an image cannot be decoded.
        """
        self._begin(probes, force=force)
        self._texts()
        for name in probes:
            self._images(name)
        self._said["complete"] = True
        self._keep()
        return self._said

    def _begin(self, probes: Sequence[str], *, force: bool) -> None:
        """Take over what an earlier call wrote, or see that the folder is free."""
        before = _manifest(self.folder)
        mine = {name: self._fingerprint(name) for name in probes}
        held = {} if before is None else before["probes"]
        same = before is not None and all(
            before.get(key) == self._said[key] for key in self._said if key not in _STATE
        )
        same = same and all(
            held[name]["fingerprint"] == mine[name] for name in held if name in mine
        )
        if same:
            self._said["probes"] = held
            return
        if any(self.folder.glob("*")) and not force:
            what = "holds something else" if before is None else "holds images of another export"
            raise ArtifactError(
                f"{self.folder} {what}", hint="name an empty folder, or pass --force"
            )
        if before is not None:
            for file in list(_files_of(before, self.folder)):
                (self.folder / file).unlink(missing_ok=True)

    def _images(self, name: str) -> None:
        probe = self.inputs.opened(name)
        # One image tells the shape of all: nothing else does without decoding.
        first = self.inputs.images(name, self.loaded.preprocess, first=1)
        shape = self.form.made(first, self.loaded).shape[1:]
        size = _shard_size(int(np.prod(shape)) * np.dtype(self.form.dtype).itemsize)
        shards = self._said["probes"].setdefault(
            name,
            {
                "role": probe.role,
                "samples": len(probe),
                "shape": list(shape),
                "fingerprint": self._fingerprint(name),
                "shards": [],
            },
        )["shards"]
        for number, start in enumerate(range(0, len(probe), size)):
            stop = min(start + size, len(probe))
            if number >= len(shards) or not _is_whole(self.folder, shards[number]):
                del shards[number:]
                block = self._block(name, start, stop)
                shards.append(self._shard(name, number, probe.ids[start:stop], block))
                self._keep()
            if self._progress is not None:
                self._progress(f"writing {name}", stop, len(probe))

    def _block(self, name: str, start: int, stop: int) -> np.ndarray:
        images = self.inputs.images(name, self.loaded.preprocess, first=stop)
        return self.form.made(images[start:stop], self.loaded)

    def _shard(
        self, probe: str, number: int, ids: Sequence[str], images: np.ndarray
    ) -> dict[str, Any]:
        """Write one file, or one folder of pictures with an index; return what is said of it."""
        if self.form.format == "png":
            index = []
            for at, (one, pixels) in enumerate(zip(ids, images, strict=True)):
                stream = BytesIO()
                Image.fromarray(pixels).save(stream, "PNG")
                file = f"{number:05d}-{at:05d}.png"
                write_atomically(self.folder / probe / file, stream.getvalue())
                index.append({"file": file, "id": one, "sha256": _sha256(stream.getvalue())})
            file, content = f"{probe}/{number:05d}.json", _plain(index)
        else:
            file = f"{probe}/{number:05d}.{self.form.format}"
            content = _packed(self.form.format, {"images": images}, list(ids))
        write_atomically(self.folder / file, content)
        return {"file": file, "samples": len(ids), "sha256": _sha256(content)}

    def _texts(self) -> None:
        """Write every prompt and caption as tokens, each row of tokens once."""
        known = self.inputs.known
        prompts = [t.replace("{c}", name) for name in known.classnames for t in known.templates]
        tokens = prompt_tokens(self.loaded.tokenizer, known.classnames, known.templates).numpy()
        lines = list(prompts)
        for probe in self.inputs.probes.values():
            if probe.role == "retrieval":
                lines += caption_lines(probe.captions or ())[0]
        if _tuned(self.inputs.settings):
            lines += caption_lines(self.inputs.proxy.captions or ())[0]
        if lines[len(prompts) :]:
            more = self.loaded.tokenizer(lines[len(prompts) :]).numpy()
            tokens = np.concatenate([tokens, more])
        rows: dict[bytes, int] = {}
        place = [rows.setdefault(row.tobytes(), len(rows)) for row in tokens]
        first = np.unique(place, return_index=True)[1].tolist()
        per = len(known.templates)
        classes = [
            {"name": name, "rows": place[at * per : (at + 1) * per]}
            for at, name in enumerate(known.classnames)
        ]
        rule = (
            "A class embedding is the mean of its prompts' features, each divided by its length "
            "first, and the mean is again; 'rows' are those of tokens.npz."
        )
        kind = "safetensors" if self.form.format == "safetensors" else "npz"
        contents = {
            f"text/tokens.{kind}": _packed(kind, {"tokens": tokens[first]}, None),
            "text/texts.json": _plain([lines[at] for at in first]),
            "text/classes.json": _plain({"rule": rule, "classes": classes}),
        }
        for file, content in contents.items():
            write_atomically(self.folder / file, content)
        self._said["text"] = {
            "shape": [len(first), tokens.shape[1]],
            "dtype": "int64",
            "files": {file: _sha256(content) for file, content in contents.items()},
        }

    def _fingerprint(self, name: str) -> str:
        return digest([self.inputs.opened(name).fingerprint, self.loaded.preprocess.identity])

    def _keep(self) -> None:
        write_atomically(self.folder / MANIFEST, _plain(self._said))


def exportable(inputs: Inputs, probes: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the probes to write, and of those that are not, why.

    Args:
        inputs: of the settings.
        probes: wanted ones; () for all that can be.

    Raises:
        SettingsError: a wanted one has no images that could be encoded elsewhere.
    """
    left: dict[str, str] = {}
    for declared in inputs.settings.probes:
        if declared.attack is not None:
            left[declared.name] = "its images are made against each candidate, with its gradients"
        elif declared.role == "proxy":
            left[declared.name] = "its images are trained on, and nothing is evaluated on them"
        elif declared.role == "pooled":
            left[declared.name] = "it pools other probes and has no images of its own"
        elif declared.role == "proxy" and not _tuned(inputs.settings):
            left[declared.name] = "no artifact is tuned on its pairs (logit_scale = true)"
        elif declared in inputs.settings.withheld:
            left[declared.name] = f"policy {inputs.settings.policy!r} leaves it unseen"
    for name in probes:
        inputs.settings.probe(name)
        if name in left:
            raise SettingsError(
                f"images of probe {name!r} cannot be written: {left[name]}",
                hint="leave it out of --probe",
            )
    wanted = probes or [each.name for each in inputs.settings.probes if each.name not in left]
    return list(dict.fromkeys(wanted)), left


def _tuned(settings: Settings) -> bool:
    """Whether the logit scale of any artifact is tuned, which takes features of the pairs."""
    return any(artifact.logit_scale for artifact in settings.artifacts)


_STATE = ("complete", "probes", "text", "how")
"""What of a manifest changes while files are written."""


def _manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of an earlier export; None where there is none that can be read."""
    try:
        found = json.loads(read_file(folder / MANIFEST))
        fits = found["schema"] == _SCHEMA and all(
            isinstance(one["fingerprint"], str) and isinstance(one["shards"], list)
            for one in found["probes"].values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if fits else None


def _files_of(manifest: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yield what an export wrote by its manifest; nothing that only claims to be."""
    named = [shard for probe in manifest["probes"].values() for shard in probe["shards"]]
    files = [str(shard["file"]) for shard in named if isinstance(shard, dict) and "file" in shard]
    texts = manifest.get("text")
    if isinstance(texts, dict):
        files += map(str, texts.get("files", ()))
    for file in files:
        if _OURS.fullmatch(file):
            yield from (f"{Path(file).parent}/{one['file']}" for one in _index(folder / file))
            yield file


def _index(file: Path) -> list[dict[str, str]]:
    """Return the pictures that an index lists; [] of a file that is none."""
    try:
        found = json.loads(read_file(file)) if file.suffix == ".json" else []
        return [one for one in found if _PICTURE.fullmatch(one["file"]) and one["sha256"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _is_whole(folder: Path, shard: Mapping[str, Any]) -> bool:
    """Whether a file, and the pictures that it lists, are those that were written."""
    try:
        file = folder / shard["file"]
        same = _sha256(read_file(file)) == shard["sha256"]
        pictures = ((file.parent / one["file"], one["sha256"]) for one in _index(file))
        return same and all(_sha256(read_file(path)) == known for path, known in pictures)
    except (OSError, KeyError, TypeError):
        return False


def _shard_size(image: int) -> int:
    """Return how many images of so many bytes are a file: a quarter of a gibibyte at most.

    >>> _shard_size(224 * 224 * 3 * 4), _shard_size(32 * 32 * 3)
    (445, 4096)
    """
    return max(1, min(_MOST_IN_SHARD, _SHARD_BYTES // image))


def _packed(kind: str, arrays: Mapping[str, np.ndarray], ids: list[str] | None) -> bytes:
    if kind == "safetensors":
        from safetensors.numpy import save

        return save(dict(arrays), None if ids is None else {"ids": json.dumps(ids)})
    stream = BytesIO()
    named: dict[str, Any] = {} if ids is None else {"ids": np.array(ids, dtype=str)}
    np.savez(stream, allow_pickle=False, **named, **dict[str, Any](arrays))
    return stream.getvalue()


def _plain(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
