"""What `clipq study` is asked of: records, runs of the store and sweeps, put together."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cases import FP32, Candidate
from clipq.cli.store import open_for, project_settings
from clipq.cli.study_sweeps import StudiedSweep
from clipq.errors import StudyError, listed
from clipq.terminal import say, shown_width

if TYPE_CHECKING:
    from clipq.cases import Cell
    from clipq.estimate import Estimate
    from clipq.history.pairs import ReadTable
    from clipq.history.store import Store
    from clipq.records import CaseResult, RunRecord
    from clipq.study import Measurements

__all__ = ["StudySources", "say_what_is_partly_measured", "width_of"]


class StudySources:
    """Records and their predictions, from files with the cache or from the store; and sweeps.

    Args:
        options: of the command line.

    Raises:
        StudyError: they name neither a record nor a sweep.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        if not options.records and not options.sweep:
            raise StudyError(
                "neither a record nor a sweep was given",
                hint="name report.json files or runs of the history store, or --sweep PLAN",
            )
        self._options = options
        self._settings = project_settings(options)
        self._store: Store | None = None
        self._tables: dict[str, ReadTable] = {}
        self.sweeps = [StudiedSweep(given) for given in dict.fromkeys(options.sweep)]

    def __enter__(self) -> StudySources:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def gathered(self, *, paired: bool = False, metrics: Collection[str] = ()) -> Measurements:
        """Return all measurements, with what pairs candidates of records if that is asked for.

        Args:
            paired: whether predictions are looked for.
            metrics: that are read of sweeps; all by default.
        """
        from clipq.study import gather
        from clipq.study.calculable import LARGEST

        records = [self._load(name) for name in dict.fromkeys(self._options.records)]
        units = (unit for sweep in self.sweeps for unit in sweep.units(metrics))
        measurements = gather(chain(records, units))
        if beyond := measurements.beyond:
            told = "1 result has" if len(beyond) == 1 else f"{len(beyond):,} results have"
            told += f" a number beyond {LARGEST:g}, which counts as not measured"
            say(f"clipq: {told}: {listed(beyond)}", error=True)
        if not paired or not records:
            return measurements
        statistics = records[0].statistics
        return replace(measurements, paired=_Pairs(self._tables, measurements, statistics))

    def seconds(self) -> dict[str, float]:
        """Return the processor seconds of the sweeps' units, by id."""
        return {one: taken for sweep in self.sweeps for one, taken in sweep.seconds().items()}

    def milliseconds(self, measurements: Measurements) -> dict[str, float]:
        """Return the times per image that the project's settings name, by ``model/quantizer``."""
        if self._settings is None or self._settings.latency is None:
            return {}
        from clipq.evaluation.plan import planned_candidates
        from clipq.gating.latency import load_latencies

        known = {str(candidate) for candidate in planned_candidates(self._settings)}
        known |= {str(Candidate(model.name, FP32)) for model in self._settings.models}
        known |= {str(result.case.candidate) for result in measurements.results.values()}
        bases = {str(Candidate.parse(each).base) for each in known}
        return dict(load_latencies(self._settings.latency, known | bases).milliseconds)

    def provenance(self) -> dict[str, Any]:
        """Return where everything comes from, once it was gathered."""
        from clipq.provenance import package_versions

        return {
            "sweeps": [sweep.described() for sweep in self.sweeps],
            "records": list(dict.fromkeys(self._options.records)),
            "versions": package_versions(("clipq",)),
        }

    def _load(self, name: str) -> RunRecord:
        from clipq.evaluation.cache import Cache
        from clipq.history.estimation import as_recorded, cached_tables
        from clipq.records import read_run

        path = Path(name)
        if path.is_dir() or path.suffix == ".toml":
            raise StudyError(f"{name} is no record", hint=f"of a sweep: --sweep {name}")
        if path.suffix == ".json" or path.is_file():
            record = read_run(path)
            read = cached_tables(record, Cache(self._settings.cache) if self._settings else None)
        else:
            if self._store is None:
                self._store = open_for(self._options, self._settings)
            store, info = self._store, self._store.find(name)
            record = store.load(info)

            def read(cell: Cell) -> bytes | None:
                return store.predictions(info, str(cell))

        own = as_recorded(read, record)
        for cell in record.evidence().get("predictions", {}):
            self._tables.setdefault(cell, own)
        return record


def say_what_is_partly_measured(measurements: Measurements, model: str = "") -> None:
    """Say on standard error which columns configurations have not, for want of a probe.

    Args:
        measurements: of records and units.
        model: which; all by default.
    """
    from clipq.study.study_table import partly_measured

    for each in [model] if model else measurements.models:
        for told in partly_measured(measurements, each):
            say(f"clipq: {told}", error=True)


def width_of(options: argparse.Namespace) -> int | None:
    """Return how wide text may be: as the terminal; None for anything else, as wide as it is."""
    return shown_width() if options.output is None and options.format == "text" else None


class _Pairs:
    """Paired estimates of the same case of two candidates, where both have predictions."""

    def __init__(
        self, tables: dict[str, ReadTable], measurements: Measurements, statistics: Any
    ) -> None:
        self._tables, self._measurements, self._statistics = tables, measurements, statistics

    def __call__(self, one: CaseResult, other: CaseResult) -> Estimate | None:
        from dataclasses import replace

        from clipq.history.pairs import PairedEstimator, with_replicates

        known = self._measurements.in_distribution(one.model)
        if known is None or not self._statistics:
            return None

        def read(of: CaseResult) -> ReadTable:
            def reader(cell: Cell) -> bytes | None:
                own = replace(cell, quantizer=of.quantizer)
                table = self._tables.get(str(own))
                return table(own) if table is not None else None

            return reader

        estimate = PairedEstimator(
            read(one),
            read(other),
            in_distribution=known,
            statistics=with_replicates(self._statistics, replicates=200),
            processes=1,
        )
        return estimate([(one, other)])[0]
