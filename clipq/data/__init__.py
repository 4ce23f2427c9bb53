"""Probes: labelled evaluation sets, their samples' identity, and their decoded images.

Importing this package imports neither torch nor webdataset; opening a probe does.
"""

from clipq.data.images import load, materialise
from clipq.data.probe import (
    Probe,
    check_disjoint,
    open_declared,
    open_probe,
    probe_sources,
)

__all__ = [
    "Probe",
    "check_disjoint",
    "load",
    "materialise",
    "open_declared",
    "open_probe",
    "probe_sources",
]
