"""Reduce a run record to a sample that a repository can hold: fewer cells, nothing altered in them.

    python docs/examples/reduce_record.py .clipq/report/report.json docs/examples/report.json.gz

Cases and figures of the cells below are kept as they were measured and judged, within the run that
they belong to: p-values stay corrected for all of its cases.
"""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from clipq.records import RunRecord, read_run

_MODELS = ("vit-clean", "siglip")
_QUANTIZERS = ("rtn:w8a8", "rtn:w4a8", "rtn:w4a4", "gptq:w4")
_METRICS = {
    "id": ("top1", "ece", "smooth-ece", "nll", "aurc", "flip-rate", "kl-to-fp32", "sqnr"),
    "digits": ("auroc-mcm", "auroc-energy", "fpr95-mcm"),
    "corruptions": ("*",),
    "backgrounds": ("*",),
    "captions": ("i2t-recall-1", "t2i-recall-1", "hubness"),
}
_CELLS = ("figures", "predictions")  # evidence of model/quantizer/probe


def reduced(record: RunRecord) -> RunRecord:
    """Return the record of the chosen cells alone."""
    cases = [
        replace(case, evidence={})
        for case in record.cases
        if case.model in _MODELS
        and case.quantizer in _QUANTIZERS
        and any(fnmatchcase(case.metric, glob) for glob in _METRICS.get(case.probe, ()))
    ]
    evidence = {
        kind: {key: value for key, value in entries.items() if _kept(kind, key)}
        for kind, entries in record.evidence().items()
    }
    cases[0] = replace(cases[0], evidence=evidence)
    kept = {"cases": tuple(cases), "kernels": record.kernels[:12]}
    return replace(record, planned=len(cases), not_applicable={}, **kept)


def _kept(kind: str, key: str) -> bool:
    model, _, rest = key.partition("/")
    if kind in ("models", "baselines"):
        return key in _MODELS
    if kind == "probes":
        return key in _METRICS
    if kind in ("quantizers", "artifacts"):
        return model in _MODELS and rest in _QUANTIZERS
    if kind in _CELLS:
        quantizer, _, probe = rest.rpartition("/")
        return model in _MODELS and quantizer in (*_QUANTIZERS, "fp32") and probe in _METRICS
    return True


def packed(plain: dict[str, Any]) -> bytes:
    """Return a record's JSON, compressed; equal records give equal bytes."""
    text = json.dumps(plain, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return gzip.compress(text.encode(), 9, mtime=0)


if __name__ == "__main__":
    source, target = (Path(argument) for argument in sys.argv[1:])
    target.write_bytes(packed(reduced(read_run(source)).to_plain()))
    print(f"{target}: {target.stat().st_size:,} bytes")
