"""Whether a record still stands for the project that a card is written in.

A record says what was measured, and of what; whoever signs it wants to know that this is what lies
here now: the model, the quantizer's code or the artifact's files, the commit, the policy, the
settings, the margins, the waivers, all planned cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace

from clipq.cases import Candidate
from clipq.checkout import git_commit
from clipq.errors import ClipqError, RecordError
from clipq.evaluation.artifact_standing import artifact_differences, artifact_unknowns
from clipq.evaluation.identity import files_identity, method_evidence
from clipq.evaluation.plan import load_plugins, plan
from clipq.evaluation.trained_search import declared_folder
from clipq.gating.baseline import load_baseline
from clipq.gating.input_files import input_files
from clipq.gating.margins import load_margins
from clipq.gating.waivers import load_waivers
from clipq.records import CaseResult, RunRecord
from clipq.settings import Settings
from clipq.verdicts import Verdict

__all__ = ["check_standing", "not_compared"]


def check_standing(
    record: RunRecord, candidate: Candidate, settings: Settings, *, source: object
) -> None:
    """Refuse a record of a candidate that is not what the project holds now.

    Args:
        record: a run.
        candidate: the model and quantizer that shall be released.
        settings: of the project.
        source: what messages call the record.

    Raises:
        RecordError: model, code, commit, policy, statistics, baseline, margins, waivers or settings
            differ, or a case of the matrix is missing from a run that says it is complete.
        SettingsError, BaselineError, ModelError: the project's own files cannot be read.
    """
    load_plugins(settings)
    cases = [result for result in record.cases if result.case.candidate == candidate]
    differs = next(_differences(record, candidate, cases, settings), None)
    if differs is not None:
        raise RecordError(
            f"{source} is no ground for releasing {candidate} from here: {differs}",
            hint="run the gate again (what has not changed comes from the cache), or write the "
            "card from a checkout of what was measured",
        )


def not_compared(record: RunRecord, candidate: Candidate, settings: Settings) -> tuple[str, ...]:
    """Return a sentence for each thing that a record which stands may differ in all the same.

    Args:
        record: a run that `check_standing` lets pass.
        candidate: the model and quantizer that shall be released.
        settings: of the project.
    """
    found = []
    made = "quantizer's code" if settings.artifact(candidate) is None else "artifact's own"
    dirty = {"when it was measured": record.commit, "now": git_commit(settings.root)}
    if when := " and ".join(name for name, commit in dirty.items() if commit.get("dirty")):
        found.append(
            f"the checkout had changes that are in no commit {when}: of changed files only the "
            f"{made}, the settings, the margins and the waivers were compared"
        )
    learnt = record.evidence().get("quantizers", {}).get(str(candidate), {}).get("trained")
    if learnt is not None and declared_folder(candidate, settings) is None:
        found.append(
            f"its trained state ({learnt['sha256'][:12]}) lies in no folder of {settings.trained}: "
            "it was trained at first use, and can be released only as a folder of `clipq train`"
        )
    artifact = settings.artifact(candidate)
    if artifact is not None:
        shipped = record.evidence().get("artifacts", {}).get(str(candidate), {})
        found += artifact_unknowns(shipped, artifact, root=settings.root)
    source = settings.model(candidate.model).source
    if not source.startswith("local-dir:"):
        found.append(f"the weights of {source} are not in a local folder: its name was compared")
    return tuple(found)


def _differences(
    record: RunRecord, candidate: Candidate, cases: list[CaseResult], settings: Settings
) -> Iterator[str]:
    yield from _of_making(record, candidate, cases, settings)
    yield from _of_model(record, candidate, cases, settings)
    there, here = str(record.commit.get("sha", "")), str(git_commit(settings.root).get("sha", ""))
    if there != here:
        yield (
            f"it is of commit {there[:12] or 'none'}, checked out is {here[:12] or 'none'}: a "
            "release is of what was measured"
        )
    declared = settings.policies.get(record.policy)
    if declared is None or set(declared.verdicts) != set(record.blocks):
        now = f"blocks {', '.join(declared.verdicts)}" if declared else "is not declared"
        yield f"under policy {record.policy} {', '.join(record.blocks)} blocked, here it {now}"
    for name, value in asdict(settings.statistics).items():
        if record.statistics.get(name) != value:
            yield f"its {name} was {record.statistics.get(name)}, [statistics] says {value}"
    stored = load_baseline(settings.baselines, candidate.model)
    made = record.evidence().get("baselines", {}).get(candidate.model, {})
    if made.get("columns_sha256", "") != (stored.digest if stored else ""):
        yield f"it was compared with another baseline of {candidate.model} than the one here"
    yield from _of_review(cases, settings)
    yield from _of_inputs(record, settings)
    if not record.partial or str(candidate) in record.selection.get("complete", ()):
        wanted = plan(replace(settings, policy=record.policy))
        missing = {case for case in wanted if case.candidate == candidate}
        missing -= {result.case for result in cases}
        if missing:
            yield f"it lacks {len(missing):,} of the candidate's cases, {min(missing)} among them"


def _of_making(
    record: RunRecord, candidate: Candidate, cases: list[CaseResult], settings: Settings
) -> Iterator[str]:
    """Yield in what a candidate was made otherwise: an artifact's files, or a quantizer's code."""
    shipped = record.evidence().get("artifacts", {}).get(str(candidate))
    artifact = settings.artifact(candidate)
    if artifact is None and shipped is None:
        yield from _of_code(record, candidate, cases)
        yield from _of_training(record, candidate, settings)
    elif artifact is None:
        yield f"it is of an artifact {candidate.quantizer!r}, the settings declare none"
    elif shipped is not None:
        yield from artifact_differences(shipped, artifact, root=settings.root)
    elif any(result.observed is not None for result in cases):
        yield "it does not say which files were measured"


def _of_code(record: RunRecord, candidate: Candidate, cases: list[CaseResult]) -> Iterator[str]:
    if candidate.base.is_reference:  # FP32 with a tuned scale, which no quantizer made
        return
    made = record.evidence().get("quantizers", {}).get(str(candidate))
    if made is None:
        if any(result.observed is not None for result in cases):
            yield "it does not say which code was measured"
        return
    now = method_evidence(candidate.base.quantizer)
    for name in ("method_version", "code_sha256"):
        if made.get(name, 1 if name == "method_version" else "") != now[name]:
            before, after = made.get("code", {}), now["code"]
            changed = sorted(
                what for what in {*before, *after} if before.get(what) != after.get(what)
            )
            # Of environment variables, a record holds the names alone.
            what = ", ".join(changed) or "an environment variable"
            yield f"the quantizer was edited since ({what})"


def _of_training(record: RunRecord, candidate: Candidate, settings: Settings) -> Iterator[str]:
    """Yield in what a trained state that was measured is not the one that lies here."""
    learnt = record.evidence().get("quantizers", {}).get(str(candidate), {}).get("trained")
    if learnt is None:
        return
    try:
        here = declared_folder(candidate, settings)
    except ClipqError as error:
        yield error.problem
        return
    if here is not None and here.manifest.state_sha256 != learnt["sha256"]:
        was, now = learnt["sha256"][:12], here.manifest.state_sha256[:12]
        yield f"the trained state that was measured is {was}, here lies {now}"


def _of_model(
    record: RunRecord, candidate: Candidate, cases: list[CaseResult], settings: Settings
) -> Iterator[str]:
    """Yield in what the model of a record is not the one that the settings name."""
    made = record.evidence().get("models", {}).get(candidate.model)
    if made is None:
        if any(result.observed is not None for result in cases):
            yield "it does not say which model was measured"
        return
    declared = settings.model(candidate.model)
    if made["source"] != declared.source:
        yield f"measured was {made['source']}, {settings.path.name} names {declared.source}"
    for name, digest in files_identity(declared, root=settings.root).items():
        if made.get(name) != digest:
            what, was = name.removesuffix("_sha256"), str(made.get(name, ""))
            yield (
                f"the {what} of {candidate.model} that was measured hash to {was[:12] or 'nothing'}"
                f", those of {declared.source} to {digest[:12]}"
            )


def _of_inputs(record: RunRecord, settings: Settings) -> Iterator[str]:
    """Yield which of the files that plan and judge a run are not those that lie here."""
    for kind, here in input_files(settings).items():
        used = record.inputs.get(kind)
        if used is None:
            yield f"it does not say which {kind} it was made by"
        elif used["sha256"] != here["sha256"]:
            yield f"it was made by other {kind} ({used['file']}) than {here['file']} here holds"


def _of_review(cases: list[CaseResult], settings: Settings) -> Iterator[str]:
    """Yield what the reviewed margins, waivers and expected failures do not say of a case."""
    margins, waivers = load_margins(settings.margins, settings), load_waivers(settings.waivers)
    signed = {(entry.owner, entry.signature) for entry in waivers.entries}
    for result in cases:
        applied = result.estimate.margin
        if applied is not None and not math.isclose(applied, own := margins.margin(result.case)):
            yield f"{result.id} was judged by the margin {applied:g}, {margins.path} says {own:g}"
        if result.verdict is not Verdict.WAIVED:
            continue
        expected = margins.expected_failure(result.case)
        if result.waived_by and (result.waived_by, result.reason) not in signed:
            yield f"{result.id} has a waiver of {result.waived_by} that {waivers.path} lacks"
        if not result.waived_by and expected is None:
            yield f"{result.id} is excused as an expected failure, {margins.path} names none"
