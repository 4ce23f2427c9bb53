"""Successive halving by seeds: which units are dropped, and that it is never done in silence."""

from __future__ import annotations

import json
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_parts import result

from clipq.cli import main
from clipq.errors import SweepError
from clipq.estimate import Estimate
from clipq.sweep.coordinator import run_sweep
from clipq.sweep.executor import Outcome
from clipq.sweep.part_store import PartStore
from clipq.sweep.thrift import Thrift, dropped, rungs
from clipq.sweep.thrifty_run import losses_of, read_dropped, run_thriftily
from clipq.sweep.units import CalibrationDraw, Unit

THRIFT = Thrift("ece", "id", keep=0.5)


def seeded(*formats, seeds=3, model="vit"):
    return [Unit(model, f"quarot:{each},seed={at}") for each in formats for at in range(seeds)]


def losses(units, *values):
    return {unit.id: value for unit, value in zip(units, values, strict=True)}


def names(found):
    return [one.name for one in found]


# -- decisions -----------------------------------------------------------------------------------


def test_half_go_on_after_the_first_seed_and_half_of_those_after_the_second():
    units = seeded("w8", "w6", "w4", "w2")
    known = losses(units, 0.1, 0.5, 9, 0.2, 0.2, 9, 0.3, 0, 9, 0.4, 0, 9)
    first = dropped(units, known, seeds=1, keep=0.5)
    assert names(first) == [f"vit/quarot:{w},seed={at}" for w in ("w4", "w2") for at in (1, 2)]
    assert {(one.loss, one.cut, one.seeds) for one in first} == {(0.3, 0.2, 1), (0.4, 0.2, 1)}
    # w8 came to a mean of 0.3 by its second seed, w6 to 0.2
    both = dropped(units, known, seeds=2, keep=0.5)
    assert both[:4] == first
    assert names(both[4:]) == ["vit/quarot:w8,seed=2"]
    assert both[4].loss == pytest.approx(0.3)
    assert (both[4].cut, both[4].seeds) == (0.2, 2)


def test_what_draws_nothing_comes_first_and_is_not_ranked():
    units = [Unit("vit", "rtn:w8"), *seeded("w8", "w4", seeds=2)]
    assert [str(unit) for unit in rungs(units)[0]] == [
        "vit/rtn:w8",
        "vit/quarot:w8,seed=0",
        "vit/quarot:w4,seed=0",
    ]
    known = losses(units, 0.0, 0.2, 9, 0.1, 9)
    assert names(dropped(units, known, seeds=1, keep=0.5)) == ["vit/quarot:w8,seed=1"]


def test_draws_of_calibration_data_are_seeds_too_and_numbers_of_samples_are_not():
    units = [Unit("vit", "awq:w4", CalibrationDraw(n, at)) for n in (64, 128) for at in (0, 1)]
    known = losses(units, 0.2, 9, 0.1, 9)
    assert names(dropped(units, known, seeds=1, keep=0.5)) == [str(units[1])]


def test_models_are_ranked_apart():
    units = seeded("w8", "w4", seeds=2) + seeded("w8", "w4", seeds=2, model="resnet")
    known = losses(units, 0.1, 9, 0.2, 9, 5.0, 9, 4.0, 9)
    expected = ["vit/quarot:w4,seed=1", "resnet/quarot:w8,seed=1"]
    assert names(dropped(units, known, seeds=1, keep=0.5)) == expected


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_configuration_without_a_loss_is_kept(value):
    units = seeded("w8", "w6", "w4", seeds=2)
    known = losses(units, value, 9, 0.1, 9, 0.2, 9)
    if value is None:
        del known[units[0].id]
    assert names(dropped(units, known, seeds=1, keep=0.5)) == ["vit/quarot:w4,seed=1"]


def test_shares_are_rounded_up_and_not_by_a_float_that_is_a_little_more():
    units = seeded(*(f"w8g{16 + at}" for at in range(100)), seeds=2)
    known = {unit.id: float(at) for at, unit in enumerate(units)}
    assert len(dropped(units, known, seeds=1, keep=0.07)) == 93
    assert len(dropped(units, known, seeds=1, keep=0.001)) == 99


