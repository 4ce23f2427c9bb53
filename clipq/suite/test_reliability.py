"""The matrix: one test per model x quantizer x probe x metric.

Projects that keep their own test module write the same two lines, or import this test.
"""


def test_reliability(clipq_case, clipq_gate):
    clipq_gate(clipq_case)
