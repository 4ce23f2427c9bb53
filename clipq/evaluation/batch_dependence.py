"""Whether what a model says of a sample depends on the samples that are encoded beside it.

Numbers of a report are measured in one batch size; they say something of another only where a
sample's features are its own. Some samples are encoded in their large batch, alone, shuffled, and
in ragged batches, and what moves is compared with three things that may move it: the order of sums,
as FP32 shows it; float noise, which rounding turns into whole steps now and then; and the error of
quantization, beside which a difference does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from clipq.errors import QuantizerError
from clipq.runtimes import Finding

__all__ = [
    "ARRANGEMENTS",
    "BatchDifference",
    "arrange",
    "batch_differences",
    "batch_findings",
    "check_batches",
    "noise_beside",
]

ARRANGEMENTS = {
    "alone": "encoded one by one",
    "shuffled": "encoded in another order, in a batch of their own",
    "ragged": "encoded in a few small batches of different sizes",
}
"""How samples are encoded again, in words."""

_SHARE_OF_ERROR = 0.25
"""A difference below this share of the quantization error does not matter.

Measured on four CLIPs with 18 quantizers each, 32 images: those that treat each sample by itself
reach 0.00 to 0.12; ranges taken over the batch, in every layer or in one, 0.5 to 1.4.
"""
_TIMES_NOISE = 1.25
_TIMES_FP32 = 10.0
_LEAST = 1e-5
_NOISE = 3e-7
"""Relative float noise of a layer's output: several times what the order of its sums makes."""

Features = Mapping[str, np.ndarray]
Encode = Callable[[np.ndarray], np.ndarray]
"""Features (B, D) of the samples at these positions (B,), encoded as one batch."""


@dataclass(frozen=True, slots=True)
class BatchDifference:
    """How far features move when samples are arranged in batches otherwise.

    All are root mean squares over samples of ||change|| / ||features||, in [0, inf].

    Args:
        arrangement: one of `ARRANGEMENTS`.
        moved: what the model's features do.
        fp32: what FP32's do.
        noise: what the model's do when each layer's output moves by float noise.
        error: what quantization itself does to them.

    >>> BatchDifference("alone", 2e-3, 3e-7, 4e-3, 2e-2).depends  # noise does more
    False
    >>> BatchDifference("alone", 2e-2, 3e-7, 4e-3, 2e-2).depends
    True
    """

    arrangement: str
    moved: float
    fp32: float
    noise: float
    error: float

    @property
    def accepted(self) -> float:
        """The largest difference that something else than the batch explains."""
        return max(
            _SHARE_OF_ERROR * self.error,
            _TIMES_NOISE * self.noise,
            _TIMES_FP32 * self.fp32,
            _LEAST,
        )

    @property
    def depends(self) -> bool:
        """Whether a sample's features depend on those beside it."""
        return not self.moved <= self.accepted


def noise_beside(fp32: Mapping[str, np.ndarray]) -> float:
    """Return the relative size of float noise in a layer, given what `arrange` says of FP32.

    >>> features = np.eye(3)
    >>> noise_beside({"together": features, "alone": features, "shuffled": features})
    3e-07
    """
    moved = [_moved(fp32[name], fp32["together"]) for name in ARRANGEMENTS if name in fp32]
    return max(_NOISE, *moved)


