"""Loading an open_clip model without unpickling anything, with everything a probe needs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import download_pretrained, download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import nn

from clipq.errors import ModelError, did_you_mean
from clipq.models.preprocess import Preprocess
from clipq.models.sound_weights import check_numbers, check_shapes, stored_shapes
from clipq.models.source import (
    CONFIG,
    ModelFiles,
    ModelIdentity,
    ModelSource,
    architecture_config,
    default_vocabulary,
    identify,
    local_config,
    local_files,
)
from clipq.provenance import sha256_file
from clipq.settings import ModelSettings

__all__ = ["LoadedModel", "Tokenizer", "load_declared", "load_model", "load_tokenizer", "logit_map"]

Tokenizer = Callable[[list[str]], torch.Tensor]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode, without gradients, and what belongs to it.

    `logit_scale` is exponentiated (1 / temperature); `logit_bias` is 0 where the model has none.

    >>> source = ModelSource.parse("local-dir:fixtures/models/vit-clean", base_dir=Path())
    >>> loaded = load_model(source)
    >>> loaded.model.training, tuple(loaded.tokenizer(["a red circle"]).shape), loaded.logit_bias
    (False, (1, 16), 0.0)
    """

    model: nn.Module
    tokenizer: Tokenizer
    preprocess: Preprocess
    identity: ModelIdentity
    logit_scale: float
    logit_bias: float

    @property
    def logit_map(self) -> tuple[float, float]:
        """Scale and bias that turn cosines into logits."""
        return self.logit_scale, self.logit_bias


def load_model(
    source: ModelSource, *, device: str = "cpu", expected_sha256: str = ""
) -> LoadedModel:
    """Load a model from its checkpoint.

    Weights are read as safetensors or with ``weights_only=True``. A source without weights is an
    error: random features are never evaluated by accident.

    Args:
        source: where the model comes from.
        device: where it goes.
        expected_sha256: what the weights must hash to; "" for no expectation.

    Raises:
        ModelError: configuration or weights are missing, damaged, unreachable, do not match (also
            where open_clip would fit one to the other in silence), or hold numbers that are none.

    >>> load_model(ModelSource.parse("local-dir:fixtures/models/none", base_dir=Path()))
    Traceback (most recent call last):
    clipq.errors.ModelError: no model folder fixtures/models/none
    ...
    """
    files = _files(source)
    identity = identify(files, expected_sha256=expected_sha256)
    model: Any = _model(source, files, identity, device)
    check_numbers(model, str(source))
    with _quiet():
        stored = stored_shapes(files.checkpoint)
    check_shapes(model, stored, name=str(source), config=files.config)
    scale, bias = logit_map(model)
    tokenizer = load_tokenizer(source)
    _check_vocabulary(model, tokenizer, source)
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        preprocess=Preprocess(image_transform_v2(config, is_train=False), config),
        identity=identity,
        logit_scale=scale,
        logit_bias=bias,
    )


def load_declared(model: ModelSettings, *, root: Path, device: str = "cpu") -> LoadedModel:
    """Load a model of the settings, as `load_model` does.

    Args:
        model: source and, where they say one, what its weights hash to.
        root: what a local folder is relative to.
        device: where it goes.

    Raises:
        ModelError: it cannot be loaded.

    >>> declared = ModelSettings("vit-clean", "local-dir:fixtures/models/vit-clean")
    >>> load_declared(declared, root=Path()).logit_bias
    0.0
    """
    source = ModelSource.parse(model.source, base_dir=root)
    return load_model(source, device=device, expected_sha256=model.sha256)


def logit_map(model: nn.Module) -> tuple[float, float]:
    """Return the scale and the bias that turn a model's cosines into logits.

    The scale is exponentiated (1 / temperature); the bias is 0 where the model has none.

    >>> model = nn.Module()
    >>> model.logit_scale = torch.tensor(100.0).log()
    >>> scale, bias = logit_map(model)
    >>> round(scale, 3), bias
    (100.0, 0.0)
    """
    scale: Any = model.logit_scale
    bias: Any = getattr(model, "logit_bias", None)
    return float(scale.detach().exp()), 0.0 if bias is None else float(bias.detach())


def _files(source: ModelSource) -> ModelFiles:
    """Return the model's files, downloading them where the source is not local."""
    if source.kind == "local-dir":
        return local_files(source.path)
    try:
        with _quiet():
            if source.kind == "hf-hub":
                config = Path(download_pretrained_from_hf(source.location, filename=CONFIG))
                checkpoint = Path(download_pretrained_from_hf(source.location))
            else:
                config = architecture_config(source.location)
                checkpoint = Path(download_pretrained(_pretrained(source)))
    except ModelError:
        raise
    except Exception as error:  # network and hub libraries raise many kinds
        raise ModelError(
            f"model {source} is not on this machine and cannot be downloaded: {_first_line(error)}",
            hint=f'on a machine with access run `python -c "import open_clip; '
            f'open_clip.create_model({_spelled(source)})"` and copy its cache here, '
            "or save the model in open_clip's layout and use local-dir:PATH",
        ) from error
    return ModelFiles(checkpoint, config, (default_vocabulary(),))


