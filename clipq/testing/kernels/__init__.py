"""Conformance of kernels: `check_kernel` for tests, `judge` for the rows of a report."""

from clipq.testing.kernels.conformance import check_kernel, judge, load_kernel

__all__ = ["check_kernel", "judge", "load_kernel"]