@st.composite
def measured(draw):
    count, seeds = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    units = seeded(*(f"w8g{16 + at}" for at in range(count)), seeds=seeds)
    value = st.floats(-1, 1) | st.just(math.nan)
    return units, {unit.id: draw(value) for unit in units}, draw(st.integers(0, seeds))


@given(measured())
def test_all_that_is_kept_is_no_thrift(case):
    units, known, seeds = case
    assert dropped(units, known, seeds=seeds, keep=1.0) == []


@given(measured(), st.floats(0.01, 1), st.integers(0, 9))
def test_the_best_goes_on_no_early_unit_is_dropped_and_order_is_no_matter(case, keep, seed):
    units, known, seeds = case
    found = dropped(units, known, seeds=seeds, keep=keep)
    gone = {one.unit_id for one in found}
    early = {unit.id for rung in rungs(units)[: min(1, seeds)] for unit in rung}
    assert not gone & early
    assert all(one.loss >= one.cut for one in found)
    if seeds and len(rungs(units)) > 1:
        whole = [one for one in rungs(units)[0] if not math.isnan(known[one.id])]
        ranked = dropped(units, known, seeds=1, keep=keep)
        best = min(whole, key=lambda one: known[one.id], default=None)
        assert best is None or all(one.loss >= known[best.id] for one in ranked)
        assert len({one.name.partition(",")[0] for one in ranked}) < max(1, len(whole)) or not whole
    own = {}
    for unit in units:
        own.setdefault(unit.quantizer.partition(",")[0], []).append(unit)
    groups = list(own.values())
    Random(seed).shuffle(groups)
    other = dropped([unit for group in groups for unit in group], known, seeds=seeds, keep=keep)
    assert {one.unit_id for one in other} == gone


# -- a run ---------------------------------------------------------------------------------------


class Inline:
    """An engine without processes; the last of what it is given may come first."""

    def __init__(self, *, backwards=False):
        self.backwards = backwards

    def run(self, units, work, *, time_limit):
        for unit in reversed(list(units)) if self.backwards else units:
            work(unit)
            yield Outcome(unit)


def loss_of(unit):
    return int(unit.quantizer.partition(":w")[2][0]) / 10


class Swept:
    """Units of five configurations, w2 the best, run under thrift in a folder."""

    def __init__(self, folder):
        self.folder, self.store = folder, PartStore(folder)
        self.units = [*seeded("w8", "w6", "w4", "w2"), Unit("vit", "rtn:w8")]
        self.tried = []

    def work(self, unit):
        self.tried.append(str(unit))
        self.store.commit(unit, [result(unit, estimate=Estimate(loss=loss_of(unit)))])

    def run(self, *, budgets=(), **engine):
        left = list(budgets)

        def some(units):
            return run_sweep(
                units,
                self.work,
                store=self.store,
                executor=Inline(**engine),
                folder=self.folder,
                identity={},
                time_limit=math.inf,
                budget_seconds=left.pop(0) if left else None,
            )

        return run_thriftily(
            self.units,
            THRIFT,
            folder=self.folder,
            losses=lambda: losses_of(self.store, THRIFT),
            run=some,
        )


def test_a_run_does_what_is_kept_and_says_what_is_not(tmp_path):
    sweep = Swept(tmp_path)
    summary = sweep.run()
    assert (summary.done, summary.left, summary.exit_code) == (8, 0, 0)
    assert sweep.tried[5:] == [f"vit/quarot:{w},seed={at}" for w, at in
                               (("w4", 1), ("w2", 1), ("w2", 2))]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "thrift.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    assert lines[0] == {
        "unit_id": sweep.units[4].id,
        "name": "vit/quarot:w6,seed=1",
        "loss": 0.6,
        "cut": 0.4,
        "seeds": 1,
    }


