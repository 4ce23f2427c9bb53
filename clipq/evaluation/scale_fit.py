"""The logit scale, and SigLIP's bias, at which a model's own contrastive loss is smallest.

Towers are frozen, so that the loss is a function of one or two numbers, and a convex one: CLIP's is
log-sum-exp of ``scale * cosine`` minus the pair's own, SigLIP's the logistic loss of
``scale * cosine + bias``. Newton's method finds the one minimum, in float64, whatever the numbers
that it starts from; nothing is drawn at random.

    CLIP    (Radford et al. 2021)  mean over i of (CE over j of s c_ij + CE over j of s c_ji) / 2
    SigLIP  (Zhai et al. 2023)     mean over i of sum over j of softplus(-z_ij (s c_ij + b))

A loss over a batch depends on how many negatives each pair meets. Batches hold `BATCH` pairs or a
few less, in an order that hashes of what a pair is give, `ROUNDS` times in another one. What shares
its image or its caption with a pair is none of its negatives.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from clipq.errors import ProbeError
from clipq.metrics.features import unit

__all__ = ["BATCH", "LARGEST", "ROUNDS", "SMALLEST", "PairFeatures", "ScaleFit", "fit_scale"]

BATCH = 128
"""Pairs of a batch: each meets one less negatives."""
ROUNDS = 8
"""Orders in which all pairs are dealt out to batches, where there is more than one batch."""
FEWEST = 50
"""Pairs that a scale is fitted to at least."""
SMALLEST, LARGEST = 1.0, 1000.0
"""Scales that are accepted: below the first no answer is sure, beyond the second all are."""

_STEPS = 100
_TOLERANCE = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class PairFeatures:
    """What a form of a model makes of image-caption pairs.

    Args:
        images: image feature of each pair (P, D).
        texts: caption feature of each pair (P, D).
        image_codes: equal where pairs share their image (P,).
        text_codes: equal where pairs share their caption (P,).
        names: what each pair is (P,), by which it is put into batches.
    """

    images: np.ndarray
    texts: np.ndarray
    image_codes: np.ndarray
    text_codes: np.ndarray
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class ScaleFit:
    """Where the loss is smallest, and how large it is there and where the fit started.

    Args:
        scale: that cosines are multiplied by; exponentiated, as a head has it.
        bias: that is added.
        loss: there, in nats a pair.
        loss_before: at the scale and the bias that were given.
    """

    scale: float
    bias: float
    loss: float
    loss_before: float


def fit_scale(
    pairs: PairFeatures, start: tuple[float, float], *, sigmoid: bool, called: str
) -> ScaleFit:
    """Return the scale and the bias that minimise the contrastive loss of some pairs.

    Args:
        pairs: features of a frozen model; lengths do not matter.
        start: the model's own scale and bias.
        sigmoid: whether the loss is SigLIP's, which fits a bias; CLIP's leaves it as it is.
        called: what messages call the pairs.

    Raises:
        ProbeError: there are too few pairs, features that are not finite, no negatives, or no
            scale from `SMALLEST` to `LARGEST` is best.

    >>> rng = np.random.default_rng(0)
    >>> image, text = rng.normal(size=(2, 64, 8))
    >>> codes, names = np.arange(64), [str(i) for i in range(64)]
    >>> pairs = PairFeatures(image, image + text, codes, codes, names)  # correlation 0.7
    >>> found = fit_scale(pairs, (100.0, 0.0), sigmoid=False, called="these pairs")
    >>> round(found.scale, 1), found.loss < found.loss_before
    (10.3, True)
    """
    batches = _batches(pairs, called)
    _check_minimum(batches, called, sigmoid=sigmoid)
    loss = _Sigmoid(batches) if sigmoid else _Softmax(batches)
    first = np.array(start if sigmoid else start[:1])
    place = _minimum(loss, first, called)
    if not SMALLEST <= place[0] <= LARGEST:
        raise _beyond(called, float(place[0]))
    bias = float(place[1]) if sigmoid else start[1]
    return ScaleFit(float(place[0]), bias, loss(place)[0], loss(first)[0])


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Cosines (B, B) of images, by row, with captions, and which of them are negatives."""

    cosines: np.ndarray
    negative: np.ndarray

    @property
    def own(self) -> np.ndarray:
        """Cosine of each pair (B,)."""
        return np.diagonal(self.cosines)


