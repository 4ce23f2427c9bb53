"""Two records are equal, or the first differences are shown; nothing is tolerated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compare_records import FIELDS, compare, main, read_cases

NUMBERS = {
    "loss": 0.01, "margin": 0.05, "low": -0.01, "high": 0.03, "p_value": 1e-7,
    "standard_error": 0.01, "samples_needed": 900,
}  # fmt: skip
VALUES = {"verdict": "inconclusive", "baseline": 0.91, "observed": 0.9, "adjusted_p": 1e-5}


def flat(metric: str = "top1", **changed: object) -> dict[str, object]:
    """A case as older records hold it."""
    key = {"model": "vit", "quantizer": "rtn:w8", "probe": "id", "metric": metric}
    return {"case": f"vit/rtn:w8/id.{metric}", **key, **VALUES, **NUMBERS, **changed}


def nested(metric: str = "top1", **changed: object) -> dict[str, object]:
    """The same case with its estimate apart."""
    case = flat(metric, **changed)
    estimate = {name: case.pop(name) for name in NUMBERS}
    return {**case, "estimate": estimate}


@pytest.fixture
def record(tmp_path: Path):
    def write(name: str, *cases: object, schema: str = "any") -> str:
        path = tmp_path / name
        path.write_text(json.dumps({"schema": schema, "cases": cases}))
        return str(path)

    return write


def test_equal_records_are_equal_whatever_their_schema_and_order(record, capsys):
    before = record("a.json", flat("top1"), flat("ece"), schema="clipq/1")
    after = record("b.json", nested("ece"), nested("top1"), schema="clipq/9")
    assert main([before, after]) == 0
    counts = "2 cases compared: 2 equal, 0 differ; 0 only before, 0 only after"
    assert capsys.readouterr().out.strip() == counts


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in ("verdict", "samples")])
def test_every_number_is_compared_to_its_last_bit(field, record, capsys):
    old = (VALUES | NUMBERS)[field]
    new = old + 1 if isinstance(old, int) else old * (1 + 2**-52)
    assert new != old
    assert main([record("a.json", flat()), record("b.json", nested(**{field: new}))]) == 1
    shown = capsys.readouterr().out
    assert "1 cases compared: 0 equal, 1 differ" in shown
    assert f"vit/rtn:w8/id.top1: {field} {old!r} -> {new!r}" in shown


def test_verdicts_are_compared(record, capsys):
    before, after = record("a.json", flat()), record("b.json", flat(verdict="fail"))
    assert main([before, after]) == 1
    assert "verdict 'inconclusive' -> 'fail'" in capsys.readouterr().out


def test_a_number_that_is_gone_differs_and_one_that_never_was_does_not(record):
    before = record("a.json", flat(p_value=None))
    absent = nested()
    del absent["estimate"]["p_value"]
    assert main([before, record("b.json", absent)]) == 0
    assert main([record("c.json", flat()), record("d.json", absent)]) == 1


def test_a_case_without_an_estimate_is_read(record):
    point = flat(**dict.fromkeys(NUMBERS))
    without = {**point, "estimate": None}
    assert main([record("a.json", point), record("b.json", without)]) == 0


def test_a_case_on_one_side_only_is_a_difference(record, capsys):
    before = record("a.json", flat("top1"), flat("ece"))
    after = record("b.json", flat("top1"), flat("nll"))
    assert main([before, after]) == 1
    shown = capsys.readouterr().out
    assert "1 cases compared: 1 equal, 0 differ; 1 only before, 1 only after" in shown
    assert "only before: vit/rtn:w8/id.ece" in shown
    assert "only after: vit/rtn:w8/id.nll" in shown


def test_renamed_metrics_are_compared_under_their_new_names(record):
    before = record("a.json", flat("ts-ece"), flat("kl"))
    after = record("b.json", nested("ece-ts"), nested("kl-to-fp32"))
    renamed = ["--renamed", "ts-ece=ece-ts", "--renamed", "kl=kl-to-fp32"]
    assert main([before, after, *renamed]) == 0
    assert main([before, after, *renamed[:2]]) == 1


def test_fields_narrow_what_is_compared(record):
    before, after = record("a.json", flat()), record("b.json", flat(loss=0.5))
    assert main([before, after, "--fields", "verdict", "observed"]) == 0
    assert main([before, after, "--fields", "loss"]) == 1


def test_only_the_first_differences_are_shown(record, capsys):
    before = record("a.json", *(flat(f"m{i}") for i in range(30)))
    after = record("b.json", *(flat(f"m{i}", loss=1.0) for i in range(30)))
    assert main([before, after, "--first", "3"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 5
    assert shown[-1] == "and 27 more"


def test_a_case_is_known_by_its_id_where_it_holds_no_names(record):
    bare = nested()
    for name in ("model", "quantizer", "probe", "metric"):
        del bare[name]
    assert main([record("a.json", flat()), record("b.json", bare)]) == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("nothing", "is no JSON"),
        ("[]", "is no run record"),
        ('{"cases": [{}]}', "case 0 has neither"),
        (json.dumps({"cases": [flat(), flat()]}), "holds vit/rtn:w8/id.top1 twice"),
    ],
)
def test_what_is_no_record_is_refused(content, reason, record, tmp_path, capsys):
    (tmp_path / "broken.json").write_text(content)
    with pytest.raises(SystemExit) as end:
        main([record("a.json", flat()), str(tmp_path / "broken.json")])
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("renamed", "reason"),
    [("top1", "is not OLD=NEW"), ("top1=top-one", "has no metric 'top-one'")],
)
def test_a_renaming_that_names_nothing_is_refused(renamed, reason, record, capsys):
    with pytest.raises(SystemExit) as end:
        main([record("a.json", flat()), record("b.json", flat()), "--renamed", renamed])
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


def test_two_missing_numbers_of_a_probe_are_the_same():
    nan = float("nan")
    key = ("vit", "rtn:w8", "id", "top1")
    assert compare({key: {"loss": nan}}, {key: {"loss": nan}}).equal
    assert not compare({key: {"loss": nan}}, {key: {"loss": 0.0}}).equal


def test_a_count_is_equal_to_the_same_number_written_as_a_fraction(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"cases": [flat(samples_needed=900.0)]}))
    (key,) = read_cases(path)
    assert compare(read_cases(path), {key: {**flat()}}).equal
