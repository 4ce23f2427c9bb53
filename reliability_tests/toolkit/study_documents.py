"""Study documents, made up: what `clipq study page` draws, without a sweep behind it."""

from __future__ import annotations

import hashlib
import itertools
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
    # name, title, unit, direction, role, FP32, what eight bits change, margin
    ("id.top1", "top-1", "", "higher", "in-distribution", 0.86, -0.002, 0.01),
    ("id.ece", "ECE", "", "lower", "in-distribution", 0.06, 0.003, 0.01),
    ("ood.auroc-mcm", "OOD AUROC", "", "higher", "ood", 0.82, 0.002, 0.02),
    ("corruption.corruption-error", "corruption error", "ratio", "lower", "corruption",
     1.0, 0.02, 0.15),
    ("shift.top1", "shift top-1", "", "higher", "shift", 0.41, -0.006, 0.03),
    ("spurious.relative-gap", "relative gap", "", "lower", "spurious", 0.3, 0.01, 0.05),
    ("id.sqnr-low", "SQNR 0-8", "dB", "higher", "in-distribution", None, 38.0, None),
)  # fmt: skip


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
    found = [
        _configuration(draw, model, at, entry, held)
        for at, model in enumerate(names)
        for entry in texts
    ]
    return {
        "schema": "clipq-study/1",
        "kind": "page",
        "title": "A made-up sweep",
        "models": [
            {
                "name": model,
                "confidence_bias": _interval((0.04, -0.08, 0.01, 0.0)[at % 4], 0.006),
                "fp32": {column[0]: column[5] for column in held},
            }
            for at, model in enumerate(names)
        ],
        "columns": [
            {"name": name, "title": title, "unit": unit, "direction": direction, "role": role,
             "metric": name.rsplit(".", 1)[1], "probes": [name.rsplit(".", 1)[0]]}
            for name, title, unit, direction, role, *_ in held
        ],
        "configurations": found,
        "claims": list(_claims(names)),
        "adviser": {model: {"margins": {c[0]: c[7] for c in held if c[7]}} for model in names},
        "provenance": {
            "sweeps": [{"plan": "plan.toml", "units": sum(len(c["units"]) for c in found),
                        "cells": sum(len(c["units"]) for c in found) * len(held)}],
            "clipq": "0.1.0",
        },
    }  # fmt: skip


def _columns(count: int) -> list[tuple[Any, ...]]:
    found = list(COLUMNS[:count])
    for at in range(len(found), count):
        name = f"probe-{at}.top1"
        found.append((name, f"probe {at} top-1", "", "higher", "shift", 0.5, -0.004, 0.02))
    return found


def _texts() -> Any:
    """Yield method, format, text, towers, kind: plain ones first, then with an option."""
    for option in itertools.count():
        for towers in ("vision", "both"):
            for number_format, method in itertools.product(FORMATS, METHODS):
                extra = f",option={option}" if option else ""
                at = "" if towers == "both" else f"@{towers}"
                text = f"{method}:{number_format}{extra}{at}"
                yield method, number_format, text, towers, METHODS[method]


def _configuration(
    draw: Any, model: str, at: int, entry: tuple[str, ...], columns: list[tuple[Any, ...]]
) -> dict[str, Any]:
    method, number_format, text, towers, kind = entry
    seeds = list(range(5)) if kind != "ptq" or method == "quarot" else [0]
    harm = {"w8a8": 1.0, "w6a8": 2.5, "w4a8": 6.0, "w4a4": 40.0}[number_format]
    harm *= 0.4 if kind == "qat" else 1.0
    units = [hashlib.sha256(f"{model}/{text}/{seed}".encode()).hexdigest() for seed in seeds]
    values = {}
    for name, _, _, direction, _, fp32, step, _ in columns:
        if fp32 is None:
            level = step - 4.0 * np.log2(harm) + draw.normal(0, 0.5, len(seeds))
            values[name] = _entry(level, None, 0.3, 1, units)
            continue
        change = step * harm * (1 + 0.3 * draw.normal()) + draw.normal(0, SAMPLED, len(seeds)) * 0.5
        sign = {"higher": 1, "lower": -1}[direction]
        values[name] = _entry(fp32 + np.clip(change, -0.9 * fp32, 0.9), fp32, SAMPLED, sign, units)
    ranks = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    signal = [8.0 / rank for rank in ranks]
    residual = [0.001 * harm * (1 + 0.1 * at) for _ in ranks]
    bits = FORMATS[number_format]
    return {
        "id": f"{model}/{text}",
        "model": model,
        "text": text,
        "method": method,
        "bits": number_format,
        "towers": towers,
        "kind": kind,
        "calibration": 0,
        "seeds": seeds,
        "units": units,
        "cost": {"bits": bits, "bytes": int(1e6 * (bits + at)), "seconds": 2.0 + harm},
        "values": values,
        "spectrum": {"rank": ranks, "signal": signal, "residual": residual},
    }


def _entry(
    drawn: Any, fp32: float | None, sampled: float, sign: int, units: list[str]
) -> dict[str, Any]:
    value = float(np.mean(drawn))
    spread = float(np.std(drawn, ddof=1)) if len(drawn) > 1 else 0.0
    half = 1.96 * (sampled**2 + spread**2 / len(drawn)) ** 0.5
    own = {
        "value": value,
        "low": value - half,
        "high": value + half,
        "units": units,
        "drawn": [float(each) for each in drawn],
    }
    if fp32 is None:
        return own | dict.fromkeys(("change", "change_low", "change_high", "better"))
    change = value - fp32
    better = True if sign * change > half else False if sign * change < -half else None
    return own | {
        "change": change, "change_low": change - half, "change_high": change + half,
        "better": better,
    }  # fmt: skip


def _interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _claims(models: list[str]) -> Any:
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
                "left_out": [], "cases": [] if lacking else ["vit-clean/rtn:w8a8@vision/id.ece"],
            }  # fmt: skip
