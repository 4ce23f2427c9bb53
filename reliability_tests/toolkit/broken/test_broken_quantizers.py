"""The gate rejects every broken quantizer, at the embedded size, through the plug-in door."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import defaultdict
from pathlib import Path

from clipq.verdicts import POLICIES, Verdict

HERE = Path(__file__).parent
BLOCKING = {verdict.value for verdict in Verdict if POLICIES["ci"].blocks(verdict)}


def load_library():
    """Import the plug-in by path, registering nothing here twice."""
    from clipq.quant import quantizers

    spec = importlib.util.spec_from_file_location(
        "broken_quantizers", HERE / "broken_quantizers.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in (*module.CONTROLS, *module.BROKEN):
        quantizers.remove(name)
    return module


LIBRARY = load_library()


def test_every_broken_quantizer_is_rejected_and_no_faithful_one(project):
    """One test, because one run of the gate gives all of it."""
    assert len(set(LIBRARY.BROKEN)) >= 25
    found = outcome(project)
    assert set(found) == {*LIBRARY.CONTROLS, *LIBRARY.BROKEN}
    rejected = {name for name, cases in found.items() if verdicts(cases) & BLOCKING}
    assert {*LIBRARY.BROKEN} - rejected == set(), "let through"
    assert {*LIBRARY.CONTROLS} & rejected == set(), "rejected without a bug"

    assert found["nan-in-one-row"]["id.top1"]["verdict"] == "non-finite"
    assert found["nothing-done"]["id.top1"]["verdict"] == "error"
    assert "changed nothing" in found["nothing-done"]["id.top1"]["reason"]
    # A lost softmax temperature leaves every decision and every feature as it was.
    lost = found["softmax-temperature-lost"]
    assert lost["id.top1"]["verdict"] == lost["id.sqnr"]["verdict"] == "pass"
    assert lost["id.ece"]["verdict"] == lost["id.nll"]["verdict"] == "fail"


def outcome(project):
    """Run the whole library through `clipq gate`; return its cases by quantizer and metric."""
    shutil.copy(HERE / "broken_quantizers.py", project.root)
    project.settings(
        quantizers=(*LIBRARY.CONTROLS, *LIBRARY.BROKEN),
        metrics=("*",),
        extra='plugins = ["broken_quantizers"]',
    )
    project.use_reviewed_baseline()
    done = project.run("clipq", "gate", "-n0", "-q", timeout=900)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    record = json.loads((project.root / ".clipq" / "report" / "report.json").read_text())
    found = defaultdict(dict)
    for case in record["cases"]:
        found[case["quantizer"]][f"{case['probe']}.{case['metric']}"] = case
    return found


def verdicts(cases):
    return {case["verdict"] for case in cases.values()}
