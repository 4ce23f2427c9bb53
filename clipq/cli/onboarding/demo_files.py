"""The texts of the project that `clipq demo` writes: settings and margins."""

from __future__ import annotations

__all__ = ["MARGINS", "MARK", "MODELS", "PROBES", "SETTINGS"]

MODELS = ("siglip", "vit-clean")
"""The models that the project gates, of the embedded ones."""
PROBES = ("captions", "near-ood", "shapes", "shifted")
"""The folders of images that its five probes are read from."""

MARK = "# A project to try clipq on, written by `clipq demo`."
"""The first line of its clipq.toml, by which it is known again."""

SETTINGS = f"""\
{MARK}
# Two small CLIPs, two ways to quantize them, five probes. Change what you like, then `clipq gate`:
# only what is new is computed.

[clipq]
baselines = "baselines"                # FP32's values, reviewed; what quantized models are held to
margins = "baselines/margins.toml"     # how much worse than FP32 is acceptable
cache = ".clipq/cache"                 # encodings; safe to delete
report = ".clipq/report"               # report.html, report.json, report.md, junit.xml
policy = "ci"                          # "release": inconclusive cases block, too

[matrix]
quantizers = [
    "rtn:w8a8",                        # 8-bit weights and activations: may ship
    "rtn:w4a4",                        # 4 bits, rounded to nearest: blocked, as it should be
    # "gptq:w4",                       # 4-bit weights, better chosen: try it
]
metrics = [
    "top1",
    "ece",
    "nll",
    "negative-flips",
    "worst-group-top1",
    "sqnr",
    "auroc-mcm",
    "fpr95-mcm",
    "i2t-recall-1",
    "t2i-recall-1",
]

[[models]]
name = "vit-clean"
source = "local-dir:models/vit-clean"

[[models]]
name = "siglip"
source = "local-dir:models/siglip"

[[probes]]
name = "id"
role = "in-distribution"
source = "webdataset:data/shapes"
split = "test"
group = "colour"
reason = "accuracy, calibration, churn; its classes make the zero-shot head"

[[probes]]
name = "calibration"
role = "calibration"
source = "webdataset:data/shapes"
split = "calibration"
reason = "activation ranges and the temperature; never evaluated on"

[[probes]]
name = "near-ood"
role = "ood"
source = "webdataset:data/near-ood"
distance = "near"
reason = "shapes that no caption named: are they told from those of id?"

[[probes]]
name = "shifted"
role = "shift"
source = "webdataset:data/shifted"
group = "group"
metrics = ["top1", "ece", "nll", "negative-flips", "worst-group-top1"]
reason = "outlines, new colours, new backgrounds, new poses"

[[probes]]
name = "captions"
role = "retrieval"
source = "webdataset:data/captions"
reason = "images by captions and captions by images"
"""

MARGINS = """\
# How much worse than FP32 is still acceptable, in each metric's unit (`clipq list metrics`).
# A later table replaces what an earlier one says of the same metric.

[[margin]]
formats = "*"
[margin.metrics]
top1 = 0.01
ece = 0.01
nll = 0.02
negative-flips = 0.02
worst-group-top1 = 0.05        # a group is an eighth of the probe
sqnr = 20.0                    # a floor in dB, not a difference
auroc-mcm = 0.02
fpr95-mcm = 0.04
i2t-recall-1 = 0.06            # 256 images
t2i-recall-1 = 0.06
"shifted.top1" = 0.03
"shifted.ece" = 0.03
"shifted.nll" = 0.2
"shifted.worst-group-top1" = 0.06

[[margin]]
formats = "w4*"
[margin.metrics]
top1 = 0.03
ece = 0.04
nll = 0.12
negative-flips = 0.06
worst-group-top1 = 0.1
sqnr = 8.0
auroc-mcm = 0.115
fpr95-mcm = 0.135
i2t-recall-1 = 0.12
t2i-recall-1 = 0.12
"shifted.top1" = 0.07
"shifted.ece" = 0.07
"shifted.nll" = 0.5
"shifted.negative-flips" = 0.1
"shifted.worst-group-top1" = 0.12
"""
