"""Probes: labelled evaluation sets, their samples' identity, and their decoded images.

Importing this package imports neither torch nor webdataset; opening a probe does.
"""

from clipq.data.arrays import Images, probe_from_images
from clipq.data.class_map import head_columns
from clipq.data.declared import open_declared, unreadable_images, without
from clipq.data.images import blocks_of, load, materialise, streamed
from clipq.data.probe import (
    Probe,
    check_disjoint,
    hashed_order,
    open_probe,
    probe_sources,
    taken,
)

__all__ = [
    "Images",
    "Probe",
    "blocks_of",
    "check_disjoint",
    "hashed_order",
    "head_columns",
    "load",
    "materialise",
    "open_declared",
    "open_probe",
    "probe_from_images",
    "probe_sources",
    "streamed",
    "taken",
    "unreadable_images",
    "without",
]