def _pretrained(source: ModelSource) -> dict[str, Any]:
    tags = open_clip.list_pretrained_tags_by_model(source.location)
    if source.tag not in tags:
        raise ModelError(
            f"architecture {source.location!r} has no pretrained tag {source.tag!r}",
            hint=did_you_mean(source.tag, tags),
        )
    config: dict[str, Any] = open_clip.get_pretrained_cfg(source.location, source.tag)
    return config


def _spelled(source: ModelSource) -> str:
    if source.kind == "pretrained":
        return f"'{source.location}', pretrained='{source.tag}'"
    return f"'{source}'"


def _open_clip_name(source: ModelSource) -> str:
    return f"local-dir:{source.path}" if source.kind == "local-dir" else str(source)


def _model(
    source: ModelSource, files: ModelFiles, identity: ModelIdentity, device: str
) -> nn.Module:
    name, arguments = _open_clip_name(source), {}
    if source.kind == "pretrained":
        name, arguments = source.location, {"pretrained": source.tag}
    try:
        with _quiet() as caught:
            model: nn.Module = open_clip.create_model(
                name, **arguments, device=device, require_pretrained=True, weights_only=True
            )
    except Exception as error:  # open_clip raises whatever its parts raise
        raise ModelError(
            f"model {source} cannot be loaded from {files.checkpoint} (sha256 "
            f"{identity.weights_sha256}): {_first_line(error)}",
            hint=f"the weights are damaged, or do not belong to {files.config}",
        ) from error
    mismatch = [str(w.message) for w in caught if "QuickGELU mismatch" in str(w.message)]
    if mismatch:
        raise ModelError(
            f"model {source}: {mismatch[0]}",
            hint="another activation than the trained one: use the '-quickgelu' architecture "
            "where the tag was trained with it, the plain one otherwise",
        )
    return model.eval().requires_grad_(False)


def load_tokenizer(source: ModelSource) -> Tokenizer:
    """Return a model's tokenizer; its weights are not looked at.

    Raises:
        ModelError: configuration or vocabulary are missing, damaged or unreachable.

    >>> source = ModelSource.parse("local-dir:fixtures/models/vit-clean", base_dir=Path())
    >>> tuple(load_tokenizer(source)(["a red circle"]).shape)
    (1, 16)
    """
    local = source.kind == "local-dir"
    vocabulary = local_files(source.path).vocabulary if local else (default_vocabulary(),)
    arguments: dict[str, str] = {}
    if local and _names_vocabulary(source):
        arguments["bpe_path"] = str(vocabulary[0])  # relative names start from its folder
    name = source.location if source.kind == "pretrained" else _open_clip_name(source)
    try:
        with _quiet():
            tokenizer: Tokenizer = open_clip.get_tokenizer(name, **arguments)
    except Exception as error:  # gzip, unicode and hub libraries raise many kinds
        raise ModelError(
            f"model {source}: its tokenizer cannot be loaded: {_first_line(error)} (files: "
            f"{', '.join(f'{p} sha256 {sha256_file(p)}' for p in vocabulary) or 'none'})",
            hint="restore the vocabulary that the model was trained with",
        ) from error
    return tokenizer


def _check_vocabulary(model: nn.Module, tokenizer: Tokenizer, source: ModelSource) -> None:
    known, tokens = getattr(model, "vocab_size", None), getattr(tokenizer, "vocab_size", None)
    if isinstance(known, int) and isinstance(tokens, int) and tokens > known:
        raise ModelError(
            f"model {source}: its tokenizer has {tokens} tokens, its text tower {known}",
            hint="name the vocabulary it was trained with in text_cfg.tokenizer_kwargs.bpe_path",
        )


def _names_vocabulary(source: ModelSource) -> bool:
    text: Any = local_config(source.path).get("text_cfg") or {}
    return "bpe_path" in (text.get("tokenizer_kwargs") or {})


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or repr(error)
    return text.splitlines()[0]


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Silence open_clip's log lines, and collect its warnings; what matters is raised.

    open_clip logs through the root logger, whose first message installs a handler for the whole
    process: that is undone.
    """
    disabled, handlers = logging.root.manager.disable, list(logging.root.handlers)
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        logging.disable(disabled)
        logging.root.handlers[:] = handlers
