"""Commands that a report or `clipq bisect` tells its reader to type.

They run as printed from the top of the git repository, wherever in it the project lies; without a
repository, from the project's own folder.
"""

from __future__ import annotations

import shlex
from functools import cache, cached_property
from glob import escape
from pathlib import Path

from clipq.cases import Case
from clipq.checkout import repository_top
from clipq.errors import ClipqError
from clipq.evaluation.plan import load_plugins, plan
from clipq.settings import Settings, find_settings
from clipq.verdicts import UNDECIDED, Verdict

__all__ = ["Commands"]


class Commands:
    """Commands for one project."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._taken = cache(self._planned)

    @cached_property
    def top(self) -> Path:
        """The folder that commands are run from and paths are shown relative to."""
        root = self.settings.root.resolve()
        return repository_top(root) or root

    @cached_property
    def program(self) -> str:
        """``clipq``, with the settings file where it would not be found from the top."""
        path = self.settings.path.resolve()
        if find_settings(self.top) == path:
            return "clipq"
        return f"clipq --config {shlex.quote(self.shown(path))}"

    def shown(self, path: Path) -> str:
        """Return a path relative to the top; one outside of the repository as it is."""
        path = path.resolve()
        return (path.relative_to(self.top) if path.is_relative_to(self.top) else path).as_posix()

    def profile(self, case: Case) -> str:
        """Return the profile without which a gate would leave the case out; "" if none is needed.

        A case that no profile takes has none: it is no longer in the matrix.
        """
        if "default" not in self.settings.profiles or case in self._taken("default"):
            return ""
        return next((name for name in ("full", "quick") if case in self._taken(name)), "")

    def next(self, case: Case, verdict: Verdict) -> str:
        """Return the one command that helps with a verdict."""
        if verdict is Verdict.MISSING:
            return f"{self.program} baseline create {case.model}"
        if verdict in (Verdict.INCOMPARABLE, Verdict.VANISHED):
            return f"{self.program} baseline update {case.model} --reason '...'"
        if verdict is Verdict.DRIFTED:
            return f"{self.program} baseline verify {case.model}"
        if verdict in UNDECIDED:
            report = self.shown(self.settings.report / "report.json")
            return f"{self.program} power --record {shlex.quote(report)}"
        shipped = self.settings.artifact(case.candidate) is not None
        if shipped and verdict in (Verdict.NON_FINITE, Verdict.ERROR):
            return f"{self.program} artifact check {shlex.quote(str(case.candidate))}"
        if verdict in (Verdict.FAIL, Verdict.NON_FINITE, Verdict.ERROR):
            profile = self.profile(case)
            return (
                f"{self.program} gate --model {case.model} "
                f"--quantizer '{escape(case.quantizer)}' -n0"
                + (f" --profile {profile}" if profile else "")
                + (f" --policy {self.settings.policy}" if self.settings.policy != "ci" else "")
            )
        return ""

    def _planned(self, profile: str) -> frozenset[Case]:
        try:
            load_plugins(self.settings)
            return frozenset(plan(self.settings, profile=profile))
        except ClipqError:
            return frozenset()  # a profile that takes nothing, or settings that a gate refuses
