"""What a record says of how it was measured, checked kind by kind when it is read.

Reports index it without asking, so that what a kind always has must be there, and what it may have
must be of its type. What it says besides is kept as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, Required

from clipq.shapes import (
    Document,
    Finite,
    Meta,
    Number,
    between,
    one_of,
    shown,
    table,
    whole,
)

__all__ = ["check_evidence", "recorded_hashes"]

_Count = Annotated[int, whole(0, 2**63 - 1)]
_Positive = Annotated[float, between(0.0, math.inf)]
_TEXTS = {
    "models": ("source", "weights_sha256"),
    "baselines": ("file", "approved", "reason", "columns_sha256"),
    "probes": ("fingerprint",),
    "quantizers": ("code_sha256",),
    "artifacts": ("runtime",),
    "predictions": ("sha256",),
}
"""Texts that every entry has."""
_FURTHER: tuple[tuple[str, str, Any, str], ...] = (
    ("probes", "samples", int, "a whole number"),
    *(("quantizers", name, (int, float), "a number") for name in ("share", "weight_bits")),
    *(("quantizers", name, int, "a whole number") for name in ("bytes", "float_bytes")),
    ("quantizers", "kernels", dict, "an object"),
    ("quantizers", "trained", dict, "an object"),
    ("models", "remarks", list, "a list"),
    ("baselines", "remarks", list, "a list"),
)
"""What an entry may have, and what it then is."""

_FINDING: Any = table(
    "finding",
    {
        "kind": Required[str],
        "problem": Required[str],
        "fix": NotRequired[str],
        "wrong": NotRequired[bool],
    },
)
_ARTIFACT: Mapping[str, Any] = {
    "versions": Mapping[str, str],
    "files": Mapping[str, Mapping[str, str]],
    **dict.fromkeys(("bytes", "float_bytes", "batch"), _Count),
    **dict.fromkeys(("format", "part_of", "simulation", "recipe", "measured_on"), str),
    **dict.fromkeys(("session", "io"), Mapping[str, Any]),
    "cpu": list[str],
    "towers": Annotated[str, one_of("both", "vision")],
    "looks": Mapping[str, Mapping[str, Any]],
    "executed": Mapping[str, Mapping[str, Any]],
    "findings": list[_FINDING],
    **dict.fromkeys(("milliseconds", "fp32_milliseconds", "ratio_to_fp32"), _Positive),
}
"""What the entry of an artifact may have; None where it is not known."""
_TUNING: Any = table(
    "tuning",
    {
        **dict.fromkeys(("scale", "scale_before"), Required[_Positive]),
        **dict.fromkeys(("bias", "bias_before", "loss", "loss_before"), Required[Finite]),
        **dict.fromkeys(("objective", "proxy", "proxy_fingerprint"), Required[str]),
        "pairs": Required[_Count],
    },
)
"""What the entry of a tuned logit scale has."""
_TRAINED: dict[str, Any] = {
    **dict.fromkeys(("quantizer", "parent_sha256", "proxy", "proxy_fingerprint"), str),
    **dict.fromkeys(("why", "from"), str),
    **dict.fromkeys(("pairs", "held_out", "steps", "best_step"), _Count),
    "seconds": Annotated[float, Meta(ge=0.0, description="a number of seconds")],
    **dict.fromkeys(("loss_before", "loss"), Finite | None),
    "recipe": Mapping[str, str | Number],
}
"""What is said of a trained state beside its sha256."""
_LOOK: Mapping[str, Any] = {
    "bytes": _Count,
    "quantized": Mapping[str, _Count],
    "in_float": Mapping[str, _Count],
    "opset": str,
}


def recorded_hashes(artifact: Mapping[str, Any]) -> dict[str, str]:
    """Return the sha256 of each file of an artifact, by path, whichever tower it belongs to.

    Args:
        artifact: what a record's evidence says of it.

    >>> recorded_hashes({"files": {"image": {"i.onnx": "658b"}, "text": {"t.onnx": "0f3c"}}})
    {'i.onnx': '658b', 't.onnx': '0f3c'}
    """
    held = artifact.get("files", {}).values()
    return {path: sha256 for files in held for path, sha256 in files.items()}


def check_evidence(
    evidence: Mapping[str, Mapping[str, Mapping[str, Any]]], document: Document
) -> None:
    """Refuse evidence of which a part that reports rely on is missing or of a wrong type.

    Args:
        evidence: of a record, by kind and by what it is of.
        document: the record, which messages name.

    Raises:
        ClipqError: of the document's type; it names the entry, the value and what is allowed.

    >>> from clipq.errors import RecordError
    >>> document = Document("report.json", "JSON", RecordError)
    >>> check_evidence({"artifacts": {"vit/ort-int8": {"runtime": "onnxruntime"}}}, document)
    >>> check_evidence({"artifacts": {"vit/ort-int8": {}}}, document)
    Traceback (most recent call last):
    clipq.errors.RecordError: report.json, evidence.artifacts.vit/ort-int8: runtime = None
    ...
    """
    for about, names in _TEXTS.items():
        for entry, said in evidence.get(about, {}).items():
            for name in names:
                if not isinstance(said.get(name), str):
                    was = f"{name} = {shown(said.get(name))}"
                    place = f"evidence.{about}.{entry}"
                    raise document.fail(place, was, f"{name} must be a text")
    for about, name, kind, what in _FURTHER:
        for entry, said in evidence.get(about, {}).items():
            value = said.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
                was = f"{name} = {shown(value)}"
                raise document.fail(f"evidence.{about}.{entry}", was, f"{name} must be {what}")
    for entry, said in evidence.get("tunings", {}).items():
        document.shaped(dict(said), _TUNING, f"evidence.tunings.{entry}")
    for entry, said in evidence.get("quantizers", {}).items():
        if (learnt := said.get("trained")) is not None:
            place = f"evidence.quantizers.{entry}.trained"
            _shaped({"sha256": None} | dict(learnt), {"sha256": str} | _TRAINED, place, document)
    for entry, said in evidence.get("artifacts", {}).items():
        place = f"evidence.artifacts.{entry}"
        _shaped(said, _ARTIFACT, place, document)
        for tower, look in said.get("looks", {}).items():
            _shaped(look, _LOOK, f"{place}.looks.{tower}", document)


def _shaped(
    said: Mapping[str, Any], kinds: Mapping[str, Any], place: str, document: Document
) -> None:
    for name, kind in kinds.items():
        if name in said:
            document.shaped(said[name], kind, f"{place}.{name}")
