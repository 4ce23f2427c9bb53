"""RaBitQ codes of a vector: the direction on a grid that is closest to its own.

    ŵ = r (u - (2^b - 1) / 2),  u ∈ {0 … 2^b - 1}^d,   r = ‖w‖ / ⟨w / ‖w‖, u - (2^b - 1) / 2⟩

u maximises the cosine between w and u - (2^b - 1) / 2; r makes ⟨w, ŵ⟩ = ‖w‖², so that inner
products are estimated without bias when w was rotated at random.
Source: Gao et al. 2024, arXiv 2409.09913, as used by RaanA (Yang 2025, arXiv 2504.03717).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rabitq_codes", "rabitq_round"]

_SEARCHED = 64


def rabitq_codes(rows: Tensor, *, bits: int) -> Tensor:
    """Return codes u (n, d) of rows w (n, d), float32 holding integers.

    Searched are 64 scalings of each row, from a largest value at 0.8 times the grid's end to one
    that lies four times beyond and saturates.
    """
    largest = rows.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    unit = rows / largest
    middle = (2**bits - 1) / 2
    best = torch.full_like(largest, -torch.inf)
    best_codes = torch.zeros_like(rows)
    # One bit knows only signs. More bits clip: a normal vector up to about twice.
    factors = [1.0] if bits == 1 else torch.logspace(-0.1, 0.6, _SEARCHED).tolist()
    for factor in factors:
        scale = middle * factor
        codes = torch.floor(unit * scale + middle + 0.5).clamp_(0, 2**bits - 1)
        centred = codes - middle
        cosine = (centred * unit).sum(-1, keepdim=True) / centred.norm(dim=-1, keepdim=True)
        better = cosine > best
        best = torch.where(better, cosine, best)
        best_codes = torch.where(better, codes, best_codes)
    return best_codes


def rabitq_round(rows: Tensor, *, bits: int) -> Tensor:
    """Return ŵ (n, d) of rows w (n, d), float32; rows of zeros stay zeros."""
    rows = rows.float()
    # Of rows whose largest value is one, so that no square overflows.
    largest = rows.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    rows = rows / largest
    norm = rows.norm(dim=-1, keepdim=True)
    centred = rabitq_codes(rows, bits=bits) - (2**bits - 1) / 2
    inner = (rows * centred).sum(-1, keepdim=True)
    usable = (norm > 0) & (inner > 0)
    ratio = torch.where(usable, norm.square() / torch.where(usable, inner, 1.0), 0.0)
    return torch.as_tensor(centred * ratio * largest)
