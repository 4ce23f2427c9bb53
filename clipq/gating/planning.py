"""Planning: can these samples decide these margins? Asked before time is spent on a run.

The standard error of a paired loss depends on how many samples a quantizer changes. Before a run
that is assumed: a share of FP32's own rows is permuted, which changes samples and harms nothing
(`clipq.stats.swap_rows`). The share fits the margins: a format that may cost three points of
accuracy is given three times the changes of one that may cost a point, and a quantizer that does
harm changes more than one that does none. It remains a guess until a run was recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clipq.cases import Case
from clipq.errors import SettingsError
from clipq.evaluation.candidate_facts import format_class
from clipq.evaluation.resampling import Resampler, Tables
from clipq.evaluation.resolution import resolution
from clipq.gating.baseline import Baseline, load_baseline
from clipq.gating.loss_estimator import LossEstimator
from clipq.gating.margins import Margins
from clipq.gating.verdict import Evidence
from clipq.metrics import Predictions, metrics
from clipq.records import RunRecord
from clipq.settings import ProbeSettings, Settings, StatisticsSettings
from clipq.stats import (
    MINIMUM_CLUSTERS,
    minimum_detectable_effect,
    samples_needed,
    swap_rows,
)

__all__ = ["CasePower", "plan_power"]

_REPLICATES = 200
_AGAINST_FP32 = (("kl",), ("top2_gap_loss",), ("cosine_distance",))
"""Columns that are all zero for FP32: it says nothing about their spread."""
_HARMLESS, _HARMFUL = 1.0, 4.0
"""Changed answers, in margins of top-1. Of this repository's quantizers those that pass change 0.1
to 1.7 times it, those that cost two to four times the margin 3.7 to 6 times."""


@dataclass(frozen=True, slots=True)
class CasePower:
    """What the samples of one probe can decide of one metric of one model, at one margin.

    `passes_from` is the smallest margin that a harmless quantizer passes with the stated power, and
    `blocks_from` the smallest loss that is at least suspect with that power: the minimum detectable
    effects on either side of the margin. `needed` samples pass a loss of 0 and stop one of twice
    the margin. `standard_error` is a harmless quantizer's. `problem` is "" where the margin can be
    decided. `cases` counts the quantizers that share this entry; `changed` is the assumed share of
    samples that a harmless one changes, None where standard errors were measured. `clusters` is how
    many the samples come in, where a column of the probe names them, and `clusters_needed` how many
    of their size hold the samples that are needed; samples of one are assumed to change together.
    """

    model: str
    key: str
    formats: tuple[str, ...]
    cases: int
    unit: str
    samples: int
    standard_error: float
    passes_from: float
    blocks_from: float
    margin: float
    needed: int | None
    problem: str
    basis: str
    changed: float | None = None
    clusters: int | None = None
    clusters_needed: int | None = None


def plan_power(
    settings: Settings,
    cases: Sequence[Case],
    margins: Margins,
    measured: RunRecord | None = None,
) -> list[CasePower]:
    """Return what can be decided, one entry per model, metric and margin.

    Metrics that are one number per probe are left out: nothing is resampled. So are means of
    differences from FP32 (KL, shrinkage of the top-two gap, embedding distance) without a measured
    run: FP32 alone says nothing about their spread.

    Args:
        settings: levels, power and assumed disagreement.
        cases: what is to be run.
        margins: the margin table.
        measured: a run whose standard errors replace assumed ones.

    >>> from pathlib import Path
    >>> from clipq.gating.margins import MarginRule
    >>> from clipq.settings import load_settings
    >>> margins = Margins(Path("margins.toml"), (MarginRule({"*": 0.001}),), ())
    >>> case = Case.parse("vit-clean/rtn:w8/id.top1")
    >>> (power,) = plan_power(load_settings(Path("clipq.toml")), [case], margins)
    >>> power.samples, power.passes_from > power.margin  # too narrow a margin for 2,048 samples
    (2048, True)
    """
    groups: dict[tuple[str, str, float], list[Case]] = {}
    for case in cases:
        statistic = metrics.get(case.metric).statistic
        if statistic is None or statistic.kind != "point":
            group = (case.model, case.key, margins.margin(case))
            groups.setdefault(group, []).append(case)
    errors = _measured(measured) if measured else {}
    planners: dict[str, _Planner | None] = {}
    found = []
    for (model, key, margin), members in sorted(groups.items()):
        if model not in planners:
            stored = load_baseline(settings.baselines, model)
            planners[model] = _Planner(stored, settings, margins) if stored else None
        planner = planners[model]
        if planner is None or key not in planner.baseline.values:
            continue
        seen = [errors[case.id] for case in members if case.id in errors]
        known = _Errors(max(seen), max(seen)) if seen else None
        if known is None and measured is None:
            known = planner.assumed(members[0], margin)
        if known is not None:
            found.append(planner.power(members, margin, known))
    return found


@dataclass(frozen=True, slots=True)
class _Errors:
    """Standard errors of a harmless quantizer's loss and of a harmful one's.

    `changed` is the share of samples that the harmless one is assumed to change; None if measured.
    """

    harmless: float
    harmful: float
    changed: float | None = None

    @property
    def basis(self) -> str:
        if self.changed is None:
            return "standard errors as measured"
        return f"a guess: that {self.changed:.1%} of the samples change, more where harm is done"


class _Planner:
    """Standard errors of one model's metrics, from its baseline alone."""

    def __init__(self, baseline: Baseline, settings: Settings, margins: Margins) -> None:
        statistics, self._asked = settings.statistics, settings
        self.baseline = baseline
        self._margins = margins
        self.statistics = statistics
        self.in_distribution = settings.in_distribution.name
        fewer = replace(statistics, replicates=min(_REPLICATES, statistics.replicates))
        self._estimate = LossEstimator(fewer, Resampler(fewer, threads=settings.threads))
        known = baseline.predictions[self.in_distribution]
        share = _share(known, statistics)
        self._fp32 = {name: Tables(table, known) for name, table in baseline.predictions.items()}
        self._apart: dict[str, tuple[Tables, Tables]] = {}
        self._clustered = {probe.name for probe in settings.probes if _clustered(probe, settings)}
        twin = _swapped(known, share, statistics.seed)
        self._twins = {
            name: Tables(
                twin
                if name == self.in_distribution
                else _swapped(table, share, statistics.seed, stream=1),
                twin,
            )
            for name, table in baseline.predictions.items()
        }

    def assumed(self, case: Case, margin: float) -> _Errors | None:
        """Return standard errors at shares of changed samples that fit the format's margin."""
        error = self._error(case, margin)
        if error is None:
            return None
        known = case.cell.on(self.in_distribution).case("top1")
        try:
            usual = self._margins.margin(known)
        except SettingsError:
            usual = 0.0  # top-1 has no margin: nothing is known of the format
        assumed = self.statistics.disagreement
        shares = [min(1.0, max(assumed, times * usual)) for times in (_HARMLESS, _HARMFUL)]
        harmless, harmful = (error * math.sqrt(share / assumed) for share in shares)
        return _Errors(harmless, harmful, changed=shares[0])

    def _error(self, case: Case, margin: float) -> float | None:
        """Return the standard error of the loss at the settings' disagreement."""
        metric = metrics.get(case.metric)
        statistic = metric.statistic
        if statistic is None or statistic.columns in _AGAINST_FP32:
            return None
        fp32, twin = self._fp32[case.probe], self._twins[case.probe]
        sides = {case.probe, self.in_distribution} if metric.needs_id else {case.probe}
        clustered = bool(sides & self._clustered)
        both = self._independent(case.probe) if clustered else (fp32, twin)
        evidence = Evidence(metric, 0.0, 0.0, margin, *both)
        found = self._estimate(evidence, 0.0, margin=margin).standard_error or 0.0
        if statistic.kind == "share" and 0.0 < margin < 1.0:
            # A loss as large as the margin takes at least that share of changed samples.
            samples = len(fp32.predictions)
            found = max(found, math.sqrt(margin * (1.0 - margin) / samples))
        if not clustered:
            return found
        # Nobody knows how much of a cluster changes together before a run: all of it, at most.
        sizes = len(fp32.predictions), len(fp32.in_distribution)
        own, known = (size / units for size, units in zip(sizes, fp32.units, strict=True))
        return found * math.sqrt(max(own, known) if metric.needs_id else own)

    def _independent(self, probe: str) -> tuple[Tables, Tables]:
        """Return FP32's tables and their twin's with samples that are drawn one by one."""
        if probe not in self._apart:
            both = self._fp32[probe], self._twins[probe]
            self._apart[probe] = _unclustered(both[0]), _unclustered(both[1])
        return self._apart[probe]

    def power(
        self,
        members: Sequence[Case],
        margin: float,
        errors: _Errors,
    ) -> CasePower:
        case, statistics = members[0], self.statistics
        formats = {format_class(member.candidate, self._asked) for member in members}
        metric = metrics.get(case.metric)
        tables = self._fp32[case.probe]
        power = statistics.power
        blocks_at = max(statistics.suspicion, statistics.tail)  # without suspicion, failures alone
        sides = (errors.harmless, statistics.tail), (errors.harmful, blocks_at)
        passes, blocks = (
            minimum_detectable_effect(error, tail=tail, power=power) for error, tail in sides
        )
        samples = len(tables.predictions)
        needed = [
            samples_needed(samples, error, margin, tail=tail, power=power) for error, tail in sides
        ]
        most = None if None in needed else max(filter(None, needed))
        codes = tables.clusters[0] if case.probe in self._clustered else None
        clusters = None if codes is None else int(codes.max()) + 1
        counted = list(zip(tables.clusters, tables.units, strict=True))[: 1 + metric.needs_id]
        few = any(own is not None and units < MINIMUM_CLUSTERS - 1e-6 for own, units in counted)
        problem = _problem(margin, passes, resolution(metric, self._twins[case.probe], tables))
        return CasePower(
            model=case.model,
            key=case.key,
            formats=tuple(sorted(formats)),
            cases=len(members),
            unit=metric.unit,
            samples=samples,
            standard_error=errors.harmless,
            passes_from=passes,
            blocks_from=margin + blocks,
            margin=margin,
            needed=most,
            problem="too few clusters" if few else problem,
            basis=errors.basis,
            changed=errors.changed,
            clusters=clusters,
            clusters_needed=None
            if clusters is None or most is None
            else max(MINIMUM_CLUSTERS, math.ceil(most * clusters / samples)),
        )


