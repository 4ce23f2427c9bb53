"""How many candidates were judged on a probe that is kept for releases.

A candidate whose loss lies exactly at the margin passes with the verdict's error rate. Whoever
tries many on the same samples finds one that passes, be it by luck, and the only remedy is to say
how many were tried. Counted are recorded runs; what was never recorded is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clipq.cases import Candidate
from clipq.provenance import digest
from clipq.records import RunRecord

__all__ = ["Looks", "chance_of_luck", "looks"]


@dataclass(frozen=True, slots=True)
class Looks:
    """What was judged on the samples of one release-only probe.

    Args:
        probe: its name.
        model: whose candidates.
        fingerprint: of the samples: other ones begin a count of their own.
        candidates: how many different ones. A quantizer is another one where its text, its
            version, its code or its trained state is, or the weights that it starts from; an
            artifact where its files are, its runtime, session or batch.
        runs: how many runs judged one of them.

    >>> Looks("final", "vit", "0f" * 32, candidates=20, runs=3).candidates
    20
    """

    probe: str
    model: str
    fingerprint: str
    candidates: int
    runs: int


def looks(records: Iterable[RunRecord]) -> tuple[Looks, ...]:
    """Return what was judged on each release-only probe, by probe and model.

    The count goes on where a baseline is approved anew on the same samples: approving FP32's
    numbers again does not make them unseen.

    Args:
        records: of runs, in any order; the same run twice counts once.

    >>> looks([])
    ()
    """
    candidates: dict[tuple[str, str, str], set[tuple[str, ...]]] = {}
    runs: dict[tuple[str, str, str], set[str]] = {}
    for record in records:
        evidence = record.evidence()
        for probe, candidate in _judged(record, evidence):
            fingerprint = str(evidence["probes"][probe]["fingerprint"])
            place = (probe, candidate.model, fingerprint)
            candidates.setdefault(place, set()).add(_identity(candidate, evidence))
            runs.setdefault(place, set()).add(record.id)
    return tuple(
        Looks(*place, candidates=len(candidates[place]), runs=len(runs[place]))
        for place in sorted(candidates)
    )


def chance_of_luck(candidates: int, *, tail: float) -> float:
    """Return the probability that one of so many passes though all lose the whole margin.

    1 - (1 - tail)^k for independent ones; candidates judged on the same samples are not, and their
    chance is smaller.

    Args:
        candidates: how many were judged, k.
        tail: one-sided error rate of a verdict.

    >>> round(chance_of_luck(20, tail=0.025), 2)
    0.4
    """
    return 1.0 - (1.0 - tail) ** candidates


def _judged(record: RunRecord, evidence: Mapping[str, Any]) -> set[tuple[str, Candidate]]:
    """Return the (probe, candidate) of which a run measured something on a release-only probe."""
    kept = {name for name, seen in evidence.get("probes", {}).items() if seen.get("use")}
    return {
        (case.probe, case.case.candidate)
        for case in record.cases
        if case.probe in kept and case.observed is not None
    }


def _identity(candidate: Candidate, evidence: Mapping[str, Any]) -> tuple[str, ...]:
    made = evidence.get("quantizers", {}).get(str(candidate), {})
    artifact = evidence.get("artifacts", {}).get(str(candidate))
    weights = evidence.get("models", {}).get(candidate.model, {}).get("weights_sha256", "")
    code = [made.get("code_sha256", ""), str(made.get("method_version", ""))]
    if learnt := made.get("trained", {}).get("sha256"):
        code.append(learnt)
    shipped = [] if artifact is None else [_shipped(artifact)]
    tuned = evidence.get("tunings", {}).get(str(candidate), {}).get("proxy_fingerprint", "")
    return (candidate.quantizer, str(weights), *map(str, code), *shipped, str(tuned))


def _shipped(artifact: Mapping[str, Any]) -> str:
    """Return what makes an artifact another one: its files' content, runtime, session and batch."""
    files = sorted(sha for held in artifact.get("files", {}).values() for sha in held.values())
    parts = ("runtime", "versions", "session", "io", "batch")
    return digest([files, *(artifact.get(name) for name in parts)])
