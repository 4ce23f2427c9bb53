"""clipq: pytest-style reliability regression tests for quantized CLIP models.

    import clipq

    @clipq.quantizers.register("mine", version=1)
    def mine(model, spec, calibration):
        ...
        return model

Importing this package imports neither torch nor open_clip.
"""

from importlib.metadata import PackageNotFoundError, version

from clipq.errors import ClipqError
from clipq.metrics import Metric, Predictions
from clipq.quant import Calibration, Format, QuantizerSpec, quantizers
from clipq.records import CaseResult, RunRecord, Verdict

try:
    __version__ = version("clipq")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "Calibration",
    "CaseResult",
    "ClipqError",
    "Format",
    "Metric",
    "Predictions",
    "QuantizerSpec",
    "RunRecord",
    "Verdict",
    "__version__",
    "quantizers",
]