def arrange(
    encode: Encode, together: np.ndarray, *, disturbed: Encode | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return the features (N, D) of N samples, by how they were arranged in batches.

    Args:
        encode: encodes some of the samples, by their positions in [0, N), as one batch.
        together: their features from the large batches that are to be trusted.
        disturbed: the same as `encode`, with float noise added to the output of every layer.
        seed: of the order.

    >>> values = np.array([[1.0], [2.0], [5.0]])
    >>> centred = lambda positions: values[positions] - values[positions].mean()
    >>> found = arrange(centred, centred(np.arange(3)))
    >>> found["alone"].ravel().tolist(), found["together"].ravel().round(1).tolist()
    ([0.0, 0.0, 0.0], [-1.7, -0.7, 2.3])
    """
    count = len(together)
    order = np.random.default_rng(seed).permutation(count)
    parts = np.split(order[::-1].copy(), [round(0.6 * count), round(0.85 * count)])
    found = {
        "together": together,
        "alone": _gathered(encode, [np.array([position]) for position in range(count)]),
        "shuffled": _gathered(encode, [order]),
        "ragged": _gathered(encode, [part for part in parts if len(part)]),
    }
    if disturbed is not None:
        found["disturbed"] = _gathered(disturbed, [order])
    return found


def batch_differences(
    candidate: Mapping[str, np.ndarray], fp32: Mapping[str, np.ndarray]
) -> tuple[BatchDifference, ...]:
    """Return how far features move, for each arrangement.

    Args:
        candidate: what `arrange` returns of the model under test.
        fp32: what it returns of FP32, on the same samples.

    >>> same = dict.fromkeys(("together", *ARRANGEMENTS), np.ones((4, 2)))
    >>> [difference.moved for difference in batch_differences(same, same)]
    [0.0, 0.0, 0.0]
    """
    noise = 0.0
    if "disturbed" in candidate:  # in the same batch: what it adds is not the batch's
        noise = _moved(candidate["disturbed"], candidate["shuffled"])
    error = _moved(candidate["together"], fp32["together"])
    return tuple(
        BatchDifference(
            name,
            _moved(candidate[name], candidate["together"]),
            _moved(fp32[name], fp32["together"]),
            noise,
            error,
        )
        for name in ARRANGEMENTS
    )


def check_batches(
    name: str, of: str, candidate: Mapping[str, np.ndarray], fp32: Mapping[str, np.ndarray]
) -> None:
    """Refuse a model whose features of a sample depend on the samples beside it.

    Args:
        name: text of the quantizer.
        of: whose features, such as ``"images"``.
        candidate: what `arrange` returns of the model under test.
        fp32: what it returns of FP32, on the same samples.

    Raises:
        QuantizerError: they depend.

    >>> same = dict.fromkeys(("together", *ARRANGEMENTS), np.ones((4, 2)))
    >>> check_batches("mine:w8", "images", same | {"alone": np.ones((4, 2)) * 0.9}, same)
    Traceback (most recent call last):
    clipq.errors.QuantizerError: quantizer 'mine:w8': features of images depend on the batch: ...
    ...
    """
    for found in batch_differences(candidate, fp32):
        if found.depends:
            raise QuantizerError(
                f"quantizer {name!r}: features of {of} depend on the batch: "
                f"{ARRANGEMENTS[found.arrangement]}, {len(fp32['together'])} of them move by "
                f"{found.moved:.2g} of their length (accepted: {found.accepted:.2g}; FP32 moves by "
                f"{found.fp32:.2g}, quantization itself by {found.error:.2g})",
                hint="what is reported would hold for this batch size alone: take ranges from the "
                "calibration split or per sample, and treat every row of a batch alike",
            )


def batch_findings(
    arranged: Mapping[str, tuple[Features, Features]], batch: int
) -> tuple[Finding, ...]:
    """Return where an artifact's features of a sample depend on the samples beside it.

    Args:
        arranged: what `arrange` returns of the artifact and of FP32, by what is encoded.
        batch: in which the artifact is judged.

    >>> same = dict.fromkeys(("together", *ARRANGEMENTS), np.ones((4, 2)))
    >>> found = batch_findings({"images": (same | {"alone": np.ones((4, 2)) * 0.9}, same)}, 64)
    >>> [(each.kind, each.wrong) for each in found]
    [('batch-dependence', False)]
    """
    found = []
    for of, (candidate, fp32) in arranged.items():
        worst = max(batch_differences(candidate, fp32), key=lambda each: each.moved)
        if worst.depends:
            found.append(
                Finding(
                    "batch-dependence",
                    f"features of {of} depend on the batch: {ARRANGEMENTS[worst.arrangement]}, "
                    f"{len(fp32['together'])} of them move by {worst.moved:.2g} of their length "
                    f"(quantization itself: {worst.error:.2g}, FP32's batches: {worst.fp32:.2g})",
                    f"what is reported holds for batch = {batch}; deploy it so, or take ranges "
                    "from calibration data or per sample",
                    wrong=False,
                )
            )
    return tuple(found)


def _gathered(encode: Encode, batches: list[np.ndarray]) -> np.ndarray:
    """Return features in the samples' own order."""
    positions = np.concatenate(batches)
    features = np.concatenate([encode(batch) for batch in batches])
    if len(features) != len(positions):
        return np.full((len(positions), *features.shape[1:]), np.nan)  # differs from all there is
    found = np.empty_like(features)
    found[positions] = features
    return found


def _moved(now: np.ndarray, was: np.ndarray) -> float:
    """Return the root mean square of the relative changes; inf where something became NaN."""
    if now.shape != was.shape:
        return float("inf")
    now, was = now.astype(np.float64), was.astype(np.float64)
    same = ((now == was) | (np.isnan(now) & np.isnan(was))).all(axis=1)
    with np.errstate(all="ignore"):
        length = np.maximum(np.linalg.norm(was, axis=1), np.finfo(np.float64).tiny)
        relative = np.linalg.norm(now - was, axis=1) / length
        relative = np.where(same, 0.0, relative)
        root = float(np.sqrt(np.mean(relative**2)))
    return root if np.isfinite(root) else float("inf")
