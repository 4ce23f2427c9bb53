"""Where a model comes from, and which bytes make it that model. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from clipq.errors import ModelError, UnknownNameError, did_you_mean
from clipq.provenance import digest, sha256_file
from clipq.shapes import Document

__all__ = [
    "CONFIG",
    "ModelFiles",
    "ModelIdentity",
    "ModelSource",
    "architecture_config",
    "checkpoint_in",
    "default_vocabulary",
    "identify",
    "identity",
    "local_config",
    "local_files",
]

_CHECKPOINTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""In open_clip's own order of preference, so that what is hashed is what it loads."""
_VOCABULARIES = (".gz", ".json", ".model", ".txt")
CONFIG = "open_clip_config.json"
_HINT = "write ARCH/TAG (as `open_clip.list_pretrained()` shows), hf-hub:ORG/NAME or local-dir:PATH"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """An open_clip model: a built-in architecture with a pretrained tag, a hub or a local folder.

    `kind` is ``pretrained``, ``hf-hub`` or ``local-dir``; `path` is set for the last only.

    >>> source = ModelSource.parse("ViT-B-32/laion2b_s34b_b79k", base_dir=Path())
    >>> source.kind, source.location, source.tag
    ('pretrained', 'ViT-B-32', 'laion2b_s34b_b79k')
    """

    kind: str
    location: str
    tag: str = ""
    path: Path = Path()

    @staticmethod
    def parse(text: str, *, base_dir: Path) -> ModelSource:
        """Read a source text; relative folders start from `base_dir`.

        Raises:
            ModelError: the text has none of the three forms.
            UnknownNameError: open_clip has no such architecture.
        """
        if text.startswith("local-dir:"):
            location = text.removeprefix("local-dir:")
            if not location:
                raise ModelError(f"model source {text!r} names no folder", hint=_HINT)
            return ModelSource("local-dir", location, path=base_dir / location)
        if text.startswith("hf-hub:"):
            if "/" not in text:
                raise ModelError(f"model source {text!r} names no repository", hint=_HINT)
            return ModelSource("hf-hub", text.removeprefix("hf-hub:"))
        architecture, slash, tag = text.rpartition("/")
        if not slash or not architecture or not tag:
            raise ModelError(f"model source {text!r} has no pretrained tag", hint=_HINT)
        known = _architectures()
        architecture = architecture.replace("/", "-")  # open_clip reads ViT-B/32 so, too
        if architecture not in known:
            raise UnknownNameError(
                f"unknown architecture {architecture!r} in model source {text!r}",
                hint=did_you_mean(architecture, known),
            )
        return ModelSource("pretrained", architecture, tag)

    def __str__(self) -> str:
        if self.kind == "pretrained":
            return f"{self.location}/{self.tag}"
        return f"{self.kind}:{self.location}"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files that make a model; `vocabulary` are those of its tokenizer.

    >>> local_files(Path("fixtures/models/vit-clean")).checkpoint.name
    'open_clip_model.safetensors'
    """

    checkpoint: Path
    config: Path
    vocabulary: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """sha256 (hex) of what makes a model: weights file, configuration, tokenizer.

    >>> found = identity(ModelSource.parse("local-dir:fixtures/models/vit-clean", base_dir=Path()))
    >>> len(found.weights_sha256), sorted(found.to_plain())
    (64, ['config_sha256', 'tokenizer_sha256', 'weights_sha256'])
    """

    weights_sha256: str
    config_sha256: str
    tokenizer_sha256: str

    def to_plain(self) -> dict[str, str]:
        return asdict(self)


def checkpoint_in(folder: Path) -> Path:
    """Return the weights file that open_clip would load from a local folder.

    That is the first of its preferred names, otherwise the alphabetically first ``.safetensors``,
    otherwise the first ``.bin`` or ``.pth``.

    Raises:
        ModelError: the folder or the checkpoint is missing.

    >>> checkpoint_in(Path("fixtures/models/vit-clean")).name
    'open_clip_model.safetensors'
    """
    if not folder.is_dir():
        raise ModelError(f"no model folder {folder}", hint="check `source` in clipq.toml")
    for name in _CHECKPOINTS:
        if (folder / name).exists():
            return folder / name
    others = [
        path for suffix in ("safetensors", "bin", "pth") for path in folder.glob(f"*.{suffix}")
    ]
    if others:
        return min(others, key=lambda path: (path.suffix != ".safetensors", path))
    raise ModelError(
        f"no checkpoint in {folder}: random weights are never evaluated",
        hint=f"put the weights there, for example as {_CHECKPOINTS[0]}",
    )


def local_config(folder: Path) -> dict[str, object]:
    """Return the ``model_cfg`` of a local folder's ``open_clip_config.json``.

    Raises:
        ModelError: the file is missing, not JSON, or holds no ``model_cfg``.

    >>> local_config(Path("fixtures/models/vit-clean"))["embed_dim"]
    96
    """
    path = folder / CONFIG
    fix = "a local-dir model needs open_clip_config.json"
    config = Document(path, "JSON", ModelError, fix).parse()
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise ModelError(f"{path} has no model_cfg", hint="save models with open_clip's layout")
    model: dict[str, object] = config["model_cfg"]
    return model


def local_files(folder: Path) -> ModelFiles:
    """Return the files of a model in open_clip's local-dir layout.

    Raises:
        ModelError: the folder, its configuration, checkpoint or vocabulary is missing or damaged.

    >>> files = local_files(Path("fixtures/models/vit-clean"))
    >>> files.config.name, [path.name for path in files.vocabulary]
    ('open_clip_config.json', ['bpe_vocab.txt.gz'])
    """
    checkpoint = checkpoint_in(folder)
    text = local_config(folder).get("text_cfg") or {}
    path = folder / CONFIG
    if not isinstance(text, dict) or not isinstance(text.get("tokenizer_kwargs") or {}, dict):
        raise ModelError(f"{path}: text_cfg is malformed", hint="it is a table of settings")
    named = (text.get("tokenizer_kwargs") or {}).get("bpe_path")
    if named is not None:
        vocabulary = folder / str(named)
        if not vocabulary.is_file():
            raise ModelError(
                f"{path} names a vocabulary that is missing: {vocabulary}",
                hint="put the BPE file into the model's folder",
            )
        return ModelFiles(checkpoint, path, (vocabulary,))
    if text.get("hf_tokenizer_name"):
        vocabularies = (
            p for p in folder.iterdir() if p.suffix in _VOCABULARIES and p.name != CONFIG
        )
        return ModelFiles(checkpoint, path, tuple(sorted(vocabularies)))
    return ModelFiles(checkpoint, path, (default_vocabulary(),))


def identity(source: ModelSource, *, expected_sha256: str = "") -> ModelIdentity:
    """Return a local model's identity without loading it.

    Raises:
        ModelError: the source is not local, a file is missing, or the weights hash to something
            else than expected.

    >>> one, other = (ModelSource.parse(f"local-dir:fixtures/models/vit-{name}", base_dir=Path())
    ...               for name in ("clean", "noisy"))
    >>> identity(one) == identity(other), identity(one) == identity(one)
    (False, True)
    """
    if source.kind != "local-dir":
        raise ModelError(
            f"model {source} is not a local folder", hint="load_model downloads and identifies it"
        )
    return identify(local_files(source.path), expected_sha256=expected_sha256)


def identify(files: ModelFiles, *, expected_sha256: str = "") -> ModelIdentity:
    """Hash the bytes that make a model.

    Args:
        files: what to hash.
        expected_sha256: what the weights must hash to; "" for no expectation.

    Raises:
        ModelError: the weights hash to something else.

    >>> identify(local_files(Path("fixtures/models/vit-clean")), expected_sha256="0" * 64)
    Traceback (most recent call last):
    clipq.errors.ModelError: checkpoint ... was tampered with or truncated: sha256 is ...
    ...
    """
    weights = _sha256(files.checkpoint)
    if expected_sha256 and weights != expected_sha256.lower():
        raise ModelError(
            f"checkpoint {files.checkpoint} was tampered with or truncated: sha256 is {weights}, "
            f"clipq.toml expects {expected_sha256}",
            hint="restore the file (or, if the change is wanted, `sha256` in clipq.toml)",
        )
    tokenizer = digest({path.name: _sha256(path) for path in files.vocabulary})
    return ModelIdentity(weights, _sha256(files.config), tokenizer)


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="restore the file, or its permissions",
        ) from error


def architecture_config(architecture: str) -> Path:
    """Return the configuration file of one of open_clip's architectures.

    >>> architecture_config("ViT-B-32").name
    'ViT-B-32.json'
    """
    return _open_clip_folder() / "model_configs" / f"{architecture}.json"


def default_vocabulary() -> Path:
    """Return the BPE file that open_clip's tokenizer reads where no other is named.

    >>> default_vocabulary().name
    'bpe_simple_vocab_16e6.txt.gz'
    """
    return _open_clip_folder() / "bpe_simple_vocab_16e6.txt.gz"


def _architectures() -> list[str]:
    return sorted(path.stem for path in (_open_clip_folder() / "model_configs").glob("*.json"))


def _open_clip_folder() -> Path:
    spec = find_spec("open_clip")  # finds the package without importing it, hence without torch
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ModelError("open_clip is not installed", hint="pip install open_clip_torch")
    return Path(folders[0])
