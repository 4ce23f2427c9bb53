"""A gate of artifacts from the outside: what ships is judged, what is broken fails and is named."""

from __future__ import annotations

import json
import re

ARTIFACTS = """
[[artifacts]]
name = "dynamic"
model = "vit-clean"
runtime = "onnxruntime"
recipe = "onnxruntime-dynamic"
float = { recipe = "onnxruntime-dynamic" }
simulation = "rtn:w8a8d"
format = "w8a8d"
batch = 64

[[artifacts]]
name = "broken"
model = "vit-clean"
runtime = "onnxruntime"
recipe = "onnxruntime-static-all"
format = "w8a8"

[[artifacts]]
name = "missing"
model = "vit-clean"
runtime = "onnxruntime"
image = "deploy/image.onnx"
text = "fp32"
"""


def test_a_broken_pair_fails_and_a_missing_one_is_an_error_and_a_sound_one_passes(project):
    """ONNX Runtime's default operators make a scale infinite that the attention mask went through:
    no tool says so, and the image tower alone looks fine."""
    project.settings(quantizers=(), after=ARTIFACTS)
    project.use_reviewed_baseline(metrics=("top1", "ece", "auroc-mcm"))
    gated = project.pytest("-n2")
    assert gated.returncode == 1, gated.stdout + gated.stderr
    record = json.loads((project.root / ".clipq" / "report" / "report.json").read_text())
    verdicts: dict[str, set[str]] = {}
    for case in record["cases"]:
        verdicts.setdefault(case["case"].split("/")[1], set()).add(case["verdict"])
    assert verdicts == {
        "broken": {"fail", "improved"},  # answers at random are well calibrated
        "dynamic": {"pass"},
        "dynamic-float": {"pass"},
        "missing": {"error"},
        "rtn:w8a8d": {"pass"},
    }
    findings = {
        name: {(each["kind"], each["wrong"]) for each in said["findings"]}
        for name, said in record["evidence"]["artifacts"].items()
    }
    assert ("infinite-scale", True) in findings["vit-clean/broken"]
    assert not any(wrong for _, wrong in findings["vit-clean/dynamic"])
    assert "deploy/image.onnx" in gated.stdout
    page = (project.root / ".clipq" / "report" / "report.md").read_text()
    assert "simulation gap" in page
    assert "batch-dependence" in page or "depend on the batch" in page

    checked = project.clipq("artifact", "check", "broken", "--no-time")
    assert checked.returncode == 1
    lint, _, run = checked.stdout.partition("executes")
    assert re.search(r"the scale .*\binf", lint), lint  # named before anything runs
    assert run
