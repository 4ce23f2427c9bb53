"""Kernels: one test per kernel x conformance check; none where `[matrix] kernels` names none."""


def test_kernel(clipq_kernel_check, clipq_conformance):
    clipq_conformance(clipq_kernel_check)
