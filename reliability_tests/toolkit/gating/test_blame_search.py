"""The search for the fewest layers, on made-up cases whose answer is known."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from clipq.gating.blame import fewest, with_excluded
from clipq.quant import QuantizerSpec

NAMES = [f"layer{i}" for i in range(12)]


def passing(*sets):
    """Return a rule that passes wherever one of the sets is contained."""
    return lambda units: any(set(found) <= set(units) for found in sets)


def test_nothing_is_kept_where_nothing_fails():
    assert fewest(NAMES, lambda _: True)[0] == []


def test_what_fails_whatever_is_kept_is_said_to():
    found, proof = fewest(NAMES, lambda _: False)
    assert found is None
    assert "all of these layers in float" in proof


def test_a_single_one_is_found_wherever_it_ranks():
    assert fewest(NAMES, passing(["layer11"]))[0] == ["layer11"]


def test_a_pair_among_the_first_is_found_even_behind_a_larger_beginning():
    found, _ = fewest(NAMES, passing(["layer2", "layer7"], NAMES[:3]))
    assert found == ["layer2", "layer7"]


def test_a_set_is_spared_what_it_does_not_need():
    needed = ["layer0", "layer4", "layer9"]
    found, proof = fewest(NAMES, passing(needed))
    assert found == needed
    assert "none of these can be left out" in proof


@given(st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=1, max_size=4))
def test_what_is_found_passes_and_has_nothing_to_spare(sets):
    rule = passing(*[[NAMES[i] for i in found] for found in sets])
    found, _ = fewest(NAMES, rule)
    assert found is not None
    assert rule(found)
    assert not any(rule([x for x in found if x != name]) for name in found)
    if len(found) > 1:
        assert not any(rule([name]) for name in NAMES)
    if len(found) > 2:
        assert not any(rule(pair) for pair in combinations(NAMES[:8], 2))


def test_excluding_adds_to_what_is_excluded():
    spec = QuantizerSpec.parse("rtn:w4,exclude=a*,range=mse@vision")
    assert str(with_excluded(spec, ["b.c"])) == "rtn:w4,exclude=a*+b.c,range=mse@vision"
    assert str(with_excluded(QuantizerSpec.parse("rtn:w4"), ["b"])) == "rtn:w4,exclude=b"
