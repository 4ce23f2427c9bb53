"""Probes: labelled evaluation sets, their samples' identity, and their decoded images.

Importing this package imports neither torch nor webdataset; opening a probe does.
"""

from clipq.data.arrays import Images, probe_from_images
from clipq.data.class_map import head_columns
from clipq.data.declared import SMALLEST_GROUP, open_declared, unreadable_images, without
from clipq.data.images import blocks_of, materialise, streamed
from clipq.data.leakage import Leak, check_disjoint, check_pictures_apart, leak
from clipq.data.probe import Probe, hashed_order, taken
from clipq.data.repeated import Pictures
from clipq.data.sealed_images import SealedImages, load
from clipq.data.sources import Source, fetch_probe, look_at_probe, open_probe, probe_sources
from clipq.data.unread_files import (
    PassedOver,
    check_passed_over,
    facts_of_files,
    remarks_on_files,
)

__all__ = [
    "SMALLEST_GROUP",
    "Images",
    "Leak",
    "PassedOver",
    "Pictures",
    "Probe",
    "SealedImages",
    "Source",
    "blocks_of",
    "check_disjoint",
    "check_passed_over",
    "check_pictures_apart",
    "facts_of_files",
    "fetch_probe",
    "hashed_order",
    "head_columns",
    "leak",
    "load",
    "look_at_probe",
    "materialise",
    "open_declared",
    "open_probe",
    "probe_from_images",
    "probe_sources",
    "remarks_on_files",
    "streamed",
    "taken",
    "unreadable_images",
    "without",
]
