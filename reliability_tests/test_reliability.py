"""This repository's own matrix: four embedded CLIPs x quantizers x probes x metrics."""


def test_reliability(clipq_case, clipq_gate):
    clipq_gate(clipq_case)
