"""Metrics: pure functions of predictions to one number, declared with unit and direction.

    >>> import clipq
    >>> clipq.metrics.get("ece").unit, "top1" in clipq.metrics.names()
    ('fraction', True)

Importing this package imports neither torch nor any metric library: `Metric.compute` does.
"""

import clipq.metrics.catalogue  # noqa: F401 - it declares what clipq brings
from clipq.metrics.declare import Metric, Statistic, metrics
from clipq.metrics.predictions import Predictions

__all__ = ["Metric", "Predictions", "Statistic", "add", "get", "metrics", "names"]

add, get, names = metrics.add, metrics.get, metrics.names
