"""clipq's own kernels pass the suite that it offers to others."""


def test_kernel(clipq_kernel_check, clipq_conformance):
    clipq_conformance(clipq_kernel_check)
