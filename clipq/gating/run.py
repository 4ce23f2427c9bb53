"""From the results of one run to its record, whoever ran it: pytest's controller or a caller."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, cast

from clipq.cases import Case
from clipq.checkout import checked_out
from clipq.errors import ClipqError
from clipq.evaluation.cache import Cache
from clipq.evaluation.figures import stored_figures
from clipq.gating.baseline import load_environment
from clipq.gating.input_files import input_files
from clipq.gating.matrix import Matrix
from clipq.gating.waivers import load_waivers
from clipq.kernels.kernel_spec import CHECKS, matching
from clipq.provenance import package_versions
from clipq.records import CaseResult, KernelResult, RunRecord, sort_cases, withheld_sentence

__all__ = ["assemble", "narrowing"]


def assemble(
    matrix: Matrix,
    results: Sequence[CaseResult],
    *,
    planned: int,
    began: datetime.datetime,
    seconds: float,
    kernels: Sequence[KernelResult] = (),
    unreported: Sequence[str] = (),
    problems: Sequence[str] = (),
    selection: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Return the record of a run: sorted, figures attached, its texts of whole characters.

    Args:
        matrix: what was to be measured.
        results: of the cases that were.
        planned: how many cases were planned.
        began: when the run did (UTC).
        seconds: how long it took.
        kernels: results of kernel checks.
        unreported: ids of what was planned and never reported.
        problems: what is wrong with the run as a whole; each fails it.
        selection: what narrowed the run, from `narrowing`.
    """
    settings, cases = matrix.settings, sort_cases(results)
    checkout = checked_out(settings.root)
    waivers = load_waivers(settings.waivers)
    found = [*problems, *_changed_inputs(matrix)]
    if cases and waivers.entries:
        ids = [case.id for case in matrix.everything]
        found += waivers.problems(cases, today=began.date(), matrix=ids)
    record = RunRecord(
        policy=settings.policy,
        blocks=settings.rule.verdicts,
        started=began.isoformat(timespec="seconds").replace("+00:00", "Z"),
        commit=checkout.commit,
        waivers=waivers.to_plain(cases),
        problems=tuple(found),
        statistics=asdict(settings.statistics),
        planned=planned,
        kernels=tuple(sorted(kernels, key=lambda result: result.id)),
        cases=_with_figures(cases, Cache(settings.cache)),
        unreported=tuple(unreported),
        selection=selection or {},
        withheld=matrix.withheld,
        not_applicable=matrix.not_applicable,
        inputs=matrix.inputs,
        versions=package_versions(),
        timings={"seconds": round(seconds, 3)},
        warnings=(
            *filter(None, (checkout.problem,)),
            *_withheld_warnings(matrix),
            *_environment_warnings(matrix, cases),
        ),
    )
    return cast(RunRecord, _of_whole_characters(record))