Slopes = tuple[float, np.ndarray, np.ndarray]
"""A loss, its gradient and its Hessian."""


class _Softmax:
    """CLIP's loss: each image among captions and each caption among images.

    A row is an image or a caption and what it meets, padded to the width of the widest.
    """

    def __init__(self, batches: Sequence[_Batch]) -> None:
        width = max(len(batch.cosines) for batch in batches)
        rows, met = [], []
        for batch in batches:
            room = ((0, 0), (0, width - len(batch.cosines)))
            meets = batch.negative | np.eye(len(batch.cosines), dtype=bool)
            for cosines, its in ((batch.cosines, meets), (batch.cosines.T, meets.T)):
                rows.append(np.pad(cosines, room))
                met.append(np.pad(its, room))
        self._cosines, self._met = np.concatenate(rows), np.concatenate(met)
        self._own = np.concatenate([batch.own for batch in batches for _ in range(2)])

    def __call__(self, place: np.ndarray) -> Slopes:
        logits = np.where(self._met, place[0] * self._cosines, -np.inf)
        largest = logits.max(axis=1)
        share = np.exp(logits - largest[:, None])
        total = share.sum(axis=1)
        share /= total[:, None]
        mean = (share * self._cosines).sum(axis=1)
        spread = (share * self._cosines**2).sum(axis=1) - mean**2
        value = largest + np.log(total) - place[0] * self._own
        slope = mean - self._own
        return float(value.mean()), np.array([slope.mean()]), np.array([[spread.mean()]])


class _Sigmoid:
    """SigLIP's loss: each image with each caption, does it belong to it or not?"""

    def __init__(self, batches: Sequence[_Batch]) -> None:
        self._pairs = sum(len(batch.cosines) for batch in batches)
        own = np.concatenate([batch.own for batch in batches])
        others = np.concatenate([batch.cosines[batch.negative] for batch in batches])
        self._cosines = np.concatenate([own, others])
        self._signs = np.concatenate([np.ones(len(own)), -np.ones(len(others))])

    def __call__(self, place: np.ndarray) -> Slopes:
        logits = self._signs * (place[0] * self._cosines + place[1])
        wrong = expit(-logits)
        pull, weight = -self._signs * wrong, wrong * (1.0 - wrong)
        cross = float(weight @ self._cosines)
        gradient = np.array([float(pull @ self._cosines), float(pull.sum())])
        hessian = np.array(
            [[float(weight @ self._cosines**2), cross], [cross, float(weight.sum())]]
        )
        value = float(np.logaddexp(0.0, -logits).sum())
        return value / self._pairs, gradient / self._pairs, hessian / self._pairs


def _minimum(loss: _Softmax | _Sigmoid, first: np.ndarray, called: str) -> np.ndarray:
    """Return where a convex loss is smallest: Newton's steps, halved while they do not help."""
    place = first.astype(np.float64)
    value, gradient, hessian = loss(place)
    for _ in range(_STEPS):
        # What is flat where it starts (a softmax that is one-hot) is not flat where it ends.
        damped = hessian + 1e-12 * np.trace(hessian) * np.eye(len(place)) + 1e-300
        step = -np.linalg.solve(damped, gradient)
        step *= min(1.0, LARGEST / max(float(np.abs(step).max()), 1e-300))
        if float(np.abs(step).max()) <= _TOLERANCE * (1.0 + float(np.abs(place).max())):
            return place
        share, rounding = 1.0, 1e-13 * (1.0 + abs(value))
        tried = loss(place + step)
        while tried[0] > value + 1e-4 * share * float(gradient @ step) + rounding:
            share /= 2.0
            tried = loss(place + share * step)
        place = place + share * step
        value, gradient, hessian = tried
        if place[0] > 10.0 * LARGEST:
            raise _beyond(called, float(place[0]))
    raise ProbeError(
        f"{called}: the loss is still falling at a logit scale of {place[0]:.4g}",
        hint="nearly all pairs are told apart: give more pairs, or harder ones",
    )


