"""Evaluation: the one place that joins models, quantizers, data and metrics.

    settings -> plan (cases) -> encode (once per model x quantizer x probe) -> predictions

Importing this package imports neither torch nor open_clip; `Evaluator` does when it encodes.
"""
