"""The gate rejects every broken quantizer, at the embedded size or less, by the plug-in door."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from small_data import part

from clipq.quant import quantizers
from clipq.testing import Violation, check_quantizer
from clipq.verdicts import POLICIES, Verdict

HERE = Path(__file__).parent
BLOCKING = {verdict.value for verdict in Verdict if POLICIES["ci"].blocks(verdict)}
KINDS = ("codes", "ranges", "layers", "engines", "claims")
PLUGINS = ("faithful_quantizers", *(f"broken_{kind}" for kind in KINDS))
METRICS = (
    "top1",
    "ece",
    "nll",
    "flip-rate",
    "sqnr",
    "zero-fraction",
    "effective-rank",
    "embedding-distance",
    "lost-captions",
)
DATA = HERE.parents[2] / "fixtures" / "data"
FEWER = {
    "shapes": {"test": 768, "calibration": 256},
    "digits": {"test": 64},
    "captions": {"test": 256},
}
NEEDS_ALL = "softmax-temperature-lost"
"""Of it a pass is asked beside a failure, as of controls. A pass takes more images than a failure:
every other bug is found on the few.
"""
CAPTIONS = """
[[probes]]
name = "captions"
role = "retrieval"
source = "webdataset:{data}/captions"
"""
# Their batches of 2 to 8, or of no multiple of 32, are no batches of these probes.
ONLY_IN_OTHER_BATCHES = (
    "small-batches-take-another-path:w8a8",
    "last-partial-batch-reversed:w8a8",
    "features-of-an-earlier-batch:w8a8",
)
REASONS = {
    "nothing-done": "changed nothing",
    "pretends:w8a8": "weights on more levels than w8 has codes",
    "sloppy:w4a8": "weights on more levels than w4 has codes",
    "one-layer-at-four-bits:w8a8": "weights of 4 bits, not 8",
    "four-bit-activations:w8a8": "inputs rounded to a4, not a8",
    "activations-left-in-float:w8a8": "inputs on more levels than a8 has codes",
    "text-tower-left-out:w8a8": "weights on more levels than w8 has codes",
    "eight-bits-by-einsum:w4a8": "weights on more levels than w4 has codes",
    "float-by-elements:w8a8": "not of 8 bits",
    "bias-lost-in-one-layer:w8a8": "where rounding to nearest reaches",
    "every-sixteenth-caption-is-its-neighbour": "class prompts depend on the batch",
    **dict.fromkeys(ONLY_IN_OTHER_BATCHES, "features of images depend on the batch"),
}


@pytest.fixture(scope="module")
def library():
    """The plug-ins, imported as a gate would, and what each of them registers."""
    sys.path.insert(0, str(HERE))
    faithful = importlib.import_module("faithful_quantizers")
    texts = {}
    for kind in KINDS:
        known = len(faithful.BROKEN)
        importlib.import_module(f"broken_{kind}")
        texts[kind] = tuple(faithful.BROKEN[known:])
    yield {"faithful": tuple(faithful.CONTROLS), **texts}
    for text in (*faithful.CONTROLS, *faithful.BROKEN):
        quantizers.remove(text.partition(":")[0])
    for name in PLUGINS:
        del sys.modules[name]
    sys.path.remove(str(HERE))


def test_the_library_is_large_and_of_several_kinds(library):
    texts = [text for kind in KINDS for text in library[kind]]
    assert len(set(texts)) == len(texts) >= 37 + 40


@pytest.mark.parametrize("kind", KINDS)
def test_every_broken_quantizer_is_rejected(project, library, kind):
    """One test per kind, because one run of the gate gives all of it."""
    texts = {text for text in library[kind] if text != NEEDS_ALL}
    found = outcome(project, tuple(sorted(texts)), few=True)
    assert set(found) == texts
    assert texts - rejected(found) == set(), "let through"
    for name, said in REASONS.items():
        if name in found:
            assert said in found[name]["id.top1"]["reason"], name
    if kind == "engines":
        assert found["nan-in-one-row"]["id.top1"]["verdict"] == "non-finite"


def test_no_faithful_quantizer_is_rejected_and_a_lost_temperature_by_calibration(project, library):
    assert NEEDS_ALL in library["engines"]
    texts = {*library["faithful"], NEEDS_ALL}
    found = outcome(project, tuple(sorted(texts)), few=False)
    assert set(found) == texts
    assert rejected(found) == {NEEDS_ALL}
    # A lost softmax temperature leaves every decision and every feature as it was.
    lost = found[NEEDS_ALL]
    assert lost["id.top1"]["verdict"] == lost["id.sqnr"]["verdict"] == "pass"
    assert lost["id.ece"]["verdict"] == lost["id.nll"]["verdict"] == "fail"


@pytest.mark.parametrize("text", ONLY_IN_OTHER_BATCHES)
def test_what_only_other_batches_show_is_caught_by_the_checks(library, text):
    name = "encodes-each-sample-by-itself"
    check = next(check for check in check_quantizer(text) if check.invariant == name)
    with pytest.raises(Violation, match="depend on batch mates"):
        check()


def outcome(project, texts, *, few):
    """Run quantizers through `clipq gate`; return their cases by quantizer and metric."""
    for name in PLUGINS:
        shutil.copy(HERE / f"{name}.py", project.root)
    data = project.root / "data" if few else DATA
    extra = f"plugins = {json.dumps(PLUGINS)}"
    path = project.settings(quantizers=texts, metrics=METRICS, data=data, extra=extra)
    path.write_text(path.read_text() + CAPTIONS.format(data=data))
    project.use_reviewed_baseline(probes=("id", "digits", "captions"), metrics=METRICS)
    if few:
        for name, images in FEWER.items():
            part(DATA / name, data / name, images)
        (project.root / "baselines" / "vit-clean.json").unlink()
        created = project.clipq("baseline", "create", "--quiet")
        assert created.returncode == 0, created.stderr
    done = project.run("clipq", "gate", "-n0", "-q", timeout=900)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    record = json.loads((project.root / ".clipq" / "report" / "report.json").read_text())
    found = defaultdict(dict)
    for case in record["cases"]:
        found[case["quantizer"]][f"{case['probe']}.{case['metric']}"] = case
    return found


def rejected(found):
    """Return the quantizers of which a case blocks."""
    return {
        name
        for name, cases in found.items()
        if BLOCKING & {case["verdict"] for case in cases.values()}
    }
