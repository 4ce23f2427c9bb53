"""Waivers: signed, limited in time, and never outliving their reasons."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from made_results import altered, made_result

from clipq.errors import SettingsError
from clipq.gating.waivers import load_waivers
from clipq.verdicts import Verdict

TODAY = datetime.date(2026, 6, 1)
FAIL = made_result("m", "rtn:w4", "id", "ece", Verdict.FAIL, "too much", loss=0.1, margin=0.02)
TEXT = """\
[[waiver]]
cases = ["m/rtn:w4/id.*"]
reason = "accepted for the pilot"
owner = "ada@example.org"
expires = {expires}
"""


def waivers(tmp_path, text=TEXT, expires="2026-06-01"):
    path = tmp_path / "waivers.toml"
    path.write_text(text.format(expires=expires))
    return load_waivers(path)


def test_a_waived_failure_names_owner_reason_and_expiry(tmp_path):
    found = waivers(tmp_path).apply(FAIL, today=TODAY)
    assert found.verdict is Verdict.WAIVED
    assert found.waived_by == "ada@example.org"
    assert found.reason == "waived by ada@example.org until 2026-06-01: accepted for the pilot"


def test_a_waiver_holds_on_its_last_day_and_not_after(tmp_path):
    found = waivers(tmp_path, expires="2026-05-31").apply(FAIL, today=TODAY)
    assert found.verdict is Verdict.FAIL
    assert found.reason.startswith("too much\nthe waiver of ada@example.org expired on 2026-05-31")


@pytest.mark.parametrize(
    "verdict", [v for v in Verdict if v not in ("fail", "suspect", "inconclusive")]
)
def test_only_measured_failures_can_be_waived(tmp_path, verdict):
    case = replace(FAIL, verdict=verdict)
    assert waivers(tmp_path).apply(case, today=TODAY) == case


def test_an_undecided_case_can_be_waived(tmp_path):
    undecided = replace(FAIL, verdict=Verdict.INCONCLUSIVE)
    assert waivers(tmp_path).apply(undecided, today=TODAY).verdict is Verdict.WAIVED


class TestProblems:
    def found(self, tmp_path, case, *, matrix=None, expires="2026-06-01"):
        read = waivers(tmp_path, expires=expires)
        cases = [read.apply(case, today=TODAY)]
        return read.problems(cases, today=TODAY, matrix=matrix or [case.id])

    def test_a_needed_waiver_has_none(self, tmp_path):
        assert self.found(tmp_path, FAIL) == ()

    def test_an_expired_one_is_named_even_where_nothing_fails(self, tmp_path):
        (problem,) = self.found(tmp_path, replace(FAIL, verdict=Verdict.PASS), expires="2026-01-01")
        assert "'m/rtn:w4/id.*' of ada@example.org expired on 2026-01-01" in problem

    def test_one_that_matches_no_case_is_named(self, tmp_path):
        (problem,) = self.found(tmp_path, altered(FAIL, model="other"))
        assert "matches no case" in problem

    def test_one_that_no_case_needs_is_named(self, tmp_path):
        (problem,) = self.found(tmp_path, replace(FAIL, verdict=Verdict.PASS))
        assert "is not needed" in problem

    def test_a_run_of_a_part_does_not_call_a_waiver_needless(self, tmp_path):
        passed = replace(FAIL, verdict=Verdict.PASS)
        matrix = [passed.id, "m/rtn:w4/id.nll"]
        assert self.found(tmp_path, passed, matrix=matrix) == ()

    def test_an_expected_failure_is_not_credited_to_a_waiver(self, tmp_path):
        expected = replace(FAIL, verdict=Verdict.WAIVED, reason="expected: naive rounding")
        (problem,) = self.found(tmp_path, expected)
        assert "is not needed, only expected failures fail" in problem

    def test_a_case_that_could_not_be_measured_makes_no_waiver_needless(self, tmp_path):
        assert self.found(tmp_path, replace(FAIL, verdict=Verdict.ERROR)) == ()


class TestSeveralWaiversOfOneCase:
    WIDE = """\
[[waiver]]
cases = ["*"]
reason = "the pilot"
owner = "{owner}"
expires = {expires}

