"""clipq from Python: what the command line and the pytest plugin do, as functions.

    clipq.evaluate(model, "rtn:w4", data)    one quantizer beside FP32, on data of your own
    clipq.quantize(model, "rtn:w4", images)  the quantized model
    clipq.train(model, "lsq:w4a8", pairs, output=...)  a quantizer that learns
    clipq.gate("clipq.toml")                 a project's whole matrix against its baselines
    clipq.compare(before, after)             two runs, case by case
    clipq.read_run("report.json")            a run that was recorded

Importing this package imports neither torch nor open_clip; calling its functions does.
"""

from clipq.api.arguments import Data, Model, open_probe
from clipq.api.comparing import compare
from clipq.api.evaluating import evaluate
from clipq.api.evaluation import Evaluation, Measurement
from clipq.api.gate_run import CandidateOutcome, GateRun, gate
from clipq.api.quantizing import quantize
from clipq.api.training import Trained, train

__all__ = [
    "CandidateOutcome",
    "Data",
    "Evaluation",
    "GateRun",
    "Measurement",
    "Model",
    "Trained",
    "compare",
    "evaluate",
    "gate",
    "open_probe",
    "quantize",
    "train",
]
