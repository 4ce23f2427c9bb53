"""Case results made up for benchmarks and tests, from a flat list of names and numbers."""

from collections.abc import Iterable
from dataclasses import fields, replace

from scipy.stats import norm

from clipq.cases import Candidate, Cell
from clipq.estimate import Estimate
from clipq.estimate import loss as loss_of
from clipq.evaluation.resampling import Resampler
from clipq.gating.decision import decide
from clipq.gating.interval import IntervalJudge
from clipq.gating.verdict import Evidence
from clipq.records import CaseResult
from clipq.settings import StatisticsSettings
from clipq.verdicts import Verdict

ESTIMATED = {field.name for field in fields(Estimate)}

POSITIONS = (
    *("reason", "unit", "direction", "metric_version", "samples", "baseline", "observed"),
    *("loss", "margin", "next_command", "evidence"),
)


def made_result(
    model: str, quantizer: str, probe: str, metric: str, verdict: Verdict, *rest, **values
) -> CaseResult:
    """Return a result; values named as the fields of an estimate become its estimate.

    Positional values are, in order, those of `POSITIONS`.
    """
    values |= dict(zip(POSITIONS, rest, strict=False))
    estimate = {name: values.pop(name) for name in ESTIMATED & values.keys()}
    case = Cell(model, quantizer, probe).case(metric)
    return CaseResult(case, verdict, estimate=Estimate(**estimate), **values)


def judged_alone(evidence: Evidence, settings: StatisticsSettings, *, cases: int = 1) -> CaseResult:
    """Judge one case of a candidate that has so many, of which no other was measured."""
    judged = IntervalJudge(settings, Resampler(settings))(evidence)
    result = CaseResult(
        Cell("m", "q", "p").case(evidence.metric.name),
        judged.verdict,
        reason=judged.reason,
        samples=judged.samples or len(evidence.observed_tables.predictions),
        baseline=evidence.baseline,
        estimate=judged.estimate,
    )
    return decide([result], settings, whole=cases)[0]


def judged_by_errors(
    results: Iterable[CaseResult], settings: StatisticsSettings | None = None
) -> tuple[CaseResult, ...]:
    """Give results the intervals, p-values and verdicts of their values and standard errors.

    A record of them is one that the gate might have written. What has no standard error is compared
    as it stands.
    """
    settings = settings or StatisticsSettings()
    candidates: dict[Candidate, list[CaseResult]] = {}
    for result in results:
        loss = loss_of(result.direction, result.baseline, result.observed)
        error, margin = result.estimate.standard_error, result.estimate.margin
        verdict, known = Verdict.PASS if loss <= margin else Verdict.FAIL, {}
        if error is not None:
            away = float(norm.isf(settings.tail)) * error
            p_value = float(norm.sf((loss - margin) / error))
            known = {"low": loss - away, "high": loss + away, "p_value": p_value}
        result = altered(result, verdict=verdict, loss=loss, **known)
        candidates.setdefault(result.case.candidate, []).append(result)
    return tuple(case for own in candidates.values() for case in decide(own, settings))


def altered(result: CaseResult, **values) -> CaseResult:
    """Return a result with other values, flat as for `made_result`."""
    estimate = {name: values.pop(name) for name in ESTIMATED & values.keys()}
    names = ("model", "quantizer", "probe", "metric")
    parts = [values.pop(name, getattr(result.case, name)) for name in names]
    case = Cell(*parts[:3]).case(parts[3])
    return replace(result, case=case, estimate=replace(result.estimate, **estimate), **values)
