"""The tuned logit scale is where open_clip's own loss is smallest, and is never an absurd one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from scipy.optimize import minimize

from clipq.errors import ProbeError
from clipq.evaluation.scale_fit import BATCH, PairFeatures, fit_scale

CLIP, SIGLIP = (10.0, 0.0), (10.0, -10.0)


def some_pairs(count: int = BATCH, *, size: int = 16, noise: float = 1.0, seed: int = 0):
    """Return features of pairs that belong together, none of which is equal to another."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, size)).astype(np.float32)
    texts = images + noise * rng.normal(size=(count, size)).astype(np.float32)
    return PairFeatures(
        images, texts, np.arange(count), np.arange(count), list(map(str, range(count)))
    )


def fitted(pairs: PairFeatures, start: tuple[float, float] = CLIP, *, sigmoid: bool = False):
    return fit_scale(pairs, start, sigmoid=sigmoid, called="the pairs")


def by_open_clip(pairs: PairFeatures, start: tuple[float, float], *, sigmoid: bool):
    """Return scale, bias and loss that scipy finds on open_clip's loss, all pairs in one batch."""
    images, texts = (
        torch.nn.functional.normalize(torch.from_numpy(of).double(), dim=-1)
        for of in (pairs.images, pairs.texts)
    )

    def loss(place: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.tensor(place, requires_grad=True)
        if sigmoid:
            found = SigLipLoss()(images, texts, at[0].exp(), at[1])
        else:
            found = ClipLoss()(images, texts, at[0].exp())
        found.backward()
        return float(found.detach()), at.grad.numpy().copy()

    first = [np.log(start[0]), *([start[1]] if sigmoid else [])]
    best = minimize(loss, first, jac=True, method="BFGS", options={"gtol": 1e-10})
    return np.exp(best.x[0]), best.x[1] if sigmoid else start[1], best.fun, loss(np.array(first))[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sigmoid", "start"), [(False, CLIP), (True, SIGLIP)])
def test_the_scale_is_where_open_clip_s_loss_is_smallest(sigmoid, start, seed):
    pairs = some_pairs(seed=seed)
    found = fitted(pairs, start, sigmoid=sigmoid)
    scale, bias, loss, before = by_open_clip(pairs, start, sigmoid=sigmoid)
    assert found.scale == pytest.approx(scale, rel=1e-5)
    assert found.bias == pytest.approx(bias, rel=1e-5)
    assert found.loss == pytest.approx(loss, rel=1e-9)
    assert found.loss_before == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_neither_where_it_starts_nor_the_order_of_pairs_moves_it(sigmoid):
    pairs = some_pairs(BATCH + 17)
    order = np.random.default_rng(1).permutation(len(pairs))
    shuffled = PairFeatures(
        *(of[order] for of in (pairs.images, pairs.texts, pairs.image_codes, pairs.text_codes)),
        [pairs.names[at] for at in order],
    )
    first = fitted(pairs, SIGLIP, sigmoid=sigmoid)
    for other, start in ((shuffled, SIGLIP), (pairs, (1.0, 0.0)), (pairs, (1000.0, -300.0))):
        found = fitted(other, start, sigmoid=sigmoid)
        assert found.scale == pytest.approx(first.scale, rel=1e-9)
        assert found.loss == pytest.approx(first.loss, rel=1e-9)


@pytest.mark.parametrize("shared", ["image_codes", "text_codes"])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_what_shares_an_image_or_a_caption_is_no_negative(sigmoid, shared):
    """Written out pair by pair: each meets itself and what shares neither with it."""
    pairs = some_pairs(64)
    codes = np.arange(64) // 4
    found = fitted(replace(pairs, **{shared: codes}), SIGLIP, sigmoid=sigmoid)
    cosine = torch.from_numpy(
        (pairs.images / np.linalg.norm(pairs.images, axis=1, keepdims=True)).astype(np.float64)
        @ (pairs.texts / np.linalg.norm(pairs.texts, axis=1, keepdims=True)).T.astype(np.float64)
    )

    def loss(scale: float, bias: float) -> float:
        total = 0.0
        for one in range(64):
            others = [other for other in range(64) if codes[other] != codes[one]]
            if sigmoid:
                total -= float(torch.nn.functional.logsigmoid(scale * cosine[one, one] + bias))
                logits = -(scale * cosine[one, others] + bias)
                total -= float(torch.nn.functional.logsigmoid(logits).sum())
            else:
                met = torch.tensor([one, *others])
                for row in (cosine[one], cosine[:, one]):
                    total -= float(torch.log_softmax(scale * row[met], 0)[0]) / 2
        return total / 64

    assert found.loss == pytest.approx(loss(found.scale, found.bias), rel=1e-6)
    for aside in (0.98, 1.02):
        assert loss(found.scale * aside, found.bias) > found.loss
        if sigmoid:
            assert loss(found.scale, found.bias * aside) > found.loss


def test_lengths_of_features_do_not_matter():
    pairs = some_pairs()
    longer = replace(pairs, images=pairs.images * 7, texts=pairs.texts * np.float32(0.01))
    assert fitted(longer).scale == pytest.approx(fitted(pairs).scale, rel=1e-5)


def _unlike(pairs: PairFeatures) -> PairFeatures:
    return replace(pairs, texts=np.roll(pairs.texts, 1, axis=0))


def _broken(pairs: PairFeatures) -> PairFeatures:
    texts = pairs.texts.copy()
    texts[3] = np.nan
    return replace(pairs, texts=texts)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda pairs: some_pairs(1), "1 image-caption pairs to tune a logit scale by"),
        (lambda pairs: some_pairs(49), "49 image-caption pairs"),
        (_broken, "1 of 128 caption features are not finite"),
        (lambda pairs: replace(pairs, text_codes=np.zeros(128, int)), "all captions, or all"),
        (_unlike, "no more like their own images than like others"),
        (lambda pairs: replace(pairs, texts=pairs.images), "every one of the pairs is told"),
        (lambda pairs: replace(pairs, texts=np.ones_like(pairs.texts)), "no more like their own"),
        (lambda pairs: replace(pairs, images=0 * pairs.images), "no more like their own"),
    ],
)
def test_pairs_that_no_scale_can_be_told_from_are_refused(spoil, said, sigmoid):
    with pytest.raises(ProbeError) as caught:
        fitted(spoil(some_pairs()), SIGLIP, sigmoid=sigmoid)
    assert said in str(caught.value)
    assert "fix:" in str(caught.value)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_scale_beyond_all_bounds_is_refused_and_never_kept(sigmoid):
    """Cosines that all but agree ask for a scale of thousands; those of one pair, for no end."""
    pairs = some_pairs()
    offset = 300.0
    near = replace(pairs, images=pairs.images + offset, texts=pairs.texts + offset)
    with pytest.raises(ProbeError, match="the loss is smallest at a logit scale of"):
        fitted(near, SIGLIP, sigmoid=sigmoid)


@pytest.mark.parametrize("seed", [3, 5, 6, 7])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_the_last_digits_of_a_loss_never_keep_it_from_its_minimum(sigmoid, seed):
    """Near it, a sum's rounding is all that differs: steps are then taken as they are."""
    pairs = some_pairs(60, noise=0.3 + seed / 10, seed=seed)
    found = fitted(pairs, SIGLIP, sigmoid=sigmoid)
    again = fitted(pairs, (found.scale, found.bias), sigmoid=sigmoid)
    assert again.scale == pytest.approx(found.scale, rel=1e-9)
