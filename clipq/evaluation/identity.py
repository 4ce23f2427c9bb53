"""What identifies a result: every key of the cache and of a baseline, as pure functions.

Content only: hashes of weights, samples, prompts and code, never a name that somebody chose for a
model or a probe. The environment (versions, device, instruction set, threads, batch size) is part
of every cache key, and not of what makes a result comparable with a baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cases import FP32
from clipq.data import Probe
from clipq.data.decoding import PIXELS_VERSION
from clipq.evaluation.predict import CANDIDATE_VERSION, COLUMNS_VERSION
from clipq.models.source import ModelSource, identity
from clipq.provenance import digest, package_versions
from clipq.quant import QuantizerSpec, method_code, method_code_hash, method_version
from clipq.settings import ModelSettings

if TYPE_CHECKING:
    from clipq.models import LoadedModel

__all__ = [
    "encoder_identity",
    "features_key",
    "figures_key",
    "files_identity",
    "head_key",
    "method_evidence",
    "method_identity",
    "mixture_key",
    "model_identity",
    "predictions_key",
    "prompts_identity",
    "result_identity",
    "texts_key",
]

_HEAD_VERSION = 3
"""Bumped when what a cached head holds changes."""
_FIGURES_VERSION = 1
"""Bumped when what a figure holds changes."""

Key = Mapping[str, Any]


def model_identity(loaded: LoadedModel) -> dict[str, str]:
    """Return what identifies an FP32 model: weights, configuration, tokenizer, preprocessing."""
    return {**loaded.identity.to_plain(), "preprocess": loaded.preprocess.identity}


def files_identity(model: ModelSettings, *, root: Path) -> dict[str, str]:
    """Return what a declared model's files hash to now, found without loading it.

    Of a model that lies in no local folder that is what the settings expect of its weights, or
    nothing.

    Raises:
        ModelError: a file is missing, or the weights are not the expected ones.
    """
    source = ModelSource.parse(model.source, base_dir=root)
    if source.kind == "local-dir":
        return identity(source, expected_sha256=model.sha256).to_plain()
    return {"weights_sha256": model.sha256.lower()} if model.sha256 else {}


@cache
def method_identity(quantizer: str) -> dict[str, Any]:
    """Return what makes an edited quantizer another one: its version and its source code."""
    spec = QuantizerSpec.parse(quantizer)
    return {"method_version": method_version(spec), "code_sha256": method_code_hash(spec)}


@cache
def method_evidence(quantizer: str) -> dict[str, Any]:
    """Return what a record says of a method: its identity, what that holds, what it cannot hold.

    Hashes are cut to their first 12 digits; of environment variables, which may be secrets, only
    the names are told.
    """
    code = method_code(quantizer)
    said = {
        what: {"variable": "", "package": value}.get(what.partition(" ")[0], value[:12])
        for what, value in code.parts
    }
    evidence: dict[str, Any] = {**method_identity(quantizer), "code": said}
    return evidence | ({"code_unknown": list(code.unknown)} if code.unknown else {})


def encoder_identity(
    quantizer: str,
    *,
    environment: Key,
    calibration: str,
    prompts: str,
    artifact: Key | None = None,
    trained: str = "",
) -> dict[str, Any]:
    """Return what identifies an encoder beside the weights it starts from.

    Args:
        quantizer: its text; FP32 depends on no calibration split.
        environment: what can move a number on this machine.
        calibration: fingerprint of the calibration split.
        prompts: digest of the prompts that methods calibrate with.
        artifact: what identifies an artifact, which takes a quantizer's place and has no name here.
        trained: sha256 of the state that was learnt; "" where nothing was.
    """
    identity: dict[str, Any] = {
        "quantizer": quantizer if artifact is None else artifact,
        "environment": environment,
        "clipq": package_versions(("clipq",))["clipq"],
    }
    if artifact is None and quantizer != FP32:
        identity |= method_identity(quantizer)
        identity |= {"calibration": calibration, "calibration_prompts": prompts}
    if trained:
        identity["trained"] = trained
    return identity


def result_identity(
    loaded: LoadedModel, probe: Probe, *, known: Probe, calibration: str
) -> dict[str, str]:
    """Return what must be equal for a result to be comparable with a baseline.

    Args:
        loaded: the FP32 model.
        probe: what is evaluated.
        known: the in-distribution probe, whose classes make the zero-shot head.
        calibration: fingerprint of the calibration split.
    """
    own = [probe.classnames, probe.class_map]
    captions = probe.captions if probe.role == "retrieval" else None
    same = probe.classnames == known.classnames and probe.class_map is None
    plain = probe.role == "ood" or (same and captions is None)
    return {
        **model_identity(loaded),
        "prompts": prompts_identity(known),
        "probe": probe.fingerprint if plain else digest([probe.fingerprint, own, captions]),
        "in_distribution": known.fingerprint,
        "calibration": calibration,
        "logit_map": digest((loaded.logit_scale, loaded.logit_bias)),
        "dtype": "float32",
        "columns": str(COLUMNS_VERSION),
    }


def prompts_identity(known: Probe) -> str:
    """Return the digest of the prompts that make the zero-shot head."""
    return digest([known.classnames, known.templates])


def head_key(model: Key, known: Probe, encoder: Key) -> str:
    """Return the key of a zero-shot head."""
    return digest(
        {
            "model": model,
            "prompts": prompts_identity(known),
            "encoder": encoder,
            "head": _HEAD_VERSION,
        }
    )


def features_key(model: Key, probe: Probe, encoder: Key, *, attack: Key | None = None) -> str:
    """Return the key of a probe's image features.

    Args:
        model: identity of the FP32 model.
        probe: whose images.
        encoder: identity of the form of the model.
        attack: what identifies how the images are attacked; None for images as they are.
    """
    pixels = {"probe": probe.fingerprint, "pixels": PIXELS_VERSION}
    return digest(pixels | {"model": model, "encoder": encoder} | dict(attack or {}))


def texts_key(features: str, probe: Probe) -> str:
    """Return the key of a probe's caption features, given that of its image features."""
    return digest([features, probe.captions])


def predictions_key(identity: Key, encoder: Key) -> str:
    """Return the key of a prediction table."""
    versions = {"head": _HEAD_VERSION, "candidate": CANDIDATE_VERSION, "pixels": PIXELS_VERSION}
    return digest({"identity": identity, "encoder": encoder} | versions)


def mixture_key(identity: Key, encoder: Key, floats: frozenset[str]) -> str:
    """Return the key of the predictions of a quantized model some of whose layers are float."""
    made = {"float": sorted(floats), "candidate": CANDIDATE_VERSION, "pixels": PIXELS_VERSION}
    return digest({"identity": identity, "encoder": encoder} | made)


def figures_key(predictions: Key) -> str:
    """Return the key of a cell's figures, given what identifies its predictions."""
    return digest([predictions, _FIGURES_VERSION])
