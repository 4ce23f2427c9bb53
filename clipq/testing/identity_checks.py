"""Changes of a model that must not change what it computes: folding, smoothing, rotating."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from clipq.testing.checks import Check, expect
from clipq.testing.models import SMALL_CLIPS, SmallInputs, small_clip

__all__ = ["check_identity"]


def check_identity(
    change: Callable[[nn.Module, SmallInputs], nn.Module | None],
    *,
    families: Sequence[str] = SMALL_CLIPS,
    tolerance: float = 1e-5,
) -> Iterator[Check]:
    """Yield a check per family of small CLIPs that `change` is an exact identity.

    Args:
        change: takes a float model and its inputs; changes it in place, or returns another.
        families: which of `SMALL_CLIPS`.
        tolerance: largest difference of a feature, relative to the largest feature.

    >>> def halve(model, inputs):
    ...     model.visual.proj.data *= 0.5
    >>> (check,) = check_identity(halve, families=["vit"])
    >>> check()
    Traceback (most recent call last):
    clipq.testing.checks.Violation: halve changes the features of vit by 0.5 of the largest, ...
    """
    name = getattr(change, "__name__", type(change).__name__)
    for family in families:

        def run(family: str = family) -> None:
            model, inputs = small_clip(family), SmallInputs()
            changed = copy.deepcopy(model)
            changed = change(changed, inputs) or changed
            for mine, theirs in zip(inputs.encode(changed), inputs.encode(model), strict=True):
                largest = float(theirs.abs().max())
                difference = float((mine - theirs).abs().max()) / max(largest, 1e-12)
                expect(largest > 1e-3, f"the features of {family} vanish: nothing is compared")
                expect(
                    bool(torch.isfinite(mine).all()) and difference <= tolerance,
                    f"{name} changes the features of {family} by {difference:.2g} of the largest, "
                    f"more than {tolerance:.2g}",
                )

        yield Check(name, family, run)
