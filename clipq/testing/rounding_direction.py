"""Whether rounding leans one way, told from values before and after it.

Each value lies between two levels. A quantizer may have reasons to take the further one (GPTQ
makes up for the errors of earlier columns), but not to take it always on the same side: rounding
down, up, toward zero or away from it moves whole features. Only layers whose values went to one of
the two levels beside them are looked at, since smoothed or rotated weights are others than the
float model's.

Levels are those in use, or the neighbours in half precision where values are of it. Weights that
were scaled before they were rounded to nearest lean outward or inward, but soon lie beside other
levels: of normally distributed ones at 3 to 8 bits, scaled by 0.4 to 2, those of which nine tenths
stayed beside their own leaned by 0.57 at most, and up or down by 0.01.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Lean", "rounding_lean"]

_BESIDE = 0.9  # of the values took one of the two levels beside them
_LEANS = 0.9  # of the values that belong to the other side, toward zero or away from it
_DRIFTS = 0.4  # likewise, up or down, where scaled weights cancel
_FEWEST = 50
_LEVELS = 4  # with fewer, a weight halved before it was rounded looks like one rounded inward
_MANTISSA = {torch.bfloat16: 7, torch.float16: 10}


@dataclass(frozen=True, slots=True)
class Lean:
    """Where values went that lie nearer to the other level, as shares in -1 … 1.

    Args:
        down: of those that belong up, less the share of those that went up and belong down.
        inward: likewise, toward zero.

    >>> Lean(down=1.0, inward=0.0).said, Lean(down=0.1, inward=-0.2).said
    ('down', '')
    """

    down: float
    inward: float

    @property
    def said(self) -> str:
        """The direction in a word or two; "" where there is none."""
        if abs(self.down) >= _DRIFTS:
            return "down" if self.down > 0 else "up"
        if abs(self.inward) >= _LEANS:
            return "toward zero" if self.inward > 0 else "away from zero"
        return ""


def rounding_lean(before: Tensor, after: Tensor) -> Lean | None:
    """Return how rounding leans; None where the values are not those that were rounded, or are few.

    Args:
        before: (rows, n), finite.
        after: (rows, n), of which a row shares its levels.

    >>> values = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    >>> rounding_lean(values, (8 * values).floor() / 8).said
    'down'
    >>> rounding_lean(values, (8 * values).round() / 8)
    Lean(down=0.0, inward=0.0)
    """
    exact, rounded = before.double(), after.double()
    low, high = _brackets(exact, after)
    slack = 1e-6 * exact.abs().amax(1, keepdim=True)
    inside = (low > -torch.inf) & (high < torch.inf) & (high - low > slack)
    beside = ((rounded - low).abs() <= slack) | ((rounded - high).abs() <= slack)
    moved = (rounded - exact).abs() > slack
    if float(beside.double().mean()) < _BESIDE:
        return None
    place = (exact - low) / (high - low)
    taken = (rounded - high).abs() <= slack
    up, down = inside & moved & beside & (place > 0.51), inside & moved & beside & (place < 0.49)
    if int(up.sum()) < _FEWEST or int(down.sum()) < _FEWEST:
        return None
    positive = exact > 0
    outward, inward = torch.where(positive, up, down), torch.where(positive, down, up)
    went_out = torch.where(positive, taken, ~taken)
    coarse = max(len(set(row)) for row in after.tolist()) < _LEVELS
    toward = _share(~went_out, outward) - _share(went_out, inward)
    return Lean(down=_share(~taken, up) - _share(taken, down), inward=0.0 if coarse else toward)


def _brackets(exact: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Return the levels below and above each value; infinite beyond the last."""
    for half, digits in _MANTISSA.items():
        if torch.equal(after.to(half).double(), after.double()) and not _few_levels(after):
            least = torch.finfo(half).tiny
            step = 2.0 ** (exact.abs().clamp(min=least).log2().floor() - digits)
            low = (exact / step).floor() * step
            return low, low + step
    levels = after.double().sort(dim=1).values.contiguous()
    at = torch.searchsorted(levels, exact.contiguous())
    ends = torch.full((len(levels), 1), torch.inf, dtype=torch.float64, device=levels.device)
    padded = torch.cat([-ends, levels, ends], dim=1)
    high = padded.gather(1, at + 1)
    low = torch.where(high == exact, high, padded.gather(1, at))
    return low, high


def _few_levels(values: Tensor) -> bool:
    """Whether rows repeat values, as codes do and halves of precision hardly."""
    return len(set(values[0].tolist())) < 0.9 * values.shape[1]


def _share(which: Tensor, among: Tensor) -> float:
    return float((which & among).sum()) / max(1, int(among.sum()))
