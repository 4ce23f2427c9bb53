"""clipq: pytest-style reliability regression tests for quantized CLIP models.

    import clipq

    result = clipq.evaluate("ViT-B-32/laion2b_s34b_b79k", "rtn:w4", "folder:my/images")
    run = clipq.gate("clipq.toml")

    @clipq.quantizers.register("mine", version=1)
    def mine(model, spec, calibration):
        ...
        return model

Importing this package imports neither torch nor open_clip; what is named here is imported when it
is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipq.api import Trained, compare, evaluate, gate, open_probe, quantize, train
    from clipq.api.evaluation import Evaluation
    from clipq.api.gate_run import GateRun
    from clipq.cases import Candidate, Case, Cell
    from clipq.data import Images, Probe
    from clipq.errors import ClipqError
    from clipq.estimate import Estimate
    from clipq.metrics import Metric, Predictions
    from clipq.quant import Calibration, Format, QuantizerSpec, quantizers
    from clipq.records import CaseResult, RunRecord, read_run
    from clipq.verdicts import Verdict

    __version__: str

_HOME = {
    "Calibration": "clipq.quant",
    "Candidate": "clipq.cases",
    "Case": "clipq.cases",
    "CaseResult": "clipq.records",
    "Cell": "clipq.cases",
    "ClipqError": "clipq.errors",
    "Estimate": "clipq.estimate",
    "Evaluation": "clipq.api.evaluation",
    "Format": "clipq.quant",
    "GateRun": "clipq.api.gate_run",
    "Images": "clipq.data",
    "Metric": "clipq.metrics",
    "Predictions": "clipq.metrics",
    "Probe": "clipq.data",
    "QuantizerSpec": "clipq.quant",
    "RunRecord": "clipq.records",
    "Trained": "clipq.api",
    "Verdict": "clipq.records",
    "compare": "clipq.api",
    "evaluate": "clipq.api",
    "gate": "clipq.api",
    "open_probe": "clipq.api",
    "quantize": "clipq.api",
    "quantizers": "clipq.quant",
    "train": "clipq.api",
    "read_run": "clipq.records",
}
"""Where each public name lives."""
_PACKAGES = ("metrics",)
"""Subpackages that are used by their names alone: ``clipq.metrics.names()``."""

__all__ = [
    "Calibration",
    "Candidate",
    "Case",
    "CaseResult",
    "Cell",
    "ClipqError",
    "Estimate",
    "Evaluation",
    "Format",
    "GateRun",
    "Images",
    "Metric",
    "Predictions",
    "Probe",
    "QuantizerSpec",
    "RunRecord",
    "Trained",
    "Verdict",
    "__version__",
    "compare",
    "evaluate",
    "gate",
    "metrics",
    "open_probe",
    "quantize",
    "quantizers",
    "read_run",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from clipq.provenance import package_versions

        installed = package_versions(("clipq",))["clipq"]
        return "0+unknown" if installed == "not installed" else installed
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
