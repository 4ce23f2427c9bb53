"""Random rotations of features that are cheap to apply: Hadamard matrices with random signs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clipq.quant.modules import InputTransform

__all__ = ["HadamardRotation", "InverseRotation", "hadamard_matrix"]

# The Paley construction of order q + 1 = 12: the quadratic residues modulo 11.
_RESIDUES = frozenset(x * x % 11 for x in range(1, 11))


def hadamard_matrix(order: int) -> Tensor:
    """Return a Hadamard matrix (order, order) of ones and minus ones, float64: H Hᵀ = order · I.

    Args:
        order: a power of two, or 12.
    """
    if order == 12:
        return _paley_12()
    matrix = torch.ones(1, 1, dtype=torch.float64)
    step = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    while len(matrix) < order:
        matrix = torch.kron(matrix, step)
    return matrix


class HadamardRotation(InputTransform):
    """An orthogonal map of the last dimension: x -> x Q.

    Sizes 2^k and 12 · 2^k get one Hadamard matrix with random signs, as in QuaRot (Ashkboos et al.
    2024, arXiv 2404.00456). Any other size d gets two, as in RaanA (Yang 2025, arXiv 2504.03717):
    one on the first 2^⌊log₂ d⌋ coordinates, then one on the last as many, each with signs of its
    own. Hadamard matrices are Kronecker products of small ones, so that a vector costs about
    d · 2√d multiplications instead of d².

    Args:
        size: d.
        generator: where the signs come from.
        overlapping: use two matrices even where one would do, which needs no power of two.
    """

    def __init__(self, size: int, *, generator: torch.Generator, overlapping: bool = False) -> None:
        super().__init__()
        self.size = size
        whole = _is_hadamard_size(size) and not overlapping
        inner = size if whole else 2 ** (size.bit_length() - 1)
        self.starts = (0,) if whole else (0, size - inner)
        self.inner = inner
        self.factors = len(_factors(inner))
        for i, order in enumerate(_factors(inner)):
            matrix = hadamard_matrix(order) / math.sqrt(order)
            self.register_buffer(f"factor{i}", matrix.float())
        for i in range(len(self.starts)):
            signs = torch.randint(0, 2, (inner,), generator=generator) * 2.0 - 1.0
            self.register_buffer(f"signs{i}", signs)

    def forward(self, values: Tensor) -> Tensor:
        """Return rotated `values`, (..., d), in their own dtype."""
        return self._apply_parts(values, inverse=False)

    def rotate_back(self, values: Tensor) -> Tensor:
        """Return `values` rotated back, (..., d)."""
        return self._apply_parts(values, inverse=True)

    def rotate_weight(self, weight: Tensor) -> Tensor:
        """Return the weight (out, d) that gives x Q what `weight` gives x: W Q, float32."""
        rotated: Tensor = self(weight.float())
        return rotated

    def _apply_parts(self, values: Tensor, *, inverse: bool) -> Tensor:
        order = range(len(self.starts))
        for i in reversed(order) if inverse else order:
            start = self.starts[i]
            part = values[..., start : start + self.inner]
            signs = getattr(self, f"signs{i}").to(values.dtype)
            if inverse:
                part = self._hadamard(part, transposed=True) * signs
            else:
                part = self._hadamard(part * signs, transposed=False)
            if self.inner == self.size:
                values = part
            else:
                after = values[..., start + self.inner :]
                values = torch.cat([values[..., :start], part, after], dim=-1)
        return values

    def _hadamard(self, part: Tensor, *, transposed: bool) -> Tensor:
        """Apply the Kronecker product of the factors along the last dimension."""
        shape = part.shape
        factors = [getattr(self, f"factor{i}").to(part.dtype) for i in range(self.factors)]
        if transposed:
            factors = [factor.t() for factor in factors]
        if len(factors) == 1:
            return torch.as_tensor(part @ factors[0])
        left, right = factors
        grid = part.reshape(-1, len(left), len(right)) @ right
        return torch.as_tensor((left.t() @ grid).reshape(shape))

    def extra_repr(self) -> str:
        """Return the size."""
        return f"size={self.size}, hadamard={self.inner}"


class InverseRotation(InputTransform):
    """The inverse of a rotation, as a module."""

    def __init__(self, rotation: HadamardRotation) -> None:
        super().__init__()
        self.rotation = rotation

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` (..., d) rotated back."""
        return self.rotation.rotate_back(values)


def _is_hadamard_size(size: int) -> bool:
    def power(x: int) -> bool:
        return x > 0 and x & (x - 1) == 0

    return power(size) or (size % 12 == 0 and power(size // 12))


def _factors(size: int) -> tuple[int, ...]:
    """Return orders, each 12 or a power of two, whose product is `size`; two of similar size."""
    if size % 12 == 0 and (size // 12) & (size // 12 - 1) == 0:
        return (12, size // 12) if size > 12 else (12,)
    exponent = size.bit_length() - 1
    if exponent < 4:
        return (size,)
    return 2 ** (exponent // 2), 2 ** (exponent - exponent // 2)


def _paley_12() -> Tensor:
    """H = I + S with S skew: S[i][j] = 1 where j - i is a quadratic residue modulo 11."""
    matrix = torch.ones(12, 12, dtype=torch.float64)
    matrix[1:, 0] = -1.0
    for i in range(11):
        for j in range(11):
            if i != j:
                matrix[1 + i, 1 + j] = 1.0 if (j - i) % 11 in _RESIDUES else -1.0
    return matrix