def _of_whole_characters(value: Any) -> Any:
    """Return a value with halves of characters, as names of files may hold, written as escapes.

    Strict JSON has none: a record that held one could be written and never read.
    """
    if type(value) is str:
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, Mapping):
        return dict(_of_whole_characters(pair) for pair in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(map(_of_whole_characters, value))
    if is_dataclass(value) and not isinstance(value, type):
        held = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        return replace(value, **{name: _of_whole_characters(own) for name, own in held.items()})
    return value


def _changed_inputs(matrix: Matrix) -> list[str]:
    """Name the files that are not what they were when the run was planned."""
    now = input_files(matrix.settings)
    return [
        f"{entry['file']} ({kind}) was edited while the run was on: run the gate again"
        for kind, entry in matrix.inputs.items()
        if entry != now[kind]
    ]


def narrowing(
    matrix: Matrix,
    *,
    planned: Collection[Case],
    results: Sequence[CaseResult],
    kernel_checks: int = 0,
    asked: Mapping[str, list[str]] | None = None,
) -> dict[str, Any]:
    """Return what narrowed a run and how much the whole matrix holds; {} if nothing did.

    Args:
        matrix: with the selection and profile of the run.
        planned: the cases that were planned, whatever left others out.
        results: of the cases that were measured.
        kernel_checks: how many were planned.
        asked: what a test runner was asked to leave out, by its options' names.
    """
    asked = asked or {}
    chosen = matrix.selection
    globs = {name: list(getattr(chosen, name)) for name in chosen.__dataclass_fields__}
    globs["kernels"] = list(matrix.kernels)
    narrowed: dict[str, Any] = {name: given for name, given in globs.items() if given}
    if "maxfail" in asked:
        narrowed["maxfail"] = asked["maxfail"]
    others = {name: given for name, given in asked.items() if name != "maxfail"}
    whole, checks = _whole(matrix)
    unplanned = set(matrix.cases) - set(planned)
    unchecked = kernel_checks < checks and bool(narrowed or others)
    if not (narrowed or set(planned) < whole or unchecked):
        return {}
    if matrix.profile in matrix.settings.profiles:
        narrowed["profile"] = [matrix.profile]
    if unplanned or unchecked:
        narrowed |= others
    if unplanned and not others:
        narrowed["deselected"] = ["by other means"]
    if whole and (pairs := _complete_pairs(matrix, results)):
        narrowed["complete"] = pairs
    size = {"of": len(whole), "kernel-checks-of": checks if unchecked else 0}
    return narrowed | {name: count for name, count in size.items() if count}


def _whole(matrix: Matrix) -> tuple[set[Case], int]:
    """Return the cases and the number of kernel checks that nothing narrows."""
    try:
        cases = {*matrix.measurable, *matrix.cases}
        return cases, len(matching(matrix.settings.kernels)) * len(CHECKS)
    except ClipqError:
        return set(), 0  # kernels alone were selected, and the settings have no valid matrix


def _complete_pairs(matrix: Matrix, results: Sequence[CaseResult]) -> list[str]:
    """Return each candidate of which every case of the whole matrix was measured."""
    planned = Counter(case.candidate for case in matrix.measurable)
    measured = Counter(result.case.candidate for result in results)
    return sorted(str(one) for one, cases in measured.items() if cases >= planned[one])


def _with_figures(cases: Sequence[CaseResult], cache: Cache) -> tuple[CaseResult, ...]:
    """Return the cases with their cells' figures in the place of the figures' keys, each once."""
    keys = {
        cell: entry["key"]
        for case in cases
        for cell, entry in case.evidence.get("figures", {}).items()
    }
    figures = stored_figures(cache, keys)
    attached = []
    for case in cases:
        named = case.evidence.get("figures", {})
        drawn = {cell: figures.pop(cell) for cell in named if cell in figures}
        evidence = {kind: entries for kind, entries in case.evidence.items() if kind != "figures"}
        attached.append(replace(case, evidence=evidence | ({"figures": drawn} if drawn else {})))
    return tuple(attached)


def _withheld_warnings(matrix: Matrix) -> tuple[str, ...]:
    """Say which cases nobody looked at, so that their absence is no surprise."""
    sentence = withheld_sentence(matrix.withheld, matrix.settings.policy)
    return (sentence,) if sentence else ()


def _environment_warnings(matrix: Matrix, cases: Sequence[CaseResult]) -> tuple[str, ...]:
    """Name what differs between the baselines' environments and this run's."""
    now: dict[str, dict[str, Any]] = {}
    for case in cases:
        now.update(case.evidence.get("environments", {}))
    differing = set()
    for model in {result.case.model for result in cases}:
        stored = load_environment(matrix.settings.baselines, model)
        for environment in now.values():
            for name, value in environment.items():
                if stored and stored.get(name) != value:
                    differing.add(
                        f"{model}: {name} is {value}, the baseline was made with {stored.get(name)}"
                    )
    return tuple(sorted(differing))