def _clustered(probe: ProbeSettings, settings: Settings) -> bool:
    """Return whether a column names clusters of a probe's samples, or of some of a pooled one's."""
    members = settings.members(probe.name) if probe.role == "pooled" else (probe,)
    return any(member.cluster for member in members)


def _swapped(table: Predictions, share: float, seed: int, *, stream: int = 0) -> Predictions:
    """Return a table with a share of its rows permuted; places keep their cluster and stratum."""
    moved = table.drawn(swap_rows(len(table), share, seed=seed, stream=stream))
    kept = {name: table.columns[name] for name in ("cluster", "stratum") if name in table.columns}
    return Predictions({**moved.columns, **kept}, moved.scalars)


def _unclustered(tables: Tables) -> Tables:
    """Return tables whose samples are drawn one by one."""
    alone = [
        Predictions(
            {name: values for name, values in table.columns.items() if name != "cluster"},
            table.scalars,
        )
        for table in dict.fromkeys((tables.predictions, tables.in_distribution))
    ]
    return Tables(alone[0], alone[-1])


def _measured(record: RunRecord) -> dict[str, float]:
    errors = {case.id: case.estimate.standard_error for case in record.cases}
    return {name: error for name, error in errors.items() if error is not None}


def _share(known: Predictions, statistics: StatisticsSettings) -> float:
    """Return the share of rows to permute so that the assumed share changes its correctness."""
    accuracy = float(known.column("correct").mean())
    changes = 2.0 * accuracy * (1.0 - accuracy)
    return min(1.0, statistics.disagreement / changes) if changes else 1.0


def _problem(margin: float, passes_from: float, one_sample: float) -> str:
    if margin < one_sample:
        return "less than one sample"
    return "too small to pass" if margin < passes_from else ""
