"""Every number of a study in one long table: model x configuration x probe x metric."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

from clipq.csv_cells import no_formula
from clipq.study.configurations import Configuration
from clipq.study.effects import summarise
from clipq.study.measurements import Measurements

__all__ = ["study_values", "values_text"]


def study_values(measurements: Measurements) -> Iterator[dict[str, Any]]:
    """Yield a row per model, configuration, probe and metric.

    ``value`` is the mean over seeds, ``change`` that minus FP32's, ``low`` and ``high`` its 95 %
    interval over samples and seeds; of a metric that FP32 has no value of, the value's own. They
    are None where one seed of what is drawn is all there is, or no error is known; a seed without
    one takes part only then. ``units`` are the ids of the units of a sweep, as ``seeds`` are
    ordered.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> from clipq.records import CaseResult
    >>> from clipq.study import MeasuredUnit, gather
    >>> from clipq.verdicts import Verdict
    >>> case = CaseResult(Case.parse("vit/rtn:w4/id.top1"), Verdict.PASS, baseline=0.9,
    ...                   observed=0.8, estimate=Estimate(loss=0.1, standard_error=0.01))
    >>> row, = study_values(gather([MeasuredUnit("0f", (case,), {})]))
    >>> row["probe"], row["fp32"], row["value"], round(row["low"], 4), row["units"]
    ('id', 0.9, 0.8, -0.1196, ['0f'])
    """
    for model in measurements.models:
        for each in measurements.configurations[model]:
            held = measurements.drawn[model, each.text]
            keys = {key for drawn in held.values() for key in drawn.results}
            for probe, metric in sorted(keys):
                yield _row(measurements, model, each, probe, metric)


def _row(
    measurements: Measurements, model: str, of: Configuration, probe: str, metric: str
) -> dict[str, Any]:
    held = measurements.drawn[model, of.text]
    measured = measurements.values(model, of, (probe,), metric)
    values = [] if measured is None else [point.value for point in measured.points.values()]
    seeds = [seed for seed in sorted(held) if (probe, metric) in held[seed].results]
    result = held[seeds[0]].results[probe, metric]
    seeds = seeds if measured is None else list(measured.points)
    fp32 = result.baseline
    compared = measurements.change if fp32 is not None else measurements.level
    effect = summarise(compared(model, of, (probe,), metric))
    low, high = effect.interval() if effect else (None, None)
    return {
        "model": model,
        "configuration": of.text,
        "method": of.method,
        "bits": of.bits,
        "towers": of.towers,
        "trained": of.trained,
        "tuned": of.tuned,
        "calibration_samples": of.samples or None,
        "probe": probe,
        "metric": metric,
        "unit": result.unit,
        "direction": result.direction,
        "fp32": fp32,
        "value": sum(values) / len(values) if values else None,
        "change": effect.value if effect and fp32 is not None else None,
        "low": low,
        "high": high,
        "seeds": seeds if of.draws else [],
        "units": [held[seed].units.get((probe, metric), "") for seed in seeds],
    }


def values_text(measurements: Measurements, form: str = "csv") -> str:
    """Return the long table as ``csv``, with blanks between seeds and units, or as ``json``."""
    rows = study_values(measurements)
    if form == "json":
        return json.dumps(list(rows), allow_nan=False)
    written = StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(written, list(row), lineterminator="\n")
            writer.writeheader()
        for name in ("seeds", "units"):
            row[name] = " ".join(map(str, row[name]))
        writer.writerow({name: no_formula(value) for name, value in row.items()})
    return written.getvalue().rstrip("\n")
