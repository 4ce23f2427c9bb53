"""The metric cells of a unit: which metrics are computed on which probes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from clipq.cases import Candidate
from clipq.errors import SweepError, did_you_mean
from clipq.evaluation.applicability import why_not_applicable
from clipq.evaluation.plan import metrics_of
from clipq.globs import matches_any, unmatched
from clipq.settings import Settings

__all__ = ["cell_metrics", "cells_of"]

_WILD = re.compile(r"[*?[]")


def cell_metrics(
    settings: Settings, probes: Sequence[str], metrics: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the metrics of each probe of a sweep, in the settings' order, empty ones left out.

    Probes that the policy in force keeps for releases are left out as well.

    Args:
        settings: whose probes and metrics.
        probes: globs.
        metrics: globs.

    Raises:
        SweepError: a glob matches nothing, or nothing is left.

    >>> from pathlib import Path
    >>> from clipq.settings import load_settings
    >>> cell_metrics(load_settings(Path("clipq.toml")), ("id",), ("ece", "top1"))
    {'id': ('ece', 'top1')}
    """
    withheld = {probe.name for probe in settings.withheld}
    known = {
        probe.name: tuple(metric.name for metric in metrics_of(settings, probe))
        for probe in settings.evaluated
        if probe.name not in withheld
    }
    names = sorted({name for own in known.values() for name in own})
    for kind, globs, all_names in (("probe", probes, list(known)), ("metric", metrics, names)):
        for glob in unmatched(globs, all_names):
            raise SweepError(
                f"no {kind} that a sweep measures matches {glob!r}",
                hint=did_you_mean(glob, all_names),
            )
    found = {
        probe: own
        for probe, every in known.items()
        if matches_any(probe, probes)
        if (own := tuple(name for name in every if matches_any(name, metrics)))
    }
    if not found:
        raise SweepError(
            f"no metric of {', '.join(metrics)} is computed on a probe of {', '.join(probes)}",
            hint="widen probes or metrics of the plan; `clipq list metrics` says which has what",
        )
    return found


def cells_of(candidate: Candidate, settings: Settings, metrics: Mapping[str, Sequence[str]]) -> int:
    """Return how many metric cells a candidate has.

    What the settings exclude is none, and an artifact lacks what it cannot have.

    >>> from pathlib import Path
    >>> from clipq.settings import load_settings
    >>> settings = load_settings(Path("clipq.toml"))
    >>> cells_of(Candidate("vit-clean", "rtn:w8"), settings, {"id": ("ece", "top1")})
    2
    """
    # Of a million cells most are neither of an artifact nor is anything excluded.
    if settings.artifacts and settings.artifact(candidate) is not None:
        cases = [candidate.on(probe).case(name) for probe, own in metrics.items() for name in own]
        return sum(
            not matches_any(case.id, settings.exclude) and not why_not_applicable(case, settings)
            for case in cases
        )
    start = f"{candidate}/"
    excluded = tuple(glob for glob in settings.exclude if _may_match(glob, start))
    if not excluded:
        return sum(map(len, metrics.values()))
    return sum(
        not matches_any(f"{start}{probe}.{name}", excluded)
        for probe, names in metrics.items()
        for name in names
    )


def _may_match(glob: str, start: str) -> bool:
    """Return whether a glob may match a text that begins so, by what stands before its wildcards.

    >>> _may_match("vit/lsq:*", "vit/rtn:w8/"), _may_match("vit/rtn:w8/id.*", "vit/rtn:w8/")
    (False, True)
    """
    fixed = _WILD.split(glob, maxsplit=1)[0]
    return start.startswith(fixed) or fixed.startswith(start)
