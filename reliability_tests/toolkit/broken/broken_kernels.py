"""Every planted bug of a kernel, by what it is called, with the check that must catch it."""

from __future__ import annotations

import broken_product_kernels as products
import broken_rounding_kernels as rounding
import broken_row_kernels as rows
from broken_rounding_kernels import BROKEN_ON_A_GPU, ROUNDING, fake_quantize

__all__ = ["BROKEN", "BROKEN_ON_A_GPU", "HEALTHY", "ROUNDING", "fake_quantize"]

HEALTHY = rounding.HEALTHY | products.HEALTHY | rows.HEALTHY
BROKEN = rounding.BROKEN | products.BROKEN | rows.BROKEN
