"""What is done with a unit: its cases are evaluated and judged as a gate does, and stored.

    settings -> one model's evaluator and gate, kept -> a unit's cases -> its part

What the units of a model share is made once per process: the loaded model, opened probes and
decoded images, FP32's features, what was found of its baseline. What a unit makes goes with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from clipq.cases import Case
from clipq.errors import BaselineError, SweepError
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import Selection, load_plugins, plan
from clipq.gating.baseline import json_path
from clipq.gating.families import Families, sizes
from clipq.gating.session import Gate
from clipq.records import CaseResult
from clipq.settings import Settings, load_settings
from clipq.sweep.unit_cache import UnitCache
from clipq.sweep.unit_evidence import reference_figures, shared_evidence, unit_spectrum
from clipq.sweep.units import CalibrationDraw, Unit
from clipq.verdicts import Verdict

__all__ = ["PartWriter", "UnitWork", "check_baselines", "part_store"]

_DRAWS = 4
"""Draws of the calibration split whose evaluators are kept, for units of a model that share one."""


class PartWriter(Protocol):
    """Where parts go."""

    def commit(
        self, unit: Unit, rows: Sequence[CaseResult], *, evidence: Mapping[str, Any]
    ) -> bool: ...


def part_store(url: str) -> PartWriter:
    """Open the store of parts at a URL."""
    from importlib import import_module

    # By name: it needs the extra `sweep`, and what measures into another store does not.
    opened: PartWriter = import_module("clipq.sweep.part_store").PartStore(url)
    return opened


@dataclass
class UnitWork:
    """A picklable `Work`: measures a unit and commits its part.

    Verdicts are a gate's, without waivers and expected failures: those end by a date, and a unit's
    part is the same whenever it is made.

    Args:
        settings_path: of the project.
        store_url: of the parts.
        probes: globs that narrow what is measured; all of them by default.
        metrics: likewise.
        policy: whose probes may be seen; "" for the settings' own.
        open_store: called with `store_url`, once in a process; picklable.

    >>> import pickle
    >>> work = UnitWork(Path("clipq.toml"), "parts", metrics=("top1",))
    >>> pickle.loads(pickle.dumps(work)) == work
    True
    """

    settings_path: Path
    store_url: str
    probes: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    policy: str = ""
    open_store: Callable[[str], PartWriter] = part_store
    _settings: Settings | None = field(default=None, init=False, repr=False, compare=False)
    _store: PartWriter | None = field(default=None, init=False, repr=False, compare=False)
    _model: _Model | None = field(default=None, init=False, repr=False, compare=False)

    def __call__(self, unit: Unit) -> None:
        """Measure and commit a unit.

        Raises:
            BaselineError: its model has no baseline.
            SweepError: a case could not be measured; nothing is committed then.
            ClipqError: what was declared cannot be used.
        """
        rows, evidence = self.measured(unit)
        if self._store is None:
            self._store = self.open_store(self.store_url)
        self._store.commit(unit, rows, evidence=evidence)

    def measured(self, unit: Unit) -> tuple[tuple[CaseResult, ...], dict[str, Any]]:
        """Return the results of a unit's cases, in their order, and evidence that they share.

        Raises:
            ClipqError: as of calling it.
        """
        if self._settings is None:
            found = load_settings(self.settings_path)
            found = found.under(self.policy or found.policy)
            load_plugins(found)
            self._settings = found
        if self._model is None or self._model.name != unit.model:
            self._model = None  # before another is loaded
            self._model = _Model(self._settings, unit.model)
        cases, whole = self._planned(self._settings, unit)
        families = Families(self._settings.statistics, cases, whole=whole)
        results, figures = self._model.results(unit, cases, families)
        failed = [one for one in results if one.verdict in (Verdict.ERROR, Verdict.MISSING)]
        if failed:
            first = failed[0]
            raise SweepError(
                f"{len(failed)} of {len(results)} cases were not measured; "
                f"{first.case.id}: {first.reason}",
                hint="nothing of the unit is stored; it is measured again once this is mended",
            )
        rows = tuple(replace(one, evidence={}) for one in results)
        return rows, shared_evidence(results, figures)

    def _planned(self, settings: Settings, unit: Unit) -> tuple[tuple[Case, ...], dict[Any, int]]:
        """Return the cases of a unit that are measured, and how many a whole gate has of it."""
        narrow = _narrowed(settings, unit)
        unseen = {probe.name for probe in settings.withheld}

        def planned(selection: Selection) -> tuple[Case, ...]:
            asked = plan(narrow, selection, profile="full")
            return tuple(
                case
                for case in asked
                if case.candidate == unit.candidate and case.probe not in unseen
            )

        whole = planned(Selection())
        narrower = {*self.probes, *self.metrics} - {"*"}
        cases = planned(Selection((), (), self.probes, self.metrics)) if narrower else whole
        if not cases:
            raise SweepError(
                f"{unit}: nothing of it is measured",
                hint="widen the globs of probes and metrics, or what the settings exclude",
            )
        return cases, dict(sizes(whole))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_settings": None, "_store": None, "_model": None}


class _Model:
    """What the units of one model share."""

    def __init__(self, settings: Settings, name: str) -> None:
        check_baselines(settings, [name])
        self.name = name
        self.settings = replace(
            settings,
            models=(settings.model(name),),
            artifacts=tuple(one for one in settings.artifacts if one.model == name),
        )
        self.cache = UnitCache(settings.cache)
        self.evaluator = Evaluator(self.settings, cache=self.cache)
        self.gate = Gate(self.settings, self.evaluator, figures=False)
        self._drawn: OrderedDict[CalibrationDraw, Evaluator] = OrderedDict()

    def results(
        self, unit: Unit, cases: Sequence[Case], families: Families
    ) -> tuple[tuple[CaseResult, ...], dict[str, Any]]:
        """Return a unit's results and figures, and give back what only it needed."""
        evaluator = self._of(unit.calibration)
        # FP32's part is kept on disk: every unit of the model needs it.
        for cell in dict.fromkeys(case.cell.reference for case in cases):
            evaluator.evaluate(cell)
        evaluator.batches.prepare(unit.candidate.reference)
        figures = reference_figures(evaluator, cases)
        gate = self.gate.beside(families, evaluator)
        try:
            with self.cache.passing():
                self._encode(unit, evaluator, cases)
                results = tuple(gate.unexcused(case) for case in cases)
                if all(one.verdict is not Verdict.ERROR for one in results):
                    figures |= unit_spectrum(evaluator, cases)
                return results, figures
        finally:
            evaluator.forget(unit.candidate)

    def _encode(self, unit: Unit, evaluator: Evaluator, cases: Sequence[Case]) -> None:
        """Make all features of a unit, with one look at what that did to the process.

        It is enough: whatever a quantizer changed, nothing of the unit is kept.
        """
        encoders, encodings, inputs = evaluator.encoders, evaluator.encodings, evaluator.inputs
        asked = dict.fromkeys(
            one for case in cases for one in inputs.pooled.get(case.probe, [case.probe])
        )
        encoders.encoder(unit.candidate)  # what it learns is kept: it has a look of its own
        paired = [inputs.proxy.name] if unit.candidate.tuned else []
        for probe in (evaluator.settings.calibration.name, *paired, *asked):
            encodings.prepare(unit.candidate.on(probe))  # and so are decoded images
        with encoders.contained(unit.candidate, "encoding the unit's probes", whole=True):
            for probe in asked:
                encodings.encoded(unit.candidate.on(probe))
            evaluator.batches.check(unit.candidate)

    def _of(self, drawn: CalibrationDraw) -> Evaluator:
        """Return the evaluator of a draw of the calibration split."""
        if not drawn.samples:
            return self.evaluator
        found = self._drawn.pop(drawn, None) or self.evaluator.drawn(drawn.samples, drawn.seed)
        self._drawn[drawn] = found
        while len(self._drawn) > _DRAWS:
            self._drawn.popitem(last=False)
        return found


def check_baselines(settings: Settings, models: Sequence[str]) -> None:
    """See that models have an FP32 baseline, before anything of them is measured.

    Raises:
        BaselineError: some have none.

    >>> check_baselines(load_settings(Path("clipq.toml")), ["vit-clean", "siglip"])
    """
    lacking = [name for name in models if not json_path(settings.baselines, name).exists()]
    if lacking:
        raise BaselineError(
            f"no FP32 baseline of {', '.join(lacking)} in {settings.baselines}",
            hint=f"clipq baseline create {' '.join(lacking)}",
        )


def _narrowed(settings: Settings, unit: Unit) -> Settings:
    """Return the settings with a unit's candidate alone, and no profile: those are of gates."""
    alone = replace(settings, models=(settings.model(unit.model),), profiles={})
    artifact = settings.artifact(unit.candidate)
    if artifact is not None:
        return replace(alone, quantizers=(), artifacts=(artifact,))
    return replace(alone, quantizers=(unit.quantizer,), artifacts=())
