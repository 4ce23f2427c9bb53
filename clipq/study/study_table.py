"""The study's table: models x quantizers x what the study looks at, over samples and seeds."""

from __future__ import annotations

from dataclasses import dataclass

from clipq.errors import listed
from clipq.study.configurations import Configuration
from clipq.study.effects import Effect, summarise
from clipq.study.measurements import Measurements

__all__ = [
    "COLUMNS",
    "Column",
    "Entry",
    "StudyRow",
    "entry_of",
    "partly_measured",
    "probes_of",
    "reference_entry",
    "study_rows",
]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: a title, the metric, which way is better, and the probes it is the mean of.

    >>> [column.key for column in COLUMNS[:5]]
    ['top1', 'ece', 'ts-ece', 'auroc-mcm.near', 'auroc-mcm.far']
    """

    title: str
    metric: str
    sign: int
    role: str
    distance: str = ""
    level: bool = False

    @property
    def key(self) -> str:
        """How data names it: the metric, and where that is not enough, distance or role."""
        beside = self.distance or ("" if self.role in _USUAL.get(self.metric, _ANY) else self.role)
        return f"{self.metric}.{beside}" if beside else self.metric


_USUAL = {"auroc-mcm": ("ood",), "corruption-error": ("corruption",)}
_USUAL |= dict.fromkeys(("added-vulnerability", "relative-gap"), ("spurious",))
_ANY = ("in-distribution",)

COLUMNS = (
    Column("top-1", "top1", 1, "in-distribution"),
    Column("ECE", "ece", -1, "in-distribution"),
    Column("ts-ECE", "ts-ece", -1, "in-distribution"),
    Column("AUROC near", "auroc-mcm", 1, "ood", "near"),
    Column("AUROC far", "auroc-mcm", 1, "ood", "far"),
    Column("corruption error", "corruption-error", -1, "corruption"),
    Column("added vulnerability", "added-vulnerability", -1, "spurious"),
    Column("relative gap", "relative-gap", -1, "spurious"),
    Column("SQNR 0-8", "sqnr-low", 1, "in-distribution", level=True),
    Column("SQNR 8-64", "sqnr-mid", 1, "in-distribution", level=True),
    Column("SQNR 64+", "sqnr-high", 1, "in-distribution", level=True),
)
"""What the table shows. The mean over probes where a role, or a distance, has several."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of the table.

    Args:
        value: of the metric; the mean over seeds.
        low: lower bound of the change against FP32; of the value itself, where FP32 has none.
        high: upper bound of the same.
        change: against FP32; None for FP32 itself, and where FP32 has none.
        better: whether it is surely better than FP32.
        worse: whether it is surely worse.
        cases: what it rests on.
        effect: the change, or the value where FP32 has none, with its errors; None where one seed
            of what is drawn is all there is.
    """

    value: float
    low: float | None = None
    high: float | None = None
    change: float | None = None
    better: bool = False
    worse: bool = False
    cases: tuple[str, ...] = ()
    effect: Effect | None = None


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One configuration of one model; entries in the order of `COLUMNS`, None where unmeasured."""

    model: str
    quantizer: str
    seeds: tuple[int, ...]
    entries: tuple[Entry | None, ...]


def study_rows(measurements: Measurements) -> list[StudyRow]:
    """Return the table: of each model FP32 first, then its configurations by text.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> from clipq.records import CaseResult, RunRecord
    >>> from clipq.study.gathering import gather
    >>> from clipq.verdicts import Verdict
    >>> case = CaseResult(Case.parse("vit/rtn:w4a4@vision/id.top1"), Verdict.FAIL, baseline=0.9,
    ...                   observed=0.3, estimate=Estimate(loss=0.6, standard_error=0.01),
    ...                   evidence={"probes": {"id": {"role": "in-distribution"}}})
    >>> rows = study_rows(gather([RunRecord("ci", 1, (case,))]))
    >>> [(row.quantizer, row.entries[0].value, row.entries[0].worse) for row in rows]
    [('fp32', 0.9, False), ('rtn:w4a4@vision', 0.3, True)]
    """
    rows = []
    for model in measurements.models:
        fp32 = tuple(reference_entry(measurements, model, column) for column in COLUMNS)
        rows.append(StudyRow(model, "fp32", (), fp32))
        for each in measurements.configurations[model]:
            entries = tuple(entry_of(measurements, model, each, column) for column in COLUMNS)
            seeds = measurements.seeds(model, each) if each.draws else ()
            rows.append(StudyRow(model, each.text, seeds, entries))
    return rows


def probes_of(measurements: Measurements, model: str, column: Column) -> tuple[str, ...]:
    """Return the probes of a column that have its metric for this model."""
    return measurements.probes_with(model, column.role, column.metric, distance=column.distance)


def partly_measured(measurements: Measurements, model: str) -> list[str]:
    """Return a sentence for each column that configurations lack a probe of, and so have not.

    >>> from clipq.study.gathering import gather
    >>> from clipq.study.drawn_results import MeasuredUnit
    >>> from clipq.cases import Case
    >>> from clipq.records import CaseResult
    >>> from clipq.verdicts import Verdict
    >>> probes = {"probes": {name: {"role": "ood", "distance": "far"} for name in ("a", "b")}}
    >>> units = [
    ...     MeasuredUnit(text, (CaseResult(Case.parse(text), Verdict.PASS, observed=0.9),), probes)
    ...     for text in ("vit/rtn:w4/a.auroc-mcm", "vit/rtn:w8/b.auroc-mcm")
    ... ]
    >>> partly_measured(gather(units), "vit")
    ['AUROC far of vit is the mean over a, b; 2 configurations lack one of them, and have none']
    """
    found = []
    for column in COLUMNS:
        probes = probes_of(measurements, model, column)
        counts = [
            sum(
                measurements.values(model, each, (probe,), column.metric) is not None
                for probe in probes
            )
            for each in measurements.configurations[model]
        ]
        if partly := sum(0 < count < len(probes) for count in counts):
            lack = "configuration lacks" if partly == 1 else "configurations lack"
            found.append(
                f"{column.title} of {model} is the mean over {listed(probes)}; {partly:,} {lack} "
                f"one of them, and {'has' if partly == 1 else 'have'} none"
            )
    return found


def reference_entry(measurements: Measurements, model: str, column: Column) -> Entry | None:
    """Return FP32's number in a column; None where it has none."""
    probes = probes_of(measurements, model, column)
    values = [measurements.baseline(model, probe, column.metric) for probe in probes]
    known = [value[0] for value in values if value is not None]
    return Entry(sum(known) / len(known)) if known else None


def entry_of(
    measurements: Measurements, model: str, of: Configuration, column: Column
) -> Entry | None:
    """Return a configuration's number in a column; None where it was not measured."""
    probes = probes_of(measurements, model, column)
    if not probes:
        return None
    values = measurements.values(model, of, probes, column.metric)
    if values is None:
        return None
    value = sum(point.value for point in values.points.values()) / len(values.points)
    compared = measurements.level if column.level else measurements.change
    effect = summarise(compared(model, of, probes, column.metric))
    if effect is None:
        return Entry(value, cases=values.cases)
    if column.level:
        low, high = effect.interval()
        return Entry(value, low, high, cases=values.cases, effect=effect)
    return _compared(value, effect, column.sign)


def _compared(value: float, effect: Effect, sign: int) -> Entry:
    low, high = effect.interval()
    above, below = low > 0.0, high < 0.0
    better, worse = (above, below) if sign > 0 else (below, above)
    return Entry(value, low, high, effect.value, better, worse, effect.cases, effect)
