"""Records of a study, made up: changes against FP32 with standard errors, by quantizer."""

from __future__ import annotations

from collections.abc import Iterable

from made_results import altered, made_result

from clipq.metrics import metrics
from clipq.records import RunRecord, sort_cases
from clipq.verdicts import Verdict

FP32 = {
    "id.top1": 0.86,
    "id.ece": 0.06,
    "id.ts-ece": 0.03,
    "id.tail-energy": 0.02,
    "id.top1-low": 0.5,
    "id.top1-high": 0.2,
    "near.auroc-mcm": 0.75,
    "far.auroc-mcm": 0.88,
    "noise.top1": 0.7,
    "blur.top1": 0.6,
    "shifted.top1": 0.38,
    "backgrounds.relative-gap": 0.3,
    "backgrounds.added-vulnerability": 0.0,
    "corruptions.corruption-error": 1.0,
}
PROBES = {
    "id": {"role": "in-distribution"},
    "near": {"role": "ood", "distance": "near"},
    "far": {"role": "ood", "distance": "far"},
    "noise": {"role": "corruption", "severities": [1, 2, 3]},
    "blur": {"role": "corruption", "severities": [1, 2, 3]},
    "corruptions": {"role": "corruption", "severities": [1, 2, 3]},
    "shifted": {"role": "shift"},
    "backgrounds": {"role": "spurious"},
}
GROUPS = {
    "noise": ("gaussian_noise", "shot_noise"),
    "blur": ("defocus_blur", "zoom_blur"),
    "corruptions": ("gaussian_noise", "defocus_blur", "fog"),
}
OVER, UNDER = 0.05, -0.10
TRAINED = ("lsq", "rot+lsq", "theirs")
"""Methods of which records hold a trained state; the last is a third party's."""


def study_record(
    changes: dict[str, dict[str, float]],
    *,
    model: str = "vit",
    error: float = 0.001,
    bias: float = OVER,
    fingerprint: str = "cd",
    baseline: dict[str, float] | None = None,
) -> RunRecord:
    """Return a record of one model.

    Args:
        changes: observed minus FP32, by quantizer and ``probe.metric``; of SQNR, the value.
        model: its name.
        error: standard error of every loss.
        bias: FP32's mean confidence minus accuracy.
        fingerprint: of every probe.
        baseline: FP32's values, if not those of `FP32`.
    """
    known = FP32 | (baseline or {})
    found = []
    for quantizer, own in changes.items():
        for key, change in own.items():
            probe, metric = key.rsplit(".", 1)
            declared, level = metrics.get(metric), metric.startswith("sqnr")
            stored = None if level else known[key]
            observed = change if level else stored + change
            loss = 20.0 - observed if level else declared.loss(stored, observed)
            found.append(
                made_result(
                    model,
                    quantizer,
                    probe,
                    metric,
                    Verdict.PASS,
                    unit=declared.unit,
                    direction=declared.direction,
                    samples=2048,
                    metric_version=declared.version,
                    baseline=stored,
                    observed=observed,
                    loss=loss,
                    low=loss - 1.9 * error,
                    high=loss + 1.9 * error,
                    standard_error=error,
                    margin=20.0 if level else 0.01,
                )
            )
    found = list(sort_cases(found))
    found[0] = altered(found[0], evidence=_evidence(model, bias, fingerprint, changes))
    return RunRecord("ci", len(found), tuple(found))


def _evidence(
    model: str, bias: float, fingerprint: str, quantizers: Iterable[str]
) -> dict[str, dict[str, object]]:
    accuracy = 0.85
    bins = [None] * 9 + [accuracy + bias], [None] * 9 + [accuracy]
    figures = {
        f"{model}/fp32/id": {
            "calibration": {
                "samples": [0] * 9 + [2048],
                "confidence": bins[0],
                "accuracy": bins[1],
            }
        }
    }
    for probe, names in GROUPS.items():
        figures[f"{model}/fp32/{probe}"] = {"groups": {name: {"samples": 9} for name in names}}
    return {
        "models": {model: {"source": "x", "weights_sha256": "ab"}},
        "probes": {
            name: {**entry, "samples": 2048, "fingerprint": fingerprint}
            for name, entry in PROBES.items()
        },
        "figures": figures,
        "quantizers": {
            f"{model}/{text}": {"trained": {"sha256": "0f"}}
            for text in quantizers
            if text.partition(":")[0] in TRAINED
        },
    }
