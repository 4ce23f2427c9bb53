"""Metrics: pure functions of predictions to one number, declared with unit and direction.

Importing this package imports neither torch nor any metric library: `Metric.compute` does.
"""

import clipq.metrics.catalogue  # noqa: F401 - it declares what clipq brings
from clipq.metrics.declare import Metric, Statistic, metrics
from clipq.metrics.predictions import Predictions

__all__ = ["Metric", "Predictions", "Statistic", "metrics"]
