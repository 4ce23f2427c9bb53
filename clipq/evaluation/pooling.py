"""Pooled evidence: the samples of several probes as one table.

A loss too small to be seen on any one probe is seen where it points the same way on all of them,
for the samples then add up (as McNemar's test does over the benchmarks of Kubler et al. 2026, "When
LLMs get significantly worse", arXiv:2602.10144, for accuracy; here for every mean over samples).
Nothing is encoded or stored for it: a pooled table follows from its members' tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from clipq.cluster_names import cluster_column, image_cluster, in_place
from clipq.errors import ProbeError
from clipq.metrics import Predictions
from clipq.provenance import digest

if TYPE_CHECKING:
    from clipq.data import Probe

__all__ = ["Origins", "check_apart", "pool", "pooled_fingerprint"]

Origins = Mapping[str, str]
"""From each member to the first member that reads its images from the same place."""

_SMALLEST_STRATUM = 10
"""Base images that a stratum needs: a few, drawn among themselves, show too little variance."""
_OWN = ("id", "label", "prediction", "group", "cluster")
"""Columns that mean something only within a probe; classes are counted in each one's own list."""
_MIXED = "mixed"


def pool(tables: Mapping[str, Predictions], origins: Origins) -> Predictions:
    """Return the samples of several probes as one table (N,), N the sum of their samples.

    Ids and groups say which probe a sample is from. Of the other columns, those stay that all
    members have. Two columns say how to resample:

    - ``cluster``, what a column names or the base image: samples of one are drawn together, across
      probes as well;
    - ``stratum``, in which probes a base image has how many samples. Images are drawn among those
      alike, so that every probe keeps its size in every resample. Kinds of fewer than 10 images
      are drawn with each other (``mixed``), and where even those are fewer, with the largest kind:
      sizes then vary by as many samples. Of clusters that a column names, only in which probes
      they are counts: how many samples each has is chance.

    Args:
        tables: of each member, by probe, in one order for FP32 and for what is compared with it.
        origins: which members share their images.

    >>> table = Predictions({"id": np.array(["a", "b"]), "rank": np.array([0, 1])})
    >>> pooled = pool({"id": table, "fog": table}, {"id": "id", "fog": "id"})
    >>> pooled.column("id").tolist(), pooled.column("cluster").tolist()
    (['id/a', 'id/b', 'fog/a', 'fog/b'], ['id/a', 'id/b', 'id/a', 'id/b'])
    >>> sorted(set(pooled.column("stratum").tolist())), pooled.column("rank").tolist()
    (['1 fog, 1 id'], [0, 1, 0, 1])
    """
    first, *others = tables.values()
    shared = [
        name
        for name in first.columns
        if name not in _OWN and all(name in other.columns for other in others)
    ]
    ids, clusters, named = [], [], []
    for probe, table in tables.items():
        own = table.column("id")
        ids.append(np.char.add(f"{probe}/", own))
        cluster = table.columns.get("cluster")
        if cluster is None:
            cluster = np.array([image_cluster(sample) for sample in own.tolist()], np.str_)
        clusters.append(in_place(cluster, origins[probe]))
        named.append(np.full(len(own), bool(cluster_column(cluster))))
    probe_of = np.repeat(list(tables), [len(table) for table in tables.values()])
    cluster = np.concatenate(clusters)
    return Predictions(
        {
            "id": np.concatenate(ids),
            "group": probe_of,
            "cluster": cluster,
            "stratum": _strata(cluster, probe_of, np.concatenate(named)),
            **{
                name: np.concatenate([table.column(name) for table in tables.values()])
                for name in shared
            },
        }
    )


def pooled_fingerprint(origins: Origins, fingerprints: Mapping[str, str]) -> str:
    """Return what identifies a pooled probe: its members, their samples, which images they share.

    Args:
        origins: which members share their images.
        fingerprints: what identifies each member's samples and labels.

    >>> origins, samples = {"id": "id", "fog": "id"}, {"id": "0f", "fog": "1e"}
    >>> pooled_fingerprint(origins, samples) == pooled_fingerprint(origins, samples | {"fog": "2d"})
    False
    """
    return digest([[name, origin, fingerprints[name]] for name, origin in origins.items()])


def check_apart(members: Sequence[Probe], origins: Origins) -> None:
    """Refuse members that share an image without being known to: it would count as two.

    Args:
        members: the probes.
        origins: which of them share their images by reading them from one place.

    Raises:
        ProbeError: an image, by its hash, comes from two places.

    >>> from clipq.data import Images, probe_from_images
    >>> black = Images(np.zeros((1, 8, 8, 3), np.uint8), [0], ["night"])
    >>> probes = [probe_from_images(black, name=name, role="shift") for name in ("near", "far")]
    >>> check_apart(probes, {"near": "near", "far": "near"})
    >>> check_apart(probes, {"near": "near", "far": "far"})
    Traceback (most recent call last):
    clipq.errors.ProbeError: probes 'near' and 'far' are pooled and share 1 images from two sources
    ...
    """
    seen: dict[str, set[str]] = {}
    for probe in members:
        origin, own = origins[probe.name], set(probe.sample_hashes)
        for other, images in seen.items():
            if other != origin and (both := own & images):
                raise ProbeError(
                    f"probes {other!r} and {probe.name!r} are pooled and share {len(both)} images "
                    "from two sources",
                    hint="read them from one source and split, so that they are resampled "
                    "together, or pool only one of them",
                )
        seen.setdefault(origin, set()).update(own)


def _strata(cluster: np.ndarray, probe_of: np.ndarray, named: np.ndarray) -> np.ndarray:
    """Return the stratum (N,) of each sample: what its base image or cluster has in which probe."""
    probes, probe = np.unique(probe_of, return_inverse=True)
    images, first, image = np.unique(cluster, return_index=True, return_inverse=True)
    held = np.zeros((len(images), len(probes)), np.int64)
    np.add.at(held, (image, probe), 1)
    # How many samples a named cluster has is chance, and no size that a resample must keep.
    held[named[first]] = -np.minimum(held[named[first]], 1)
    kinds, kind, size = np.unique(held, axis=0, return_inverse=True, return_counts=True)
    names = np.array(
        [
            ", ".join(
                f"{count if count > 0 else 'some'} {name}"
                for count, name in zip(row.tolist(), probes, strict=True)
                if count
            )
            for row in kinds
        ]
    )
    small = size < _SMALLEST_STRATUM
    if small.any():
        few = size[small].sum() < _SMALLEST_STRATUM
        names[small] = names[size.argmax()] if few else _MIXED
    return np.asarray(names[kind.reshape(-1)][image])
