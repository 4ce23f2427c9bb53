"""Probes kept for releases: unseen otherwise, said plainly, and every look at them counted."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace

import pytest
from made_results import judged_by_errors, made_result

from clipq.cases import Candidate, Cell
from clipq.cli import main
from clipq.errors import SettingsError
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import Selection
from clipq.gating.matrix import Matrix
from clipq.gating.run import assemble, narrowing
from clipq.history.store import open_store
from clipq.records import RunRecord
from clipq.report.card import card_markdown, plain_statement, release_card
from clipq.report.looks import chance_of_luck, looks
from clipq.report.text import summary
from clipq.settings import load_settings
from clipq.verdicts import Verdict

SENTENCE = "2 cases of release-only probes (digits) were not measured under policy ci"


@pytest.fixture
def settings(project):
    path = project.settings()
    text = path.read_text()
    path.write_text(text.replace('role = "ood"', 'role = "ood"\nuse = "release"'))
    return load_settings(path)


def record_of(matrix, results=()):
    began = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    chosen = narrowing(matrix, planned=matrix.cases, results=results)
    return assemble(
        matrix, results, planned=len(matrix.cases), began=began, seconds=1.0, selection=chosen
    )


class TestThePlan:
    def test_no_other_policy_measures_it_and_the_run_is_whole_all_the_same(self, settings):
        matrix = Matrix(settings)
        assert {case.probe for case in matrix.cases} == {"id"}
        assert matrix.whole == {Candidate("vit-clean", name): 2 for name in ("rtn:w8", "rtn:w8a8")}
        record = record_of(matrix)
        assert record.withheld == {"digits": 2}
        unknown, said = record.warnings
        assert unknown.startswith("the commit is unknown")  # the project lies in no repository
        assert said == SENTENCE
        assert record.selection == {}
        assert not record.narrowed
        assert SENTENCE in summary(record)
        assert RunRecord.from_plain(record.to_plain()).withheld == {"digits": 2}

    def test_halves_of_characters_are_written_so_that_the_record_can_be_read(self, settings):
        (result,) = judged("rtn:w4").cases
        odd = replace(result, reason="a\udc80.png", evidence={"files": {"a\udc80": ["é\ud800"]}})
        record = record_of(Matrix(settings), [odd])
        assert record.cases[0].reason == r"a\udc80.png"
        assert record.evidence()["files"] == {r"a\udc80": [r"é\ud800"]}

    def test_a_release_measures_it(self, settings):
        matrix = Matrix(settings.under("release"))
        assert {case.probe for case in matrix.cases} == {"digits", "id"}
        assert record_of(matrix).withheld == {}

    def test_its_baseline_values_have_not_vanished(self, settings):
        assert not [case for case in Matrix(settings).cases if case.candidate.is_reference]

    def test_what_was_not_asked_for_was_not_withheld(self, settings):
        matrix = Matrix(settings, Selection(metrics=("top1",)))
        assert matrix.withheld == {}
        assert record_of(matrix).selection["of"] == 4  # of what this policy measures

    def test_asking_for_it_alone_says_which_policy_it_waits_for(self, settings):
        with pytest.raises(SettingsError, match=r"kept for releases.*digits.*'ci'\n.*--policy rel"):
            _ = Matrix(settings, Selection(probes=("digits",))).cases

    def test_its_images_are_not_even_opened(self, settings):
        gone = replace(settings.probe("digits"), source="webdataset:nowhere")
        evaluator = Evaluator(replace(settings, probes=(*settings.probes[:2], gone)))
        assert set(evaluator.inputs.probes) == {"id", "calibration"}
        with pytest.raises(SettingsError, match="'digits' has no images to look at"):
            evaluator.evaluate(Cell("vit-clean", "fp32", "digits"))


EVIDENCE = {
    "models": {"m": {"source": "local-dir:m", "weights_sha256": "ab" * 32}},
    "probes": {
        "id": {"role": "in-distribution", "samples": 100, "fingerprint": "cd" * 32},
        "final": {"role": "shift", "samples": 100, "fingerprint": "ef" * 32, "use": "release"},
    },
}


def judged(quantizer, *, code="12", probe="final", fingerprint="ef", observed=0.9):
    """Return a run of one candidate on one probe."""
    made = {f"m/{quantizer}": {"code_sha256": code * 32, "method_version": 1}}
    probes = {name: dict(seen) for name, seen in EVIDENCE["probes"].items()}
    probes["final"]["fingerprint"] = fingerprint * 32
    result = made_result(
        "m", quantizer, probe, "top1", Verdict.PASS, unit="fraction", direction="higher",
        baseline=0.9, observed=observed, loss=0.0, margin=0.02, low=-0.01, high=0.01,
        standard_error=0.005, evidence=EVIDENCE | {"quantizers": made, "probes": probes},
    )  # fmt: skip
    return RunRecord("release", 1, (result,), started="2026-01-01T00:00:00Z")


class TestLooks:
    def test_a_candidate_counts_once_and_again_when_its_code_changed(self):
        records = [judged("rtn:w4"), judged("rtn:w4", observed=0.8), judged("rtn:w8")]
        (found,) = looks(records)
        assert (found.probe, found.model, found.candidates, found.runs) == ("final", "m", 2, 3)
        (found,) = looks([*records, judged("rtn:w4", code="34")])
        assert (found.candidates, found.runs) == (3, 4)

    def test_the_same_run_twice_is_one_look(self):
        assert [one.runs for one in looks([judged("rtn:w4")] * 2)] == [1]

    def test_other_samples_begin_a_count_of_their_own(self):
        found = looks([judged("rtn:w4"), judged("rtn:w8", fingerprint="01")])
        assert [(one.fingerprint[:2], one.candidates) for one in found] == [("01", 1), ("ef", 1)]

    def test_what_every_run_sees_and_what_was_not_measured_is_no_look(self):
        assert looks([judged("rtn:w4", probe="id"), judged("rtn:w4", observed=None)]) == ()

    @pytest.mark.parametrize(("count", "expected"), [(1, 0.025), (20, 0.3973), (100, 0.9205)])
    def test_the_chance_that_one_of_many_passes_by_luck(self, count, expected):
        assert chance_of_luck(count, tail=0.025) == pytest.approx(expected, abs=5e-5)


class TestTheCard:
    def test_it_says_how_many_were_judged_and_how_likely_luck_is(self):
        card = release_card(judged("rtn:w4"), Candidate("m", "rtn:w4"), looks={"final": 20})
        line = "20 candidates have been judged on its samples: at the margin, up to 40% that one"
        assert line in card_markdown(card)

    def test_without_a_store_it_says_that_nobody_knows(self):
        card = release_card(judged("rtn:w4"), Candidate("m", "rtn:w4"))
        assert "no history store tells" in card_markdown(card)

    def test_a_run_that_did_not_see_the_probe_releases_nothing(self):
        unseen = replace(judged("rtn:w4", probe="id"), withheld={"final": 3}, policy="ci")
        card = release_card(unseen, Candidate("m", "rtn:w4"))
        assert not card.releasable
        assert "3 cases of release-only probes (final) were not measured" in plain_statement(card)


def test_the_commands_count_what_the_store_holds_and_the_run_at_hand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/history.db"
    with open_store(url, root=tmp_path) as store:
        for record in (judged("rtn:w4"), judged("rtn:w4", code="34"), judged("rtn:w8")):
            store.record(record)
        store.record(replace(judged("rtn:w6"), policy="ci"))
    assert main(["history", "looks", "--store", url]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if "final" in line]
    assert row[:5] == ["final", "m", "efefefefefef", "3", "3"]
    assert main(["history", "looks", "--store", url, "--json"]) == 0
    (plain,) = json.loads(capsys.readouterr().out)
    assert plain["chance_of_luck"] == pytest.approx(1 - 0.975**3)
    (new,) = judged_by_errors(judged("rtn:w5").cases)
    report = tmp_path / "report.json"
    report.write_text(json.dumps(RunRecord("release", 1, (new,)).to_plain()))
    assert main(["card", "m/rtn:w5", "--record", str(report), "--store", url]) == 0
    assert "4 candidates have been judged on its samples" in capsys.readouterr().out
