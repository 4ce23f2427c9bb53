"""What one run is about: settings, profile, selection, and the cases that follow from them."""

from __future__ import annotations

import datetime
from collections import Counter
from functools import cached_property

from clipq.cases import FP32, Candidate, Case, Cell, split_key
from clipq.errors import SettingsError
from clipq.evaluation.plan import Selection, not_applicable, plan
from clipq.gating.baseline import load_values
from clipq.gating.families import sizes
from clipq.gating.input_files import input_files
from clipq.gating.margins import load_margins
from clipq.gating.waiver_limits import refuse_excess
from clipq.gating.waivers import load_waivers
from clipq.kernels.kernel_spec import CHECKS, matching
from clipq.settings import Settings

__all__ = ["Matrix", "reference_values", "vanished_cases"]


class Matrix:
    """The cases and kernel checks of one run, planned when they are first asked for.

    Args:
        settings: what the whole matrix holds.
        selection: globs that narrow it for this run.
        profile: ``quick``, ``default`` or ``full``.
        kernels: globs; only these kernels are checked, and no case unless one is selected too.
    """

    def __init__(
        self,
        settings: Settings,
        selection: Selection | None = None,
        *,
        profile: str = "default",
        kernels: tuple[str, ...] = (),
    ) -> None:
        self.settings = settings
        self.selection = selection or Selection()
        self.profile = profile
        self.kernels = kernels

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """The selected cases, sorted; with the whole matrix, also the vanished ones.

        None where kernels alone were selected.

        Raises:
            ClipqError: settings, margins or waivers are malformed or contradict each other.
        """
        if self.kernels and not self.selection:
            return ()
        self._check_excuses()
        cases = self._seen(self._asked)
        if self.selection:
            if not cases:
                names = ", ".join(self.withheld)
                raise SettingsError(
                    f"only probes that are kept for releases were selected: {names}; the policy "
                    f"is {self.settings.policy!r}",
                    hint="clipq gate --policy release measures them",
                )
            return cases
        load_margins(self.settings.margins, self.settings).check_against(
            self.everything, reference_values(self.settings)
        )
        return cases + vanished_cases(self.settings, self.everything)

    @cached_property
    def inputs(self) -> dict[str, dict[str, str]]:
        """The files by which the run is planned and judged, as they were when first asked for."""
        return input_files(self.settings)

    @cached_property
    def everything(self) -> tuple[Case, ...]:
        """Every case of the whole matrix, whatever was selected, under whichever policy."""
        return plan(self.settings)

    @cached_property
    def measurable(self) -> tuple[Case, ...]:
        """Every case of the whole matrix that may be measured under the policy in force."""
        return self._seen(self.everything)

    @cached_property
    def withheld(self) -> dict[str, int]:
        """How many cases of each probe were asked for and are kept for releases."""
        seen = set(self._seen(self._asked))
        return dict(Counter(case.probe for case in self._asked if case not in seen))

    @cached_property
    def not_applicable(self) -> dict[str, dict[str, int]]:
        """How many cases of each artifact were asked for and cannot be had, by what they need."""
        if self.kernels and not self.selection:
            return {}
        return not_applicable(self.settings, self.selection, profile=self.profile)

    @cached_property
    def whole(self) -> Counter[Candidate]:
        """How many cases each candidate has in this profile, were nothing selected."""
        return sizes(self._seen(plan(self.settings, profile=self.profile)))

    @cached_property
    def _asked(self) -> tuple[Case, ...]:
        if self.kernels and not self.selection:
            return ()
        return plan(self.settings, self.selection, profile=self.profile)

    def _check_excuses(self) -> None:
        """Refuse waivers that are malformed or excuse too much, before anything is measured."""
        waivers = load_waivers(self.settings.waivers)
        failures = load_margins(self.settings.margins, self.settings).expected_failures
        if waivers.entries or failures:
            refuse_excess(
                waivers,
                self.settings.limits,
                today=datetime.datetime.now(datetime.UTC).date(),
                matrix=[case.id for case in self.measurable],
                expected=[pattern for entry in failures for pattern in entry.cases],
            )

    def _seen(self, cases: tuple[Case, ...]) -> tuple[Case, ...]:
        """Return the cases whose probes the policy in force lets a run see."""
        unseen = {probe.name for probe in self.settings.withheld}
        return tuple(case for case in cases if case.probe not in unseen)

    @cached_property
    def by_id(self) -> dict[str, Case]:
        """The selected cases by their ids."""
        return {case.id: case for case in self.cases}

    @cached_property
    def kernel_checks(self) -> dict[str, tuple[str, str]]:
        """The planned (kernel, check) by id; none where cases alone were selected."""
        globs = self.kernels or (() if self.selection else self.settings.kernels)
        return {f"{name}/{check}": (name, check) for name in matching(globs) for check in CHECKS}


def reference_values(settings: Settings) -> dict[str, dict[str, float | None]]:
    """Return FP32's stored values, by model and ``probe.metric``; of models that have any."""
    stored = {
        model.name: load_values(settings.baselines, model.name) or {} for model in settings.models
    }
    return {
        model: {key: value.value for key, value in values.items()}
        for model, values in stored.items()
    }


def vanished_cases(settings: Settings, planned: tuple[Case, ...]) -> tuple[Case, ...]:
    """Return a case for every baseline value that the whole matrix no longer measures.

    A metric that disappears must not pass by absence: each becomes a case of the ``fp32``
    quantizer whose verdict is `vanished`.
    """
    measured = {(case.model, case.key) for case in planned}
    vanished = []
    for model in settings.models:
        for key in load_values(settings.baselines, model.name) or {}:
            if (model.name, key) not in measured:
                probe, metric = split_key(key)
                vanished.append(Cell(model.name, FP32, probe).case(metric))
    return tuple(sorted(vanished))
