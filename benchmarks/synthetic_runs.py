"""Run records of any size, for benchmarks and tests of reports and history.

Values are drawn; names, verdicts, figures and evidence have the form of real records. A seeded
generator makes each record reproducible.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from made_results import made_result

from clipq.gating.decision import decide
from clipq.metrics import metrics
from clipq.records import CaseResult, RunRecord, sort_cases
from clipq.settings import StatisticsSettings
from clipq.verdicts import Verdict

MODELS = ("vit-b-32", "vit-l-14", "convnext", "siglip", "coca")
QUANTIZERS = (
    "rtn:w8", "rtn:w8a8", "rtn:w6a8", "rtn:w4a8", "rtn:w4g32", "rtn:w4a4", "smoothquant:w8a8",
    "quarot:w4a8", "gptq:w4", "awq:w4g32",
)  # fmt: skip
_ROLES = {
    "id": "in-distribution",
    "textures": "ood",
    "near": "ood",
    "corruptions": "corruption",
    "shifted": "shift",
    "backgrounds": "spurious",
}
STATISTICS = {"alpha": 0.05, "replicates": 500, "seed": 1, "correction": "holm"}
_SCORES = ("mcm", "max-logit", "energy")


def synthetic_run(
    cases: int = 5000, *, seed: int = 0, index: int = 0, policy: str = "ci"
) -> RunRecord:
    """Return a record of about `cases` cases.

    Args:
        cases: at least 100; rounded to what the matrix gives.
        seed: of all values; equal seeds give equal values.
        index: day of the run and number of its commit; values step at a few indices.
        policy: of the gate.
    """
    keys = _keys(max(1, cases // (len(MODELS) * len(QUANTIZERS))))
    rng = np.random.default_rng(seed)
    found = [
        result
        for model in MODELS
        for quantizer in QUANTIZERS
        for result in _decided(
            [_case(model, quantizer, probe, metric, rng, index) for probe, metric in keys]
        )
    ]
    found[0] = replace(found[0], evidence=_evidence(rng))
    started = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(days=index)
    sha = f"{index:040x}"
    return RunRecord(
        policy=policy,
        planned=len(found),
        cases=sort_cases(found),
        versions={"clipq": "0.1.0", "torch": "2.15.0", "python": "3.11.7"},
        timings={"seconds": 224.0 + index},
        statistics=STATISTICS,
        started=started.isoformat().replace("+00:00", "Z"),
        commit={
            "sha": sha,
            "date": started.isoformat(),
            "subject": f"change {index}",
            "branch": "main",
            "dirty": False,
        },
    )


def _keys(count: int) -> list[tuple[str, str]]:
    """Return so many (probe, metric); probes are repeated under new names where need be."""
    keys = [
        (probe, name)
        for probe, role in _ROLES.items()
        for name in metrics.names()
        if role in metrics.get(name).roles
    ]
    while len(keys) < count:
        copy = len(keys) // 1000 + 2
        keys += [(f"{probe}-{copy}-{len(keys)}", name) for probe, name in keys[:count]]
    return keys[:count]


def _case(
    model: str, quantizer: str, probe: str, metric: str, rng: np.random.Generator, index: int
) -> CaseResult:
    declared = metrics.get(metric)
    harm = 2.5 if quantizer == "rtn:w4a4" else 0.3
    baseline, margin = float(rng.uniform(0.1, 0.9)), 0.02
    loss = float(rng.normal(0.0, margin * harm))
    if index >= 100 and rng.uniform() < 0.02:  # some cases step
        loss += margin
    error = float(rng.uniform(0.05, 0.4)) * margin
    low, high = loss - 1.96 * error, loss + 1.96 * error
    sign = -1.0 if declared.direction == "higher" else 1.0
    return made_result(
        model, quantizer, probe, metric, Verdict.PASS,
        unit=declared.unit, direction=declared.direction, metric_version=declared.version,
        samples=2048, baseline=baseline, observed=baseline + sign * loss, loss=loss, margin=margin,
        low=low, high=high, p_value=math.erfc((loss - margin) / error / math.sqrt(2)) / 2,
        standard_error=error,
    )  # fmt: skip


def _decided(found: Sequence[CaseResult]) -> list[CaseResult]:
    """Return the results of one candidate with their verdicts, as a gate would give them."""
    decided = []
    for result in decide(found, StatisticsSettings(**STATISTICS)):
        if result.verdict is Verdict.FAIL and result.quantizer == "rtn:w4a4":
            reason = "expected: naive 4-bit activations"
            result = replace(result, verdict=Verdict.WAIVED, reason=reason)
        elif result.verdict in (Verdict.FAIL, Verdict.SUSPECT):
            result = replace(result, next_command=f"clipq gate --clipq-model {result.model} -n0")
        decided.append(result)
    return decided


def _evidence(rng: np.random.Generator) -> dict[str, dict[str, object]]:
    pairs = [(model, quantizer) for model in MODELS for quantizer in QUANTIZERS]
    sizes = dict(zip(QUANTIZERS, (8, 8, 6, 4, 4.5, 4, 8, 4, 4, 4.5), strict=True))
    return {
        "models": {
            model: {"source": f"local-dir:models/{model}", "weights_sha256": "ab" * 32}
            for model in MODELS
        },
        "probes": {
            probe: {"role": role, "samples": 2048, "fingerprint": "cd" * 32}
            for probe, role in _ROLES.items()
        },
        "baselines": {
            model: {
                "file": f"baselines/{model}.json",
                "columns_sha256": "ef" * 32,
                "approved": "2025-01-01",
                "reason": "first baseline",
            }
            for model in MODELS
        },
        "quantizers": {
            f"{model}/{quantizer}": {
                "method_version": 1,
                "code_sha256": "12" * 32,
                "share": 1.0,
                "weight_bits": sizes[quantizer] + 0.06,
                "bytes": int(600e6 * sizes[quantizer] / 32),
                "float_bytes": 600_000_000,
            }
            for model, quantizer in pairs
        },
        "environments": {
            "0123456789ab": {"torch": "2.15.0", "device": "cpu", "threads": 1, "batch_size": 256}
        },
        "figures": {
            f"{model}/{quantizer}/{probe}": _figures(role, quantizer, rng)
            for model in MODELS
            for quantizer in ("fp32", *QUANTIZERS)
            for probe, role in _ROLES.items()
        },
    }


def _figures(role: str, quantizer: str, rng: np.random.Generator) -> dict[str, object]:
    found: dict[str, object] = {}
    if role == "ood":
        found["detection"] = {score: _detection(rng) for score in _SCORES}
        return found
    counts = rng.multinomial(2048, np.linspace(0.2, 2.0, 15) / 16.5)
    confidence = (np.arange(15) + 0.5) / 15
    accuracy = np.clip(confidence + rng.normal(0, 0.05, 15), 0, 1)
    found["calibration"] = {
        "samples": counts.tolist(),
        "confidence": [round(float(x), 4) for x in confidence],
        "accuracy": [round(float(x), 4) for x in accuracy],
    }
    names = [f"group {i}" for i in range(8)]
    if role == "corruption":
        names = ["gaussian_noise", "shot_noise", "defocus_blur", "fog", "contrast", "jpeg"]
    found["groups"] = {
        name: {
            "samples": 256,
            "top1": round(float(rng.uniform(0.6, 0.95)), 4),
            "ece": round(float(rng.uniform(0.02, 0.12)), 4),
        }
        for name in names
    }
    if role == "in-distribution" and quantizer != "fp32":
        ranks = np.unique(np.geomspace(1, 512, 48).astype(int))
        signal = 1.0 / ranks
        residual = 1e-3 * np.exp(rng.normal(0, 0.2, len(ranks))) / np.sqrt(ranks)
        found["spectrum"] = {
            "rank": ranks.tolist(),
            "signal": [float(f"{x:.4g}") for x in signal],
            "residual": [float(f"{x:.4g}") for x in residual],
        }
    return found


def _detection(rng: np.random.Generator) -> dict[str, object]:
    inside, outside = rng.normal(0.6, 0.1, 2048), rng.normal(0.45, 0.1, 768)
    low, high = float(min(inside.min(), outside.min())), float(max(inside.max(), outside.max()))
    thresholds = np.quantile(np.concatenate([inside, outside]), np.linspace(1, 0, 33))
    return {
        "range": [round(low, 5), round(high, 5)],
        "inside": np.histogram(inside, 32, (low, high))[0].tolist(),
        "outside": np.histogram(outside, 32, (low, high))[0].tolist(),
        "fpr": [round(float((outside >= t).mean()), 4) for t in thresholds],
        "tpr": [round(float((inside >= t).mean()), 4) for t in thresholds],
    }
