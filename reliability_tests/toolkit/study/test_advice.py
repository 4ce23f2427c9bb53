"""Advice against what can be computed by hand: normal and Student's t, exhaustive fronts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, stdtr

from clipq.study.advice import Criterion, advice_plain
from clipq.study.effects import Effect
from clipq.study.fronts import Losses, front, joint_front

DRAWS = 20_000
NEAR = 5 * 0.5 / DRAWS**0.5
"""Five standard errors of a share."""
TOP1, ECE = Criterion("top1", "top1", 1), Criterion("ece", "ece", -1)


def test_whether_a_loss_lies_within_a_margin_is_normal_and_over_seeds_also_student():
    effects = [Effect(0.01, 0.004), Effect(0.01, 0.0, drawn=0.004**2, seeds=3)]
    losses = Losses([[one] for one in effects], seed=1)
    within = losses.share(lambda drawn: (drawn <= 0.015).all(axis=2), DRAWS)
    assert within[0] == pytest.approx(ndtr(1.25), abs=NEAR)
    assert within[1] == pytest.approx(stdtr(2, 1.25), abs=NEAR)


def test_of_two_at_one_cost_the_front_is_the_probability_that_one_loses_less():
    losses = Losses([[Effect(0.010, 0.003)], [Effect(0.014, 0.004)]], seed=2)
    costs = np.array([4.0, 4.0])
    on = losses.share(lambda drawn: front(costs, drawn[:, :, 0]), DRAWS)
    assert on[0] == pytest.approx(ndtr(0.004 / 0.005), abs=NEAR)
    assert sum(on) == pytest.approx(1.0, abs=1e-3)
    cheaper = losses.share(lambda drawn: front(np.array([2.0, 4.0]), drawn[:, :, 0]), DRAWS)
    assert cheaper[0] == 1.0  # nothing is as cheap
    assert cheaper[1] == pytest.approx(on[1], abs=1e-3)


def test_equal_numbers_are_of_the_same_predictions_and_never_beat_each_other():
    same = [[Effect(0.01, 0.005)], [Effect(0.01, 0.005)]]
    on = Losses(same).share(lambda drawn: front(np.array([4.0, 4.0]), drawn[:, :, 0]), 200)
    assert on == [1.0, 1.0]


def test_nothing_is_asked_of_what_has_no_margin_and_that_is_no_lack():
    values = {
        "top1": {"change": -0.001, "sampling": 0.001, "seeds": 1, "margin": 0.01},
        "ece": {"change": 0.3, "sampling": 0.001, "seeds": 1, "margin": None},
    }
    own = {"model": "vit", "method": "rtn", "costs": {"bytes": 8.0}, "values": values}
    found = advice_plain([own], [TOP1, ECE])["models"]["vit"]
    assert (found["criteria"], list(found["margins"])) == (["top1", "ece"], ["top1"])
    (row,) = found["configurations"]
    assert (row["answer"], row["lacks"]) == ("surely", [])
    found = advice_plain([own], [TOP1, ECE], margins={"ece": 0.02})["models"]["vit"]
    assert found["configurations"][0]["answer"] == "surely not"


@pytest.mark.parametrize("seed", range(5))
def test_fronts_are_what_comparing_all_pairs_gives(seed):
    rng = np.random.default_rng(seed)
    costs = rng.integers(2, 6, 9).astype(float)
    losses = rng.integers(0, 4, (30, 9, 3)).astype(float)  # many are equal

    def beaten(draw, place, columns):
        own = np.array([costs[place], *losses[draw, place, columns]])
        others = [np.array([costs[n], *losses[draw, n, columns]]) for n in range(9)]
        return any((other <= own).all() and (other < own).any() for other in others)

    for columns, found in (
        ([0, 1, 2], joint_front(costs, losses)),
        ([1], front(costs, losses[:, :, 1])),
    ):
        expected = [[not beaten(d, n, columns) for n in range(9)] for d in range(30)]
        assert (found == np.array(expected)).all()


def configuration(quantizer, top1, ece, bits, **own):
    def value(change):
        return {"change": change, "sampling": 0.002, "drawn": 0.0, "seeds": 1, "margin": 0.01}

    values = {"top1": value(top1), "ece": value(ece)}
    method = quantizer.partition(":")[0]
    costs = {"bytes": bits}
    made = {"model": "vit", "quantizer": quantizer, "method": method, "costs": costs}
    return made | {"values": values} | own


def test_answers_follow_intervals_and_one_margin_holds_for_every_format():
    laxer = configuration("rtn:w4", -0.02, 0.02, 4.0)
    for value in laxer["values"].values():
        value["margin"] = 0.05  # as a gate's table has it for 4 bits
    found = advice_plain(
        [
            configuration("rtn:w8", -0.001, 0.001, 8.0),
            configuration("rtn:w6", -0.008, 0.0, 6.0),
            configuration("awq:w6", -0.012, 0.0, 6.0),
            laxer,
            configuration("noise:w4", 0.0, 0.0, 4.0),
            configuration("gptq:w4", 0.0, 0.0, None),
        ],
        [TOP1, ECE],
    )["models"]["vit"]
    rows = {row["configuration"]: row for row in found["configurations"]}
    assert found["margins"] == {"top1": 0.01, "ece": 0.01}
    answers = [rows[place]["answer"] for place in (0, 1, 2, 3, 5)]
    assert answers == ["surely", "probably", "hardly", "surely not", "surely"]
    assert 4 not in rows  # matched noise is no quantizer
    assert rows[1]["open"] == ["top1"]
    assert (rows[3]["over"], rows[3]["worst"]) == (["top1", "ece"], 2.0)
    assert rows[1]["meets"] == pytest.approx(ndtr(1.0), abs=0.08)
    assert rows[3]["front"] == 1.0
    assert rows[5]["front"] is None  # of no known cost


def test_one_seed_of_what_is_drawn_is_not_known_and_says_so():
    one = configuration("quarot:w8", 0.0, 0.0, 8.0)
    one["values"]["ece"] |= {"change": None, "sampling": None, "seeds": None}
    found = advice_plain([one, configuration("rtn:w8", 0.0, 0.0, 8.0)], [TOP1, ECE])
    row, _ = found["models"]["vit"]["configurations"]
    assert (row["answer"], row["lacks"], row["meets"]) == ("unknown", ["ece"], None)


def test_a_tower_in_float_costs_what_it_takes_though_its_weights_have_no_bits():
    half = configuration("rtn:w4@text", -0.001, 0.001, 0.0) | {
        "costs": {"bytes": 3e6, "weight-bits": 4.4}
    }
    whole = configuration("rtn:w8", -0.002, 0.001, 0.0) | {
        "costs": {"bytes": 1e6, "weight-bits": 8.4}
    }
    fronts = {
        cost: [
            row["front"] > 0.99
            for row in advice_plain([half, whole], [TOP1], **asked)["models"]["vit"][
                "configurations"
            ]
        ]
        for cost, asked in {"default": {}, "bits": {"cost": "weight-bits"}}.items()
    }
    assert fronts == {"default": [False, True], "bits": [True, False]}