"""
    CASES = (FAIL, altered(FAIL, metric="top1"))

    def read(self, tmp_path, *, owner="ben@example.org", expires="2026-06-01"):
        wide = self.WIDE.replace("{owner}", owner).replace("{expires}", expires)
        return waivers(tmp_path, wide + TEXT.replace("id.*", "id.ece"))

    @pytest.mark.parametrize("owner", ["ben@example.org", "ada@example.org"])
    def test_the_first_of_the_file_is_used_whoever_signed_it(self, tmp_path, owner):
        read = self.read(tmp_path, owner=owner)
        cases = [read.apply(case, today=TODAY) for case in self.CASES]
        assert {case.waived_by for case in cases} == {owner}
        wide, narrow = read.to_plain(cases)
        assert wide["waived"] == ["m/rtn:w4/id.ece", "m/rtn:w4/id.top1"]
        assert narrow["waived"] == []

    @pytest.mark.parametrize("owner", ["ben@example.org", "ada@example.org"])
    def test_one_whose_cases_are_covered_by_another_is_no_problem(self, tmp_path, owner):
        read = self.read(tmp_path, owner=owner)
        cases = [read.apply(case, today=TODAY) for case in self.CASES]
        assert read.problems(cases, today=TODAY, matrix=[case.id for case in cases]) == ()

    def test_one_that_expired_gives_way_to_the_next(self, tmp_path):
        read = self.read(tmp_path, expires="2026-05-31")
        ece, top1 = (read.apply(case, today=TODAY) for case in self.CASES)
        assert (ece.waived_by, top1.verdict) == ("ada@example.org", Verdict.FAIL)
        assert [entry["waived"] for entry in read.to_plain([ece, top1])] == [[], [ece.id]]
        (problem,) = read.problems([ece, top1], today=TODAY, matrix=[ece.id, top1.id])
        assert "'*' of ben@example.org expired" in problem

    def test_one_that_nothing_needs_is_still_named(self, tmp_path):
        read = self.read(tmp_path)
        cases = [replace(FAIL, verdict=Verdict.PASS), read.apply(self.CASES[1], today=TODAY)]
        (problem,) = read.problems(cases, today=TODAY, matrix=[case.id for case in cases])
        assert "'m/rtn:w4/id.ece' of ada@example.org is not needed" in problem


def test_a_record_says_which_cases_a_waiver_covers(tmp_path):
    read = waivers(tmp_path)
    cases = [read.apply(FAIL, today=TODAY), altered(FAIL, metric="nll", verdict=Verdict.PASS)]
    assert read.to_plain(cases) == (
        {
            "cases": ["m/rtn:w4/id.*"],
            "reason": "accepted for the pilot",
            "owner": "ada@example.org",
            "expires": "2026-06-01",
            "waived": ["m/rtn:w4/id.ece"],
        },
    )


def test_no_file_waives_nothing(tmp_path):
    assert load_waivers(tmp_path / "waivers.toml").entries == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('owner = "ada@example.org"\n', "", "no owner"),
        ('"accepted for the pilot"', '"  "', "reason = '  '"),
        ("expires = 2026-06-01\n", "", "no expires"),
        ("2026-06-01", '"soon"', "expires = 'soon'"),
        ("2026-06-01", "2026-06-01T10:00:00", "expires = datetime"),
        ('["m/rtn:w4/id.*"]', "[]", "cases = []"),
        ('["m/rtn:w4/id.*"]', '"m/*"', "cases = 'm/*'"),
        ("owner", "onwer", "did you mean 'owner'"),
        ("[[waiver]]", "[waiver]", "waiver must be a list, each a table"),
        ("[[waiver]]", "[[waivers]]", "unknown key 'waivers'"),
        ("[[waiver]]", "[[waiver", "cannot be read"),
    ],
)
def test_an_unsigned_or_malformed_waiver_is_refused_by_name(tmp_path, old, new, said):
    text = TEXT.format(expires="2026-06-01").replace(old, new)
    with pytest.raises(SettingsError) as caught:
        waivers(tmp_path, text.replace("{", "{{"))
    assert said in str(caught.value)
    assert "waivers.toml" in str(caught.value)
    assert "fix:" in str(caught.value)
