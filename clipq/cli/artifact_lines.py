"""What `clipq artifact check` says of an artifact, step by step, and as one JSON value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from clipq.evaluation.artifacts import recorded_session
from clipq.runtimes import Finding
from clipq.runtimes.cpu_flags import cpu_flags

if TYPE_CHECKING:
    from clipq.cases import Candidate
    from clipq.evaluation.artifact_checkup import Checkup
    from clipq.settings import Settings

__all__ = ["conclusion", "document", "heading", "lines"]

_WIDTH = 9


def heading(candidate: Candidate, settings: Settings, threads: int) -> str:
    """Return which artifact it is, and how it is asked to run."""
    artifact = settings.artifact(candidate)
    if artifact is None:
        return str(candidate)
    said = [f"runtime {artifact.runtime}", f"batch {artifact.batch or settings.batch_size}"]
    said.append(f"{threads} thread{'' if threads == 1 else 's'}")
    said += [artifact.session.precision] if artifact.session.precision else []
    env = recorded_session(artifact.session)["env"]  # without the values of secrets
    said += [f"{name}={value}" for name, value in env.items()]
    return f"{candidate}: {', '.join(said)}"


def lines(step: str, found: Checkup, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the lines of one step.

    Args:
        step: of `clipq.evaluation.artifact_checkup.STEPS`.
        found: what is known after it.
        findings: those that it added.
    """
    said = list(_SAID[step](found)) if found.error is None else []
    for at, line in enumerate(said):
        yield f"  {step if at == 0 else '':<{_WIDTH}} {line}"
    for finding in findings:
        yield f"  {'WRONG' if finding.wrong else 'note':<{_WIDTH}} {finding.problem}"
        if finding.fix:
            yield f"  {'':<{_WIDTH}} fix: {finding.fix}"
    if found.error is not None:
        yield f"  {'ERROR':<{_WIDTH}} {found.error.problem}"
        if found.error.hint:
            yield f"  {'':<{_WIDTH}} fix: {found.error.hint}"


def conclusion(found: Checkup) -> str:
    """Return what came of it, in one line."""
    if found.error is not None:
        return f"  {'':<{_WIDTH}} not examined further: see ERROR"
    wrong = sum(each.wrong for each in found.findings)
    notes = len(found.findings) - wrong
    said = f"{wrong or 'nothing'} wrong, {notes or 'no'} note{'' if notes == 1 else 's'}"
    return f"  {'in all':<{_WIDTH}} {said}"


def document(found: Checkup, settings: Settings) -> dict[str, Any]:
    """Return what was found as strict-JSON values."""
    artifact = settings.artifact(found.candidate)
    return {
        "model": found.candidate.model,
        "name": found.candidate.quantizer,
        "runtime": artifact.runtime if artifact else "",
        "versions": dict(found.versions),
        "cpu": list(cpu_flags()),
        "steps": list(found.done),
        "wrong": found.wrong,
        "error": None
        if found.error is None
        else {"problem": found.error.problem, "fix": found.error.hint},
        "findings": [each.to_plain() for each in found.findings],
        "files": {tower: _look(look.to_plain()) for tower, look in found.looks.items()},
        "executed": {tower: facts.executed for tower, facts in found.facts.items()},
        "parity": [each.to_plain() for each in found.parity],
        "batch": {
            of: [_finite(asdict(each)) for each in moved] for of, moved in found.batches.items()
        },
        "time": {tower: speed.to_plain() for tower, speed in found.speeds.items()},
        "bytes": found.bytes,
        "fp32_bytes": found.fp32_bytes,
    }


def _look(plain: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if name != "findings"}


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        n: None if isinstance(v, float) and not v < float("inf") else v for n, v in values.items()
    }


def _lint(found: Checkup) -> Iterator[str]:
    for tower, look in found.looks.items():
        said = [_size(look.bytes)]
        said += [f"operator set {look.opset}"] if look.opset else []
        said.append(f"quantized: {_counted(look.quantized)}")
        said.append(f"products in float: {_counted(look.in_float)}")
        yield f"{tower:<6} {'; '.join(said)}"


def _opening(found: Checkup) -> Iterator[str]:
    for tower, facts in found.facts.items():
        said = f"executes {facts.precision}" if facts.precision else "does not say its precision"
        said += f" by {facts.provider}" if facts.provider else ""
        said += f", {facts.batch} samples at a time" if facts.batch else ""
        yield f"{tower:<6} {said}"
    versions = [f"{name} {version}" for name, version in found.versions.items()]
    yield "; ".join([*versions, f"processor: {', '.join(cpu_flags()) or 'unknown'}"])


def _parity(found: Checkup) -> Iterator[str]:
    rows = [
        (
            each.tower,
            f"{100 * each.flips:.1f} %",
            f"{each.cosine_mean:.5f}",
            f"{each.cosine_min:.5f}",
            f"{each.difference:.2g}",
            each.verdict,
        )
        for each in found.parity
    ]
    headers = ("tower", "other class", "cosine", "least", "largest difference", "verdict")
    yield from tabulate(rows, headers, tablefmt="plain", disable_numparse=True).splitlines()


def _batch(found: Checkup) -> Iterator[str]:
    rows = [
        (
            of,
            *(f"{each.moved:.2g}" for each in moved),
            f"{moved[0].fp32:.2g}",
            f"{moved[0].error:.2g}",
        )
        for of, moved in found.batches.items()
    ]
    if rows:
        headers = ("moved by", "alone", "shuffled", "ragged", "FP32 alone", "from FP32")
        yield from tabulate(rows, headers, tablefmt="plain", disable_numparse=True).splitlines()


def _time(found: Checkup) -> Iterator[str]:
    for tower, speed in found.speeds.items():
        low, high = speed.spread
        yield (
            f"{tower:<6} {speed.milliseconds:.3g} ms a sample, {speed.ratio:.2f} x FP32 in torch "
            f"({low:.2f} to {high:.2f} of {len(speed.fp32)} rounds), batch {speed.batch}"
        )
    if found.bytes and found.fp32_bytes:
        share = found.bytes / found.fp32_bytes
        yield f"size   {_size(found.bytes)}, {share:.2f} x FP32's weights"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _size(count: int) -> str:
    return f"{count / 2**20:.2f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


_SAID: dict[str, Callable[[Checkup], Iterator[str]]] = {
    "lint": _lint,
    "opening": _opening,
    "parity": _parity,
    "batch": _batch,
    "time": _time,
}
