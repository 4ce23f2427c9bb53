"""Study documents, made up: what `clipq study page` draws, without a sweep behind it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

METHODS = {
    "rtn": "ptq", "smoothquant": "ptq", "gptq": "ptq", "awq": "ptq", "quarot": "ptq",
    "lsq": "qat", "rot+lsq": "qat", "noise": "noise",
}  # fmt: skip
FORMATS = {"w8a8": 8.0, "w6a8": 6.0, "w4a8": 4.0, "w4a4": 4.0}
MODELS = ("vit-clean", "vit-noisy", "resnet", "siglip")
SAMPLED = 0.003
COLUMNS = (
    # key, title, metric, better, role, FP32, what eight bits change, margin
    ("top1", "top-1", "top1", "higher", "in-distribution", 0.86, -0.002, 0.01),
    ("ece", "ECE", "ece", "lower", "in-distribution", 0.06, 0.003, 0.01),
    ("auroc-mcm", "AUROC", "auroc-mcm", "higher", "ood", 0.82, 0.002, 0.02),
    ("corruption-error", "corruption error", "corruption-error", "lower", "corruption", 1.0, 0.02,
     0.15),
    ("top1.shift", "shift top-1", "top1", "higher", "shift", 0.41, -0.006, 0.03),
    ("relative-gap", "relative gap", "relative-gap", "lower", "spurious", 0.3, 0.01, 0.05),
    ("sqnr-low", "SQNR 0-8", "sqnr-low", "higher", "in-distribution", None, 38.0, None),
)  # fmt: skip
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def study_document(
    *, models: int = 2, configurations: int = 12, columns: int = len(COLUMNS), seed: int = 0
) -> dict[str, Any]:
    """Return a document of so many models, configurations of each and columns.

    Fewer bits change more; methods that draw have five seeds.
    """
    draw = np.random.default_rng(seed)
    held = _columns(columns)
    names = [MODELS[at] if at < len(MODELS) else f"model-{at}" for at in range(models)]
    texts = list(itertools.islice(_texts(), configurations))
    found = [_configuration(draw, model, entry, held) for model in names for entry in texts]
    return {
        "schema": "clipq-study/1",
        "kind": "study",
        "provenance": {
            "sweeps": [{"sweep": "plan.toml", "units": sum(len(c["units"]) for c in found)}],
            "clipq": "0.1.0",
        },
        "towers": "vision",
        "columns": [
            {"key": key, "title": title, "metric": metric, "better": better, "role": role,
             "distance": None, "level": fp32 is None, "unit": "" if fp32 else "dB"}
            for key, title, metric, better, role, fp32, *_ in held
        ],
        "costs": [
            {"key": "weight-bits", "title": "bits per weight, scales included", "unit": "bits"},
            {"key": "bytes", "title": "quantized weights, scales included", "unit": "bytes"},
            {"key": "milliseconds", "title": "time per image where it is deployed", "unit": "ms"},
        ],
        "models": [
            {
                "name": model,
                "source": f"local-dir:models/{model}",
                "weights_sha256": hashlib.sha256(model.encode()).hexdigest(),
                "bias": _interval((0.04, -0.08, 0.01, 0.0)[at % 4], 0.006),
                "calibration": None,
                "fp32": {column[0]: column[5] for column in held},
                "probes": {column[0]: [column[4]] for column in held},
                "spectrum": {"rank": list(RANKS), "signal": [8.0 / rank for rank in RANKS]},
            }
            for at, model in enumerate(names)
        ],
        "configurations": found,
        "figures": [
            {"key": "calibration", "title": "Change of ECE against FP32's confidence bias",
             "x": "bias", "y": "ece"},
            {"key": "detection", "title": "Change of OOD AUROC against change of ECE",
             "x": "ece", "y": "auroc-mcm"},
            {"key": "robustness", "title": "Change of corruption error against shift accuracy",
             "x": "top1.shift", "y": "corruption-error"},
        ],
        "claims": list(_claims(names)),
        "advice": {"criteria": [column[0] for column in held if column[5] is not None][:8]},
    }  # fmt: skip


def _columns(count: int) -> list[tuple[Any, ...]]:
    found = list(COLUMNS[:count])
    for at in range(len(found), count):
        found.append(
            (f"top1.{at}", f"probe {at} top-1", "top1", "higher", "shift", 0.5, -0.004, 0.02)
        )
    return found


def _texts() -> Iterator[tuple[str, ...]]:
    """Yield method, format, text and towers: plain ones first, then with an option."""
    for option in itertools.count():
        for towers in ("vision", "both"):
            for number_format, method in itertools.product(FORMATS, METHODS):
                extra = f",option={option}" if option else ""
                at = "" if towers == "both" else f"@{towers}"
                yield method, number_format, f"{method}:{number_format}{extra}{at}", towers


def _configuration(
    draw: np.random.Generator, model: str, entry: tuple[str, ...], columns: list[tuple[Any, ...]]
) -> dict[str, Any]:
    method, number_format, text, towers = entry
    kind = METHODS[method]
    draws = kind != "ptq" or method == "quarot"
    seeds = list(range(5)) if draws else []
    harm = {"w8a8": 1.0, "w6a8": 2.5, "w4a8": 6.0, "w4a4": 40.0}[number_format]
    harm *= 0.4 if kind == "qat" else 1.0
    bits = FORMATS[number_format]
    return {
        "id": f"{model}/{text}",
        "model": model,
        "quantizer": text,
        "kind": kind,
        "method": method,
        "bits": number_format,
        "towers": towers,
        "tuned": False,
        "trained": kind == "qat",
        "draws": draws,
        "calibration_samples": None,
        "seeds": seeds,
        "units": [
            hashlib.sha256(f"{model}/{text}/{seed}".encode()).hexdigest() for seed in seeds or [0]
        ],
        "costs": {"weight-bits": bits, "bytes": 1e6 * (bits + draw.random()), "milliseconds": None},
        "values": {column[0]: _value(draw, column, harm, len(seeds)) for column in columns},
        "residual": [0.001 * harm * (1 + 0.05 * draw.normal()) * rank**-0.3 for rank in RANKS],
    }


def _value(
    draw: np.random.Generator, column: tuple[Any, ...], harm: float, seeds: int
) -> dict[str, Any]:
    _, _, _, better, _, fp32, step, margin = column
    level = fp32 is None
    effect = step - 4.0 * np.log2(harm) if level else step * harm * (1 + 0.3 * draw.normal())
    if not level:
        effect = float(np.clip(effect, -0.9 * fp32, 0.9))
    sampling = 0.3 if level else SAMPLED
    drawn = 0.3 * sampling if seeds else 0.0
    reach = 2.776 if seeds else 0.0  # Student's t of 4 degrees of freedom
    half = float(np.hypot(1.96 * sampling, reach * drawn))
    sign = 1 if better == "higher" else -1
    return {
        "value": float(effect if level else fp32 + effect),
        "change": None if level else float(effect),
        "low": float(effect - half),
        "high": float(effect + half),
        "sampling": sampling,
        "drawn": drawn,
        "seeds": seeds or 1,
        "better": not level and bool(sign * effect > half),
        "worse": not level and bool(sign * effect < -half),
        "by_seed": [float(effect + (fp32 or 0) + drawn * at) for at in range(-2, 3)][: seeds or 1],
        "margin": margin,
    }


def _interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _claims(models: list[str]) -> Iterator[dict[str, Any]]:
    """Yield three claims, overall and of each model, with every answer."""
    answers = ("reproduced", "not reproduced", "undecided")
    said = (
        ("C1", "", "moderate PTQ lowers ECE of an under-confident model"),
        ("C3", "", "some quantizer raises OOD AUROC and ECE at once"),
        ("C5", "blur PTQ", "some PTQ raises top-1 on blur"),
    )
    for place, model in enumerate((None, *models)):
        for at, (claim, part, says) in enumerate(said):
            answer = answers[(place + at) % 3]
            lacking = claim == "C5" and answer == "undecided"
            yield {
                "claim": claim, "part": part, "says": says, "rule": "mean", "model": model,
                "about": not (claim == "C1" and model == "vit-clean"), "answer": answer,
                "effects": [] if lacking else [
                    {"name": "ECE", "unit": "", "seeds": 5} | _interval(-0.01 * (at + 1), 0.004)
                ],
                "p_value": None if lacking else 0.004, "p_value_table": 0.02, "looks": 12,
                "option": None, "reason": "needs a probe of blur alone" if lacking else None,
                "left_out": [], "configurations": [] if lacking else [0, 1],
            }  # fmt: skip
