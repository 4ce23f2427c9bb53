"""What one run is about: settings, profile, selection, and the cases that follow from them."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

from clipq.cases import FP32, Candidate, Case, Cell, split_key
from clipq.evaluation.plan import Selection, plan
from clipq.gating.baseline import load_values
from clipq.gating.families import sizes
from clipq.gating.margins import load_margins
from clipq.gating.waivers import load_waivers
from clipq.kernels.kernel_spec import CHECKS, matching
from clipq.settings import Settings

__all__ = ["Matrix", "vanished_cases"]


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
        load_waivers(self.settings.waivers)  # a malformed file fails before anything is measured
        cases = plan(self.settings, self.selection, profile=self.profile)
        if self.selection:
            return cases
        load_margins(self.settings.margins).check_against(self.everything)
        return cases + vanished_cases(self.settings, self.everything)

    @cached_property
    def everything(self) -> tuple[Case, ...]:
        """Every case of the whole matrix, whatever was selected."""
        return plan(self.settings)

    @cached_property
    def whole(self) -> Counter[Candidate]:
        """How many cases each candidate has in this profile, were nothing selected."""
        return sizes(plan(self.settings, profile=self.profile))

    @cached_property
    def by_id(self) -> dict[str, Case]:
        """The selected cases by their ids."""
        return {case.id: case for case in self.cases}

    @cached_property
    def kernel_checks(self) -> dict[str, tuple[str, str]]:
        """The planned (kernel, check) by id; none where cases alone were selected."""
        globs = self.kernels or (() if self.selection else self.settings.kernels)
        return {f"{name}/{check}": (name, check) for name in matching(globs) for check in CHECKS}


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
