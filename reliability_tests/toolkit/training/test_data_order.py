"""Which pairs a step takes, and which are never trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import some_pairs

from clipq.errors import TrainingError
from clipq.training.caption_pairs import Pairs
from clipq.training.data_order import (
    PairOrder,
    caption_shares,
    split_held_out,
    step_generator,
)


@given(
    count=st.integers(2, 40),
    batch=st.integers(1, 12),
    seed=st.integers(0, 2**63 - 1),
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=8),
)
def test_a_step_takes_the_same_rows_whenever_it_is_asked_for(count, batch, seed, steps):
    batch = min(batch, count)
    rows = np.arange(count) * 3
    whole = PairOrder(rows, batch=batch, seed=seed)
    in_order = [whole.at(step).tolist() for step in range(61)]
    again = PairOrder(rows, batch=batch, seed=seed)
    assert [again.at(step).tolist() for step in steps] == [in_order[step] for step in steps]
    per_epoch = count // batch
    for start in range(0, 60 - per_epoch, per_epoch):
        epoch = [row for taken in in_order[start : start + per_epoch] for row in taken]
        assert len(set(epoch)) == len(epoch) == per_epoch * batch
        assert set(epoch) <= set(rows.tolist())


def test_every_pair_is_trained_on_though_epochs_leave_some_over():
    order = PairOrder(np.arange(11), batch=4, seed=0)
    assert {row for step in range(12) for row in order.at(step)} == set(range(11))


def test_seeds_and_epochs_have_orders_of_their_own():
    orders = [PairOrder(np.arange(50), batch=50, seed=seed) for seed in (0, 1)]
    taken = {tuple(order.at(step)) for order in orders for step in range(3)}
    assert len(taken) == 6


def test_held_out_pairs_depend_on_their_ids_alone():
    ids = [f"image-{n}" for n in range(40)]
    _, held = split_held_out(ids, 0.25)
    turned = ids[::-1]
    train, other = split_held_out(turned, 0.25)
    assert {ids[row] for row in held} == {turned[row] for row in other}
    assert sorted([*train, *other]) == list(range(40))
    assert len(other) == 10


def test_an_image_that_occurs_twice_is_never_on_both_sides():
    ids = [f"image-{n % 10}" for n in range(40)]
    train, held = split_held_out(ids, 0.1)
    assert not {ids[row] for row in train} & {ids[row] for row in held}
    assert len(held) == 8  # two images of four copies each: never fewer than two


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "c"], ["a"] * 40])
def test_too_few_images_are_refused(ids):
    with pytest.raises(TrainingError, match="cannot be divided"):
        split_held_out(ids, 0.1)


def test_a_batch_larger_than_the_data_is_refused_and_the_fix_fits():
    with pytest.raises(TrainingError, match="a batch takes 8 pairs, and 7 are left") as caught:
        PairOrder(np.arange(7), batch=8, seed=0)
    assert "batch=7" in caught.value.hint


def test_captions_of_an_image_are_all_taken_over_the_steps():
    pairs = some_pairs(6, captions=3)
    rows = np.arange(6)
    taken = {
        line
        for step in range(30)
        for line in pairs.lines(rows, caption_shares(6, seed=1, step=step))
    }
    assert taken == set(range(18))
    assert (pairs.owners[pairs.lines(rows, np.full(6, 0.999999999))] == rows).all()


def test_generators_differ_by_seed_step_and_kind():
    drawn = {
        step_generator(seed, step, held_out=held).initial_seed()
        for seed in (0, 1)
        for step in (0, 1)
        for held in (False, True)
    }
    assert len(drawn) == 8


def _pairs(ids, tokens, owners):
    return Pairs(ids, lambda rows: torch.zeros(len(rows), 3, 2, 2), tokens, np.array(owners))


@pytest.mark.parametrize(
    ("ids", "tokens", "owners", "said"),
    [
        ((), torch.zeros(0, 3), [], "no image-caption pairs"),
        (("a", "b"), torch.ones(1, 3), [0], "1 of 2 images have no caption: b"),
        (("a",), torch.ones(2, 3), [0, 1], "caption 1 belongs to image 1 of 1"),
        (("a",), torch.ones(2, 3), [0, -1], "caption 1 belongs to image -1"),
        (("a",), torch.ones(3), [0, 0, 0], "captions of shape"),
        (("a",), torch.ones(3, 2), [0, 0], "captions of shape"),
    ],
)
def test_data_that_are_no_pairs_are_refused(ids, tokens, owners, said):
    with pytest.raises(TrainingError, match=said):
        _pairs(ids, tokens, owners)


def test_fingerprints_tell_ids_captions_and_owners_apart():
    tokens = torch.tensor([[1, 2], [3, 4]])
    found = [
        _pairs(("a", "b"), tokens, [0, 1]),
        _pairs(("a", "c"), tokens, [0, 1]),
        _pairs(("a", "b"), tokens.flip(0), [0, 1]),
        _pairs(("a", "b"), tokens, [1, 0]),
        _pairs(("a", "b"), tokens.repeat(1, 2), [0, 1]),
    ]
    assert len({pairs.fingerprint for pairs in found}) == 5
