"""What a record says of a trained candidate: checked as it is read, shown, compared, signed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipq.cases import Candidate, Case
from clipq.errors import RecordError
from clipq.evaluation.trained_manifest import LossAt, TrainedManifest
from clipq.evaluation.training_unit import TrainingUnit
from clipq.history.around import notes
from clipq.recorded_evidence import check_evidence
from clipq.records import CaseResult, RunRecord
from clipq.report.card import card_markdown, release_card
from clipq.report.looks import looks
from clipq.report.text import summary
from clipq.shapes import Document
from clipq.verdicts import Verdict

CASE = Case.parse("vit/lsq:w4a8/id.ece")
MANIFEST = TrainedManifest(
    TrainingUnit(
        "vit",
        "lsq:w4a8",
        {"steps": 300, "lr": 1e-4},
        {"weights_sha256": "0f" * 32},
        {"proxy": "2d"},
    ),
    "a1" * 32,
    proxy="proxy",
    pairs=900,
    held_out=100,
    steps=300,
    best_step=250,
    why="step 250 has the least loss",
    losses=(LossAt(0, {"total": 0.8}), LossAt(250, {"total": 0.5})),
    seconds=33.25,
)


def evidence(**changed):
    learnt = {**MANIFEST.evidence(), "from": "folder trained/vit", **changed}
    quantizer = {"code_sha256": "c0" * 32, "share": 1.0, "trained": learnt}
    return {
        "quantizers": {"vit/lsq:w4a8": quantizer},
        "models": {"vit": {"source": "local-dir:vit", "weights_sha256": "0f" * 32}},
        "probes": {"id": {"fingerprint": "1d", "role": "in-distribution", "use": "release"}},
    }


def run(**changed) -> RunRecord:
    result = CaseResult(CASE, Verdict.PASS, observed=0.1, evidence=evidence(**changed))
    return RunRecord("ci", 1, (result,))


def test_what_a_manifest_says_is_evidence_that_a_record_takes():
    document = Document("report.json", "JSON", RecordError)
    check_evidence(evidence(), document)
    check_evidence(evidence(loss=None, loss_before=None), document)
    strict = json.loads(json.dumps(evidence(), allow_nan=False))
    check_evidence(strict, document)
    schema = json.loads((Path(__file__).parents[3] / "docs" / "report.schema.json").read_text())
    said = json.dumps(schema)
    assert all(f'"{name}"' in said for name in evidence()["quantizers"]["vit/lsq:w4a8"]["trained"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sha256", 7),
        ("from", None),
        ("pairs", -1),
        ("steps", "300"),
        ("loss", "low"),
        ("recipe", []),
    ],
)
def test_evidence_of_a_wrong_type_is_refused_by_its_place(name, value):
    document = Document("report.json", "JSON", RecordError)
    with pytest.raises(RecordError, match=rf"vit/lsq:w4a8\.trained.*{name}"):
        check_evidence(evidence(**{name: value}), document)


def test_reports_and_cards_say_what_was_learnt_on_what_and_from_where():
    line = (
        "900 pairs of proxy, step 250 of 300, held-out loss 0.8 -> 0.5; folder trained/vit, "
        "state a1a1a1a1a1a1a1a1"
    )
    assert line in " ".join(summary(run()).split())
    card = card_markdown(release_card(run(), CASE.candidate))
    assert line.replace("->", "-&gt;") in card
    assert f"sha256 {'a1' * 32}" in card
    assert f"FP32 weights sha256 {'0f' * 32}" in card


def test_another_state_is_another_candidate_and_is_named():
    before, after = evidence(), evidence(sha256="b2" * 32)
    assert notes(before, after) == ("the trained state of vit/lsq:w4a8 changed",)
    assert notes(before, evidence(**{"from": "trained here, 9 s"})) == ()
    (found,) = looks([run(), run(sha256="b2" * 32), run(**{"from": "elsewhere"})])
    assert found.candidates == 2
    assert Candidate("vit", "lsq:w4a8") == CASE.candidate
