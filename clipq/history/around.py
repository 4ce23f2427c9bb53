"""What two runs recorded around their cases: what can be compared, and what else changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipq.errors import listed
from clipq.records import CaseResult

__all__ = ["Alike", "artifact_changes", "in_distribution", "notes", "obstacle", "same_reference"]

Evidence = Mapping[str, Any]


class Alike:
    """Which cases two runs gave equal predictions for, by the digests that they recorded."""

    def __init__(self, before: Evidence, after: Evidence) -> None:
        first, second = (evidence.get("predictions", {}) for evidence in (before, after))
        self._cells = frozenset(
            cell
            for cell, kept in second.items()
            if cell in first and first[cell]["sha256"] == kept["sha256"]
        )
        self._known = in_distribution(after)
        self._probes = after.get("probes", {})

    def __call__(self, case: CaseResult) -> bool:
        """Whether what a case depends on is equal: its cell and the in-distribution one.

        Of a pooled probe, what it pools.
        """
        members = self._probes.get(case.probe, {}).get("pools", [case.probe])
        probes = {*members, *([self._known] if self._known else [])}
        return self._cells.issuperset(f"{case.model}/{case.quantizer}/{p}" for p in probes)


def in_distribution(evidence: Evidence) -> str | None:
    """Return the probe that a run's out-of-distribution metrics contrast with, where known."""
    probes = evidence.get("probes", {})
    return next((n for n, p in probes.items() if p.get("role") == "in-distribution"), None)


def obstacle(first: CaseResult, second: CaseResult, before: Evidence, after: Evidence) -> str:
    """Return why two results of a case cannot be compared, or ""."""
    if first.metric_version != second.metric_version:
        return f"metric version {first.metric_version}, then {second.metric_version}"
    for probe in dict.fromkeys((first.probe, in_distribution(after))):
        prints = [e.get("probes", {}).get(probe, {}).get("fingerprint") for e in (before, after)]
        if None not in prints and prints[0] != prints[1]:
            return f"probe {probe!r} has other samples: {prints[0][:12]}, then {prints[1][:12]}"
    if first.observed is None or second.observed is None:
        which = "neither run has" if first.observed is second.observed else "one run lacks"
        return f"{which} a value: {first.verdict.value}, then {second.verdict.value}"
    return ""


def same_reference(
    first: CaseResult, second: CaseResult, before: Evidence, after: Evidence
) -> bool:
    """Whether both runs compared a case with the same FP32 predictions."""
    digests = [
        e.get("baselines", {}).get(first.model, {}).get("columns_sha256") for e in (before, after)
    ]
    return digests[0] == digests[1] and first.baseline == second.baseline


def notes(before: Evidence, after: Evidence) -> tuple[str, ...]:
    """Name what else changed: weights, baselines, quantizers' code, artifacts, environments."""
    changes = []
    for kind, key, what in (
        ("models", "weights_sha256", "FP32 weights of {} changed"),
        ("baselines", "columns_sha256", "the baseline of {} changed"),
        ("quantizers", "code_sha256", "the code of {} changed"),
        ("tunings", "proxy_fingerprint", "the pairs that {} was tuned on changed"),
    ):
        one, other = before.get(kind, {}), after.get(kind, {})
        moved = [n for n in one if n in other and one[n].get(key) != other[n].get(key)]
        if moved:
            changes.append(what.format(listed(moved)))
    changes += _trained_changes(before.get("quantizers", {}), after.get("quantizers", {}))
    changes += artifact_changes(before.get("artifacts", {}), after.get("artifacts", {}))
    first = [dict(e) for e in before.get("environments", {}).values()]
    second = [dict(e) for e in after.get("environments", {}).values()]
    if first and second:
        for name in sorted({*first[0], *second[0]}):
            if first[0].get(name) != second[0].get(name):
                changes.append(f"{name} was {first[0].get(name)}, now {second[0].get(name)}")
    return tuple(changes)


def _trained_changes(before: Evidence, after: Evidence) -> list[str]:
    """Name the quantizers that are in both runs, and that have learnt something else."""
    states = [
        {name: said.get("trained", {}).get("sha256") for name, said in each.items()}
        for each in (before, after)
    ]
    moved = [
        name for name, sha in states[0].items() if name in states[1] and sha != states[1][name]
    ]
    return [f"the trained state of {listed(moved)} changed"] if moved else []


def artifact_changes(before: Evidence, after: Evidence) -> list[str]:
    """Name the artifacts whose files are others, and what else they are run by or with.

    Args:
        before: what a run recorded of each artifact.
        after: what another did.

    >>> one, other = ({"vit/ort": {"files": {"image": {"i.onnx": sha}}}} for sha in ("0f", "a7"))
    >>> artifact_changes(one, other)
    ['artifact changed: the files of vit/ort']
    """
    both = [name for name in before if name in after]
    changes = []
    if moved := [name for name in both if _held(before[name]) != _held(after[name])]:
        changes.append(f"artifact changed: the files of {listed(moved)}")
    ran: dict[str, list[str]] = {}
    for name in both:
        for text in _ran_otherwise(before[name], after[name]):
            ran.setdefault(text, []).append(name)
    return changes + [f"{text} ({listed(names)})" for text, names in ran.items()]


def _held(artifact: Evidence) -> dict[str, list[str]]:
    """Return what the files of an artifact hash to, wherever they lie."""
    return {role: sorted(held.values()) for role, held in artifact.get("files", {}).items()}


def _ran_otherwise(before: Evidence, after: Evidence) -> list[str]:
    first, second = before.get("versions", {}), after.get("versions", {})
    texts = [
        f"{name} was {first.get(name)}, now {second.get(name)}"
        for name in sorted({*first, *second})
        if first.get(name) != second.get(name)
    ]
    for name in ("runtime", "batch", "session", "io", "cpu"):
        one, other = before.get(name), after.get(name)
        if one != other:
            simple = isinstance(one, (str, int)) and isinstance(other, (str, int))
            texts.append(f"{name} was {one}, now {other}" if simple else f"its {name} changed")
    return texts
