"""Probes: labelled evaluation sets, their samples' identity, and their decoded images.

Importing this package imports neither torch nor webdataset; opening a probe does.
"""

from clipq.data.class_map import head_columns
from clipq.data.declared import open_declared, unreadable_images, without
from clipq.data.images import blocks_of, load, materialise, streamed
from clipq.data.probe import Probe, check_disjoint, open_probe, probe_sources

__all__ = [
    "Probe",
    "blocks_of",
    "check_disjoint",
    "head_columns",
    "load",
    "materialise",
    "open_declared",
    "open_probe",
    "probe_sources",
    "streamed",
    "unreadable_images",
    "without",
]
