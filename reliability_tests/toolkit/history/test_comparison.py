"""Comparing runs: what counts as worse, how sure that is, and what cannot be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_results import altered, judged_by_errors, made_result
from scipy.stats import norm

from clipq.cli import main
from clipq.evaluation.tables import as_table, table_digest, write_table
from clipq.history.comparison import Outcome, compare
from clipq.history.pairs import PairedEstimator
from clipq.metrics import Predictions
from clipq.records import CaseResult, RunRecord
from clipq.report.comparison_report import comparison_markdown, comparison_text
from clipq.settings import StatisticsSettings
from clipq.verdicts import Verdict

N = 1000

STATISTICS = {"alpha": 0.05, "replicates": 500, "seed": 1, "correction": "holm"}


def case(metric: str = "ece", **values: object) -> CaseResult:
    known = {
        "unit": "fraction",
        "direction": "lower",
        "metric_version": 1,
        "baseline": 0.05,
        "observed": 0.05,
        "margin": 0.02,
        "standard_error": 0.002,
        "samples": N,
    }
    identity = (values.pop("model", "m"), values.pop("quantizer", "rtn:w8"), "id", metric)
    verdict = values.pop("verdict", Verdict.PASS)
    return made_result(*identity, verdict, **known | values)


def run(*cases: CaseResult, evidence: dict | None = None, policy: str = "ci") -> RunRecord:
    first = replace(cases[0], evidence=evidence or {})
    return RunRecord(policy, len(cases), (first, *cases[1:]), statistics=STATISTICS)


def only(before: CaseResult, after: CaseResult, **runs: object):
    (found,) = compare(run(before, **runs), run(after, **runs)).differences
    return found


def test_an_artifact_that_was_swapped_or_is_run_otherwise_is_named():
    entry = {
        "runtime": "onnxruntime",
        "versions": {"onnxruntime": "1.31.0"},
        "files": {"image": {"deploy/image.onnx": "ab" * 32}},
        "batch": 64,
        "cpu": ["avx2", "avx512_vnni"],
    }
    renamed = entry | {"files": {"image": {"release/image.onnx": "ab" * 32}}}
    swapped = entry | {"files": {"image": {"deploy/image.onnx": "cd" * 32}}}
    upgraded = entry | {"versions": {"onnxruntime": "1.32.0"}, "batch": 1, "cpu": ["avx2"]}

    def notes(after):
        kinds = ({"artifacts": {"m/ort": made, "m/other": entry}} for made in (entry, after))
        before, now = (run(case(quantizer="ort"), evidence=evidence) for evidence in kinds)
        return compare(before, now).notes

    assert notes(renamed) == ()
    assert notes(swapped) == ("artifact changed: the files of m/ort",)
    assert notes(upgraded) == (
        "onnxruntime was 1.31.0, now 1.32.0 (m/ort)",
        "batch was 64, now 1 (m/ort)",
        "its cpu changed (m/ort)",
    )


class TestWithoutPredictions:
    def test_both_standard_errors_bound_the_difference(self):
        found = only(case(observed=0.05), case(observed=0.06))
        assert found.estimate.loss == pytest.approx(0.01)
        assert found.estimate.high - found.estimate.loss == pytest.approx(norm.ppf(0.975) * 0.004)
        assert found.interval == "bounded"

    @pytest.mark.parametrize(
        ("observed", "outcome"),
        [
            (0.10, Outcome.REGRESSED),  # +0.05 of a margin of 0.02, error 0.004
            (0.062, Outcome.WORSE),  # +0.012 +- 0.008: worse, and less than the margin
            (0.07, Outcome.INCONCLUSIVE),  # at the margin
            (0.052, Outcome.EQUIVALENT),
            (0.03, Outcome.BETTER),
        ],
    )
    def test_the_interval_decides(self, observed, outcome):
        assert only(case(), case(observed=observed)).outcome is outcome

    def test_direction_turns_the_loss(self):
        up = only(case("top1", direction="higher"), case("top1", direction="higher", observed=0.15))
        assert up.estimate.loss == pytest.approx(-0.10)
        assert up.outcome is Outcome.BETTER
        gap = {"direction": "zero", "observed": -0.01}
        moved = only(
            case("confidence-gap", **gap), case("confidence-gap", **gap | {"observed": 0.09})
        )
        assert moved.estimate.loss == pytest.approx(0.08)

    def test_what_has_no_standard_error_is_compared_as_it_stands(self):
        point = {"standard_error": None, "direction": "higher", "unit": "dB", "margin": 1.0}
        fell = only(case("sqnr", **point, observed=30.0), case("sqnr", **point, observed=28.0))
        same = only(case("sqnr", **point, observed=30.0), case("sqnr", **point, observed=30.0))
        assert (fell.outcome, fell.interval) == (Outcome.REGRESSED, "point")
        assert same.outcome is Outcome.IDENTICAL

    def test_nothing_bounds_a_difference_where_fp32_changed(self):
        """An error of the loss says nothing of how far FP32 itself moved."""
        evidence = [{"baselines": {"m": {"columns_sha256": digest}}} for digest in "ab"]
        first, second = (run(case(), evidence=known) for known in evidence)
        (found,) = compare(first, second).differences
        assert found.outcome is Outcome.INCOMPARABLE
        assert "FP32 of m changed" in found.reason
        assert compare(first, first).differences[0].interval == "bounded"
        moved = only(case(), case(baseline=0.06))
        assert moved.outcome is Outcome.INCOMPARABLE
        failed = only(case(), case(baseline=0.06, verdict=Verdict.FAIL))
        assert failed.outcome is Outcome.REGRESSED

    def test_a_limit_is_no_margin(self):
        """A value that keeps its limit of 20 dB fell all the same, by any amount."""
        limit = {"standard_error": None, "direction": "higher", "unit": "dB", "baseline": None}
        high = case("sqnr", **limit, margin=20.0, observed=45.0)
        fell = only(high, replace(high, observed=20.5))
        assert (fell.outcome, fell.estimate.margin, fell.severity) == (Outcome.WORSE, None, 0.0)
        below = only(high, replace(high, observed=19.0, verdict=Verdict.FAIL))
        assert below.outcome is Outcome.REGRESSED

    def test_a_demanded_improvement_is_no_regression_where_nothing_changed(self):
        demanded = case(margin=-0.02)
        assert only(demanded, demanded).outcome is Outcome.EQUIVALENT
        assert only(demanded, replace(demanded, observed=0.10)).outcome is Outcome.REGRESSED
        point = altered(demanded, standard_error=None)
        assert only(point, replace(point, observed=0.051)).outcome is Outcome.WORSE

    def test_many_cases_are_corrected_for(self):
        """One difference of 2.3 errors beyond the margin regresses alone, among 200 it does not."""
        borderline = case(observed=0.05 + 0.02 + 2.3 * 0.004)
        assert only(case(), borderline).outcome is Outcome.REGRESSED
        others = [case(quantizer=f"q{i}") for i in range(200)]
        found = compare(run(case(), *others), run(borderline, *others)).differences
        assert found[0].outcome is Outcome.INCONCLUSIVE


class TestWhatIsMissing:
    def test_a_vanished_case_is_a_regression_unless_only_common_ones_count(self):
        found = compare(run(case(), case("nll")), run(case()))
        assert found.counts == {"removed": 1, "equivalent": 1}
        assert [d.case for d in found.regressions()] == ["m/rtn:w8/id.nll"]
        assert found.regressions(common=True) == ()

    def test_an_added_case_is_no_regression(self):
        found = compare(run(case()), run(case(), case("nll")))
        assert found.counts == {"equivalent": 1, "added": 1}
        assert found.regressions() == ()

    def test_a_value_that_became_an_error_regressed(self):
        broken = case(observed=None, verdict=Verdict.ERROR)
        assert only(case(), broken).outcome is Outcome.REGRESSED
        assert only(broken, broken).outcome is Outcome.INCOMPARABLE

    def test_an_infinite_value_of_equal_predictions_is_identical(self):
        infinite = case("sqnr", observed=None, unit="dB", direction="higher")
        evidence = {
            "predictions": {"m/rtn:w8/id": {"sha256": "a", "key": "a"}},
            "probes": {"id": {"role": "in-distribution"}},
        }
        assert only(infinite, infinite, evidence=evidence).outcome is Outcome.IDENTICAL
        assert only(infinite, infinite).outcome is Outcome.INCOMPARABLE

    def test_another_metric_version_and_other_samples_are_incomparable(self):
        assert only(case(), case(metric_version=2)).outcome is Outcome.INCOMPARABLE
        first = run(case(), evidence={"probes": {"id": {"fingerprint": "a" * 64}}})
        second = run(case(), evidence={"probes": {"id": {"fingerprint": "b" * 64}}})
        found = compare(first, second)
        assert found.compared == 0
        assert "has other samples" in found.differences[0].reason

    def test_other_samples_in_distribution_make_every_case_incomparable(self):
        outside = altered(case("auroc-mcm"), probe="textures")
        first, second = (
            run(
                outside,
                evidence={
                    "probes": {
                        "id": {"role": "in-distribution", "fingerprint": digest * 64},
                        "textures": {"role": "ood", "fingerprint": "c" * 64},
                    }
                },
            )
            for digest in "ab"
        )
        found = compare(first, second)
        assert found.compared == 0
        assert "probe 'id' has other samples" in found.differences[0].reason

    def test_a_newly_blocking_verdict_regressed_however_small_the_step(self):
        for verdict in (Verdict.FAIL, Verdict.SUSPECT):
            found = only(case(), case(observed=0.0505, verdict=verdict))
            assert found.outcome is Outcome.REGRESSED
            assert f"the gate says {verdict.value}, before it said pass" in found.reason


def tables(rng: np.random.Generator, flipped: int) -> tuple[Predictions, Predictions]:
    confidence = rng.uniform(0.4, 1.0, N)
    correct = (rng.uniform(size=N) < confidence).astype(np.int64)
    ids = np.array([f"{i:05d}" for i in range(N)])
    other = correct.copy()
    other[np.flatnonzero(correct)[:flipped]] = 0
    found = [
        {"id": ids, "confidence": confidence, "correct": right, "rank": 1 - right}
        for right in (correct, other)
    ]
    return Predictions(found[0], {}), Predictions(found[1], {})


def stored(table: Predictions, folder: Path) -> tuple[bytes, str]:
    columns, metadata = as_table(table, {})
    path = folder / "t.safetensors"
    write_table(path, columns, metadata)
    return path.read_bytes(), table_digest(columns)


class TestWithPredictions:
    def compared(self, folder: Path, flipped: int, *, processes: int = 1):
        first, second = tables(np.random.default_rng(3), flipped)
        contents = [stored(table, folder) for table in (first, second)]
        runs = [
            run(
                case("top1", direction="higher", observed=float(table.column("correct").mean())),
                evidence={
                    "predictions": {"m/rtn:w8/id": {"sha256": digest, "key": digest}},
                    "probes": {"id": {"role": "in-distribution", "fingerprint": "f"}},
                },
            )
            for table, (_, digest) in zip((first, second), contents, strict=True)
        ]
        estimator = PairedEstimator(
            lambda _: contents[0][0],
            lambda _: contents[1][0],
            in_distribution="id",
            statistics=StatisticsSettings(replicates=200),
            processes=processes,
        )
        (found,) = compare(*runs, paired=estimator).differences
        return found

    def test_the_same_samples_give_a_narrower_interval_than_two_errors(self, tmp_path):
        found = self.compared(tmp_path, flipped=10)
        assert found.interval == "paired"
        assert found.estimate.loss == pytest.approx(0.01)
        # Ten of a thousand changed, all to the worse: McNemar's error is about sqrt(10) / 1000.
        assert 0 < found.estimate.high - found.estimate.low < 4.5 * np.sqrt(10) / N
        assert found.outcome is Outcome.WORSE

    def test_a_loss_beyond_the_margin_regressed(self, tmp_path):
        assert self.compared(tmp_path, flipped=80).outcome is Outcome.REGRESSED

    def test_equal_predictions_are_identical(self, tmp_path):
        found = self.compared(tmp_path, flipped=0)
        assert (found.outcome, found.interval, found.estimate.low) == (
            Outcome.IDENTICAL,
            "exact",
            0.0,
        )

    def test_processes_do_not_move_a_number(self, tmp_path, monkeypatch):
        monkeypatch.setattr("clipq.history.pairs._WORTH_A_PROCESS", 0)
        assert self.compared(tmp_path, 30, processes=2) == self.compared(tmp_path, 30)

    def test_an_altered_table_is_left_out_by_name(self, tmp_path):
        first, _ = tables(np.random.default_rng(3), 0)
        content, _ = stored(first, tmp_path)
        damaged = content[:-1] + bytes([content[-1] ^ 1])
        estimator = PairedEstimator(
            lambda _: content,
            lambda _: damaged,
            in_distribution="id",
            statistics=StatisticsSettings(replicates=200),
        )
        assert estimator([(case("top1"), case("top1"))]) == [None]
        assert "was altered" in estimator.skipped["m/rtn:w8/id"]


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name, record in (
            ("good.json", run(case(), case("nll"))),
            ("bad.json", run(case(observed=0.2), case("nll"))),
            ("other.json", run(case(model="n"))),
        ):
            record = replace(record, cases=judged_by_errors(record.cases))
            (tmp_path / name).write_text(json.dumps(record.to_plain()))
        return tmp_path

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (("good.json", "good.json"), 0, "NO REGRESSION: 2 cases compared"),
            (("good.json", "bad.json"), 1, "1 REGRESSIONS: 2 cases compared"),
            (("bad.json", "good.json"), 0, "better"),
            (("good.json", "other.json"), 2, "NOTHING WAS COMPARABLE"),
            (("good.json", "bad.json", "--case", "*.nll"), 0, "1 cases compared"),
        ],
    )
    def test_exit_codes_say_what_happened(self, folder, capsys, arguments, code, said):
        assert main(["compare", *arguments]) == code
        assert said in capsys.readouterr().out

    def test_json_holds_every_difference(self, folder, capsys):
        assert main(["compare", "good.json", "bad.json", "--json", "d.json"]) == 1
        plain = json.loads((folder / "d.json").read_text())
        assert plain["schema"] == "clipq-comparison/2"
        assert {d["outcome"] for d in plain["differences"]} == {"regressed", "equivalent"}

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("gone.json", "good.json"), "gone.json cannot be read as JSON"),
            (("good.json", "bad.json", "--case", "x*"), "names no case"),
            (("good.json", "bad.json", "--replicates", "5"), "--replicates 5"),
        ],
    )
    def test_mistakes_are_one_message(self, folder, capsys, arguments, said):
        assert main(["compare", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "fix:" in error

    def test_a_tampered_record_is_named(self, folder, capsys):
        text = (folder / "bad.json").read_text().replace("0.2", "0.05")
        (folder / "bad.json").write_text(text)
        assert main(["compare", "good.json", "bad.json"]) == 2
        assert "bad.json was altered" in capsys.readouterr().err


@pytest.mark.parametrize("render", [comparison_text, comparison_markdown])
def test_reports_name_what_regressed_and_fold_what_did_not(render):
    found = compare(run(case(), case("nll")), run(case(observed=0.2), case("nll")))
    plain = found.to_plain() | {"compared": 2, "regressions": 1}
    text = render(plain)
    assert "m/rtn:w8/id.ece" in text
    assert "m/rtn:w8/id.nll" not in text
    assert "m/rtn:w8/id.nll" in render(plain, everything=True)


@pytest.mark.parametrize("render", [comparison_text, comparison_markdown])
def test_reports_name_a_case_that_became_suspect(render):
    found = compare(run(case()), run(case(observed=0.0505, verdict=Verdict.SUSPECT)))
    text = render(found.to_plain() | {"compared": 1, "regressions": 1})
    assert "pass, suspect" in text
    assert "newly blocking" in text


def test_markdown_stays_inert_with_hostile_names():
    name = "<img src=x onerror=alert(1)>|`*"
    found = compare(run(case(model=name)), run(case(model=name, observed=0.3)))
    text = comparison_markdown(found.to_plain() | {"compared": 1, "regressions": 1})
    assert "<img" not in text
