"""Probes: labelled evaluation sets, their samples' identity, and their decoded images.

Importing this package imports neither torch nor webdataset; opening a probe does.
"""

from clipq.data.class_map import head_columns
from clipq.data.declared import open_declared, unreadable_images, without
from clipq.data.images import blocks_of, load, materialise, streamed
from clipq.data.probe import Probe, check_disjoint
from clipq.data.sources import Source, fetch_probe, look_at_probe, open_probe, probe_sources

__all__ = [
    "Probe",
    "Source",
    "blocks_of",
    "check_disjoint",
    "fetch_probe",
    "head_columns",
    "load",
    "look_at_probe",
    "materialise",
    "open_declared",
    "open_probe",
    "probe_sources",
    "streamed",
    "unreadable_images",
    "without",
]
