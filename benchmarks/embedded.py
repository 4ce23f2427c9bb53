"""This repository's own matrix as benchmarks use it: cells, evidence and judgements.

The one place here that knows how clipq evaluates and judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from clipq.cases import Cell
from clipq.evaluation.batch_check import BatchCheck
from clipq.evaluation.encoders import Encoders
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import plan
from clipq.evaluation.resampling import Resampler, Tables
from clipq.gating.baseline import load_baseline
from clipq.gating.decision import decide
from clipq.gating.interval import IntervalJudge
from clipq.gating.margins import load_margins
from clipq.gating.verdict import Evidence, Judgement
from clipq.metrics import Metric, Predictions, metrics
from clipq.records import CaseResult
from clipq.settings import Settings, StatisticsSettings, load_settings
from clipq.verdicts import Verdict

__all__ = [
    "REPOSITORY",
    "corrected",
    "embedded_settings",
    "evidence",
    "judge",
    "kept_predictions",
    "predictions",
    "prepared_cases",
    "without_batch_check",
    "without_containment",
]

REPOSITORY = Path(__file__).parents[1]


def embedded_settings(
    *,
    models: int | None = None,
    quantizers: Sequence[str] = (),
    probes: Sequence[str] = (),
    samples: int = 0,
    cache: Path | None = None,
) -> Settings:
    """Return this repository's settings without its artifacts, narrowed where asked to.

    To make an artifact takes longer than what most benchmarks measure.

    Args:
        models: how many, the first ones.
        quantizers: in canonical form; empty for all.
        probes: names, in-distribution and calibration among them; empty for all.
        samples: of a probe at most; 0 for all.
        cache: where to keep predictions, if not where the settings say.
    """
    settings = load_settings(REPOSITORY / "clipq.toml")
    chosen = [probe for probe in settings.probes if not probes or probe.name in probes]
    if samples:
        chosen = [replace(p, samples=min(p.samples or samples, samples)) for p in chosen]
    return replace(
        settings,
        models=settings.models[:models],
        quantizers=tuple(quantizers) or settings.quantizers,
        artifacts=(),
        probes=tuple(chosen),
        cache=settings.cache if cache is None else cache,
    )


@contextmanager
def kept_predictions(cache: Path | None, *, apart: bool) -> Iterator[Path | None]:
    """Yield where predictions are kept: the given folder, this repository's, or for now only.

    Args:
        cache: the folder, if one is given.
        apart: whether this repository's cache is left alone, as quick runs do.
    """
    if cache is not None or not apart:
        yield cache
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


def predictions(evaluator: Evaluator, model: str, quantizer: str, probe: str) -> Predictions:
    """Return the predictions of one cell."""
    return evaluator.evaluate(Cell(model, quantizer, probe)).predictions


def judge(settings: StatisticsSettings, resampler: Resampler) -> IntervalJudge:
    """Return what judges evidence as a gate does, each case by itself."""
    return IntervalJudge(settings, resampler)


def evidence(
    metric: Metric, values: Sequence[float], margin: float, tables: Iterable[Tables]
) -> Evidence:
    """Return what a judge looks at, from FP32's and the quantized model's values and tables."""
    return Evidence(metric, *values, margin, *tables)


def corrected(
    judgements: Mapping[str, Judgement], settings: StatisticsSettings
) -> tuple[Verdict, ...]:
    """Return the verdicts of one gate's metrics, corrected for how many there are."""
    cases = [
        CaseResult(
            Cell("m", "q", "p").case(name),
            judged.verdict,
            baseline=0.0,  # any: the loss is against FP32, not against a limit
            estimate=judged.estimate,
        )
        for name, judged in judgements.items()
    ]
    return tuple(case.verdict for case in decide(cases, settings))


@contextmanager
def without_containment() -> Iterator[None]:
    """Let quantizers run without a look at what they do to the process."""
    with mock.patch.object(Encoders, "contained", return_value=nullcontext()):
        yield


@contextmanager
def without_batch_check() -> Iterator[None]:
    """Let candidates be evaluated in one batch size alone."""
    with mock.patch.object(BatchCheck, "check"):
        yield


def prepared_cases(settings: Settings, evaluator: Evaluator) -> Iterator[Evidence]:
    """Yield the evidence of every case of the settings that has a baseline."""
    margins, id_probe = load_margins(settings.margins), settings.in_distribution.name
    for model in settings.models:
        baseline = load_baseline(settings.baselines, model.name)
        if baseline is None:
            continue
        known = baseline.predictions[id_probe]
        for case in plan(settings):
            if case.model != model.name:
                continue
            metric = metrics.get(case.metric)
            stored = baseline.values[case.key].value
            found, inside = (
                predictions(evaluator, case.model, case.quantizer, probe)
                for probe in (case.probe, id_probe)
            )
            yield evidence(
                metric,
                (stored, metric.compute(found, inside)),
                margins.margin(case),
                (Tables(baseline.predictions[case.probe], known), Tables(found, inside)),
            )
