"""What is to be said of a probe's clusters: how many they are, and what is odd about them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clipq.cluster_names import cluster_column
from clipq.data import Probe
from clipq.data.cluster_hints import shared_stems
from clipq.metrics import Predictions
from clipq.stats import MINIMUM_CLUSTERS, cluster_codes, effective_units

__all__ = ["cluster_fact", "cluster_remarks", "clusters_changed"]


def cluster_fact(probe: Probe) -> str:
    """Return how many clusters a probe's samples come in, and how large they are; "" for none.

    >>> from clipq.data import Images, probe_from_images
    >>> frames = Images(np.zeros((4, 8, 8, 3), np.uint8), clusters=["a", "a", "a", "b"])
    >>> cluster_fact(probe_from_images(frames, name="frames", role="ood"))
    "2 of 'cluster', 1 to 3 samples each, worth 1.6 of equal size: drawn and counted as a whole"
    """
    codes = _codes(probe)
    if codes is None:
        column = cluster_column(probe.clusters)
        return f"{len(probe):,} of {column!r}, one sample each: as if there were none" * bool(
            column
        )
    column, sizes = cluster_column(probe.clusters), np.bincount(codes)
    of = f" of {column!r}" if column else " base images"
    return (
        f"{len(sizes):,}{of}, {sizes.min():,} to {sizes.max():,} samples each, worth "
        f"{effective_units(codes, len(probe)):,.4g} of equal size: drawn and counted as a whole"
    )


def cluster_remarks(probe: Probe, calibration: Probe | None = None) -> Iterator[str]:
    """Yield what a reader should know: clusters that are few or leak, and ids that suggest some.

    Args:
        probe: any.
        calibration: the calibration split, where it is known.

    >>> from clipq.data import Images, probe_from_images
    >>> frames = Images(np.zeros((60, 8, 8, 3), np.uint8), clusters=["a", "b", "c"] * 20)
    >>> for remark in cluster_remarks(probe_from_images(frames, name="frames", role="ood")):
    ...     print(remark)
    3 clusters of samples are too few for a verdict, which takes 25: they count, not the samples...
    """
    codes = _codes(probe)
    if codes is not None and effective_units(codes, len(probe)) < MINIMUM_CLUSTERS - 1e-6:
        sizes = np.bincount(codes)
        units = effective_units(codes, len(probe))
        worth = f" (worth {units:.3g} of equal size)" if round(units) < len(sizes) else ""
        end = "" if probe.role == "calibration" else ", and every case will end in an error"
        yield (
            f"{len(sizes)} clusters of samples{worth} are too few for a verdict, which takes "
            f"{MINIMUM_CLUSTERS}: they count, not the samples{end}"
        )
    if probe.role == "proxy":
        return  # no interval is drawn of it
    column = cluster_column(probe.clusters)
    if calibration is not None and calibration.name != probe.name and column and probe.clusters:
        both = sorted(set(probe.clusters) & set(calibration.clusters or ()))
        if both:
            yield (
                f"{len(both)} of its {len(set(probe.clusters))} clusters are in the calibration "
                f"split as well, for example {both[0]}: ranges and temperature know them, which "
                "flatters; split by cluster"
            )
    if probe.clusters is None:
        yield from _suggested(probe)


def clusters_changed(stored: Predictions, live: Predictions) -> str:
    """Return in what the clusters of a stored table are not those of another; "" if in nothing.

    Args:
        stored: a baseline's table of a probe.
        live: of the same probe, now.

    >>> ids = np.array(["a", "b"])
    >>> now = Predictions({"id": ids, "cluster": np.array(["patient=1", "patient=1"])})
    >>> clusters_changed(Predictions({"id": ids}), now)
    "its samples come in clusters now, cluster = 'patient'; in the baseline they are independent"
    """
    columns = [table.columns.get("cluster") for table in (stored, live)]
    before, after = (cluster_column(column) for column in columns)
    if before != after:
        if not before:
            return (
                f"its samples come in clusters now, cluster = {after!r}; in the baseline they are "
                "independent"
            )
        now = f"now cluster = {after!r}" if after else "now they are independent"
        return f"in the baseline its samples come in clusters, cluster = {before!r}; {now}"
    if not before or columns[0] is None or columns[1] is None:
        return ""
    if not np.array_equal(stored.column("id"), live.column("id")):
        return ""  # other samples: that is what is to be said
    moved = np.flatnonzero(columns[0] != columns[1])
    if not len(moved):
        return ""
    at = moved[0]
    return (
        f"sample {str(stored.column('id')[at])!r} belongs to {columns[1][at]} now, in the baseline "
        f"to {columns[0][at]}" + (f" (and {len(moved) - 1} others)" if len(moved) > 1 else "")
    )


def _codes(probe: Probe) -> np.ndarray | None:
    clusters = None if probe.clusters is None else np.asarray(probe.clusters, np.str_)
    return cluster_codes(clusters, len(probe))


def _suggested(probe: Probe) -> Iterator[str]:
    found = shared_stems(probe.ids, probe.labels)
    if found is not None:
        first, second = found.example
        yield (
            f"{found.samples:,} of {len(probe):,} samples share the stem of their id with another, "
            f"as {first!r} and {second!r} do, {found.stems:,} stems in all: where these belong "
            "together (one patient, one video, one burst), name what they share in a column and "
            "say so, cluster = 'COLUMN'; else every interval is too narrow"
        )
