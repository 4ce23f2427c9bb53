"""Whether a hub model is on this machine already; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from clipq.errors import ModelError, did_you_mean
from clipq.models.source import CONFIG, ModelSource

__all__ = ["cached_weights"]

_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_FROM_URLS = Path("~/.cache/clip")  # open_clip's own cache of plain downloads


def cached_weights(source: ModelSource) -> Path | None:
    """Return the cached weights of a model that is not a local folder; None where there are none.

    Raises:
        ModelError: open_clip knows no such pretrained tag.
    """
    if source.kind == "hf-hub":
        return _in_hub(source.location, _WEIGHTS) if _in_hub(source.location, (CONFIG,)) else None
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(source.location)
    if source.tag not in tags:
        raise ModelError(
            f"architecture {source.location!r} has no pretrained tag {source.tag!r}",
            hint=did_you_mean(source.tag, tags),
        )
    config = open_clip.get_pretrained_cfg(source.location, source.tag)
    if config.get("hf_hub"):
        repository, _, name = str(config["hf_hub"]).rpartition("/")
        named = (str(PurePosixPath(name).with_suffix(".safetensors")), name) if name else _WEIGHTS
        return _in_hub(repository, named)
    path = _FROM_URLS.expanduser() / str(config.get("url", "")).rpartition("/")[2]
    return path if path.is_file() else None


def _in_hub(repository: str, names: tuple[str, ...]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    return None