def test_decisions_are_the_same_when_gone_on_with_and_in_another_order(tmp_path):
    whole, resumed = Swept(tmp_path / "whole"), Swept(tmp_path / "resumed")
    whole.run()
    ended = resumed.run(budgets=(None, 0.0))
    assert (ended.ended_by, ended.done, ended.left, ended.exit_code) == ("budget", 5, 4, 1)
    again = resumed.run(backwards=True)
    assert (again.found, again.done, again.exit_code) == (5, 3, 0)
    assert read_dropped(whole.folder) == read_dropped(resumed.folder)
    assert whole.store.ids() == resumed.store.ids()


def test_a_damaged_record_of_what_was_dropped_is_said(tmp_path):
    (tmp_path / "thrift.jsonl").write_text('{"unit": 3}\n')
    with pytest.raises(SweepError, match=r"thrift\.jsonl does not say what was dropped"):
        read_dropped(tmp_path)


# -- the command ---------------------------------------------------------------------------------

PLAN = """
schema = "clipq-sweep/1"
settings = "clipq.toml"
probes = ["id"]
metrics = ["top1", "ece"]
[thrift]
{thrift}
[[sweep]]
models = ["vit-clean"]
methods = ["quarot"]
formats = ["w8", "w4"]
seeds = 2
"""


@pytest.mark.parametrize(
    ("thrift", "said"),
    [
        ('metric = "ecee"\nprobe = "id"', "no metric 'ecee' on 'id'"),
        ('metric = "ece"\nprobe = "idd"', "no probe 'idd'"),
        ('metric = "ece"\nprobe = "id"\nkeep = 0', "a number above 0 and at most 1"),
        ('metric = "ece"\nprobe = "id"\nkeep = 1.5', "a number above 0 and at most 1"),
        ('metric = "ece"', "probe"),
        ('metric = "ece"\nprobe = "id"\nkept = 0.5', "kept"),
    ],
)
def test_a_table_that_makes_no_sense_is_one_message(project, capsys, thrift, said):
    project.settings()
    path = project.root / "plan.toml"
    path.write_text(PLAN.format(thrift=thrift))
    assert main(["sweep", "plan", str(path)]) == 2
    assert said in capsys.readouterr().err


class Contexts:
    """What else decides a result, without looking."""

    def __init__(self, settings, **_):
        pass

    def __call__(self, model, method):
        return "0f"

    def identity(self, pairs, *, plan):
        return {"plan": plan}


class CommittingWork:
    """Stores made-up losses in the place of measuring."""

    def __init__(self, settings, store, **_):
        self.store = PartStore(store)

    def __call__(self, unit):
        self.store.commit(unit, [result(unit, estimate=Estimate(loss=loss_of(unit)))])


def test_the_commands_say_what_is_dropped(project, capsys, monkeypatch):
    project.settings()
    path = project.root / "plan.toml"
    path.write_text(PLAN.format(thrift='metric = "ece"\nprobe = "id"'))
    monkeypatch.setattr("clipq.sweep.unit_context.UnitContexts", Contexts)
    monkeypatch.setattr("clipq.sweep.measuring.check_baselines", lambda *_: None)
    monkeypatch.setattr("clipq.sweep.measuring.UnitWork", CommittingWork)
    monkeypatch.setattr("clipq.sweep.local_engine.LocalExecutor", lambda *_, **__: Inline())

    assert main(["sweep", "plan", str(path)]) == 0
    assert "thrift: a further seed for the best 50% by ece on id" in capsys.readouterr().out
    for done in ("3 units done in 3 attempts, 0 there", "0 units done in 0 attempts, 3 there"):
        code = main(["sweep", "run", str(path), "--quiet"])
        said = "".join(capsys.readouterr())
        assert (code, done in said) == (0, True), said
        assert "1 units dropped, a further seed for the best 50% by ece on id" in said
    assert main(["sweep", "status", str(path)]) == 0
    assert "dropped by thrift, of what is left: 1" in capsys.readouterr().out
