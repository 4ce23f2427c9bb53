"""The per-sample prediction table that metrics, baselines and paired resampling read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from clipq.errors import ClipqError, did_you_mean

__all__ = ["Predictions"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Columns per sample (N,) and a few scalars of one model x quantizer on one probe.

    Every probe has ``id``, ``label`` (-1 where it is not one of the classes), ``group`` and the
    OOD scores ``mcm``, ``max_logit``, ``energy``, ``neg_entropy`` (higher = more
    in-distribution). In-distribution probes add ``prediction``, ``rank`` (0-based rank of the true
    label), ``correct``, ``confidence``, ``nll`` (nats), ``brier``, ``top2_gap`` and the
    temperature-scaled twins ``ts_confidence``, ``ts_nll``, ``ts_brier``; and, compared with FP32,
    ``agrees``, ``stays_correct``, ``kl`` (nats) and ``top2_gap_loss``. An optional ``cluster``
    column names what samples share (a base image, say): they are then resampled together; with a
    ``stratum`` column, among the clusters of one stratum.

    Scalars hold what columns cannot give: ``sqnr_db``, ``zero_fraction``, ``effective_rank``,
    ``temperature``.

    Raises:
        ClipqError: columns differ in length, hold objects, or ids repeat.

    >>> table = Predictions({"id": np.array(["a", "b"]), "correct": np.array([1, 0])})
    >>> len(table), float(table.samples("correct").mean())
    (2, 0.5)
    """

    columns: Mapping[str, np.ndarray]
    scalars: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if not isinstance(values, np.ndarray):
                raise ClipqError(
                    f"prediction column {name!r} is a {type(values).__name__}",
                    hint="columns are numpy arrays",
                )
            if values.ndim != 1 or values.dtype.kind not in "biufU":
                raise ClipqError(
                    f"prediction column {name!r} has shape {values.shape} and type {values.dtype}",
                    hint="columns are one-dimensional and of a plain numeric or text type",
                )
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ClipqError(
                f"prediction columns differ in length: {lengths}", hint="one row per sample"
            )
        if "id" in self.columns:
            ids, counts = np.unique(self.columns["id"], return_counts=True)
            if len(ids) and counts.max() > 1:
                raise ClipqError(
                    f"sample id {str(ids[counts.argmax()])!r} occurs {counts.max()} times",
                    hint="ids identify samples when models are compared: make them unique",
                )

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> np.ndarray:
        """Return a column (N,)."""
        if name not in self.columns:
            raise ClipqError(
                f"no prediction column {name!r}", hint=did_you_mean(name, self.columns)
            )
        return self.columns[name]

    def samples(self, name: str) -> np.ndarray:
        """Return a column (N,) that a metric averages: N is at least 1."""
        values = self.column(name)
        if len(values) == 0:
            raise ClipqError(
                f"no samples to compute a metric from: column {name!r} is empty",
                hint="a metric of nothing is not a number; check the probe",
            )
        return values

    def drawn(self, index: np.ndarray) -> Predictions:
        """Return the rows that `index` names, without ids: a resample repeats samples."""
        columns = {name: values[index] for name, values in self.columns.items() if name != "id"}
        return Predictions(columns, self.scalars)

    def scalar(self, name: str) -> float:
        """Return a scalar."""
        if name not in self.scalars:
            raise ClipqError(
                f"no prediction scalar {name!r}", hint=did_you_mean(name, self.scalars)
            )
        return self.scalars[name]