def _batches(pairs: PairFeatures, called: str) -> list[_Batch]:
    if len(pairs) < FEWEST:
        raise ProbeError(
            f"{called}: {len(pairs):,} image-caption pairs to tune a logit scale by",
            hint=f"give it {FEWEST} or more; the study takes 1,000",
        )
    for what, features in (("image", pairs.images), ("caption", pairs.texts)):
        broken = int((~np.isfinite(features).all(axis=1)).sum())
        if broken:
            raise ProbeError(
                f"{called}: {broken:,} of {len(pairs):,} {what} features are not finite",
                hint="the candidate computes NaN or infinity of them: its other metrics say so too",
            )
    images, texts = unit(pairs.images), unit(pairs.texts)
    parts = math.ceil(len(pairs) / BATCH)
    found = []
    for turn in range(ROUNDS if parts > 1 else 1):
        order = np.array(_order(pairs.names, turn))
        for chosen in np.array_split(order, parts):
            shared = [
                codes[chosen][:, None] == codes[chosen][None, :]
                for codes in (pairs.image_codes, pairs.text_codes)
            ]
            cosines = images[chosen] @ texts[chosen].T
            found.append(_Batch(cosines, ~(shared[0] | shared[1])))
    return found


def _order(names: Sequence[str], turn: int) -> list[int]:
    keys = [hashlib.sha256(f"{turn}\0{name}".encode()).digest() for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)


def _check_minimum(batches: Sequence[_Batch], called: str, *, sigmoid: bool) -> None:
    """Refuse pairs of which the loss has no minimum at a positive, finite scale."""
    negatives = sum(int(batch.negative.sum()) for batch in batches)
    if not negatives:
        raise ProbeError(
            f"{called}: all captions, or all images, are equal",
            hint="what tells pairs apart cannot be tuned where they are alike",
        )
    own = np.concatenate([batch.own for batch in batches])
    others = [batch.cosines[batch.negative] for batch in batches]
    if own.mean() <= np.concatenate(others).mean():
        raise ProbeError(
            f"{called}: captions are no more like their own images than like others: mean cosine "
            f"{own.mean():.3g} and {np.concatenate(others).mean():.3g}",
            hint="no logit scale makes sense of that: do captions belong to the images beside "
            "them, and is the model of this tokenizer?",
        )
    if sigmoid:
        apart = own.min() >= np.concatenate(others).max()
    else:
        apart = all(_told_apart(batch) for batch in batches)
    if apart:
        raise ProbeError(
            f"{called}: every one of the pairs is told from every other: the larger the logit "
            "scale, the smaller the loss",
            hint="give more pairs, or harder ones",
        )


def _told_apart(batch: _Batch) -> bool:
    others = np.where(batch.negative, batch.cosines, -np.inf)
    nearest = np.maximum(others.max(axis=1), others.max(axis=0))
    return bool((batch.own >= nearest).all())


def _beyond(called: str, scale: float) -> ProbeError:
    return ProbeError(
        f"{called}: the loss is smallest at a logit scale of {scale:.4g}"
        + (" or more" if scale > LARGEST else ""),
        hint=f"accepted: {SMALLEST:g} to {LARGEST:g}; nearly all pairs are told apart, or hardly "
        "any: give more pairs, and captions that describe their images",
    )
