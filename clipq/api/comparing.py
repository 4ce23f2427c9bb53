"""Two runs, case by case, without a history store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Union

from clipq.errors import RecordError
from clipq.records import RunRecord, read_run

if TYPE_CHECKING:
    from clipq.api.gate_run import GateRun
    from clipq.history.comparison import Comparison

__all__ = ["Run", "compare"]

Run = Union[str, Path, RunRecord, "GateRun"]
"""A report.json, a record that was read, or a run that just ended."""


def compare(
    before: Run, after: Run, *, cache: str | Path | None = None, replicates: int = 200
) -> Comparison:
    """Compare two runs: what got worse, by how much, and how sure that is.

    Args:
        before: the run that is held to be good.
        after: the run in question; its policy, margins and error rates apply.
        cache: the folder that both runs' gates filled. With it, differences are estimated on the
            same samples; without it, both runs' standard errors bound them.
        replicates: bootstrap replicates per case.

    Raises:
        RecordError: a file is missing, damaged or no run record, or its verdicts do not follow
            from its numbers.

    >>> from clipq.cases import Case
    >>> from clipq.records import CaseResult
    >>> from clipq.verdicts import Verdict
    >>> case = Case.parse("vit/rtn:w8/id.top1")
    >>> good = RunRecord("ci", 1, (CaseResult(case, Verdict.PASS, observed=0.9),))
    >>> bad = RunRecord("ci", 1, (CaseResult(case, Verdict.FAIL, observed=0.8),))
    >>> compare(good, bad).counts, compare(bad, good).counts
    ({'regressed': 1}, {'better': 1})
    """
    from clipq.evaluation.cache import Cache
    from clipq.history.comparison import compare as compare_records
    from clipq.history.estimation import cached_tables, paired_estimator

    if replicates < 100:
        raise RecordError(f"replicates = {replicates}", hint="at least 100")
    first, second = _record(before), _record(after)
    if cache is None:
        return compare_records(first, second)
    kept = Cache(Path(cache))
    tables = cached_tables(first, kept), cached_tables(second, kept)
    estimator = paired_estimator(first, second, tables, replicates=replicates)
    return compare_records(first, second, paired=estimator)


def _record(run: Run) -> RunRecord:
    from clipq.api.gate_run import GateRun

    if isinstance(run, GateRun):
        return run.record
    if isinstance(run, RunRecord):
        return run
    if isinstance(run, (str, Path)):
        from clipq.gating.derivation import check_verdicts

        record = read_run(Path(run))
        check_verdicts(record, source=run)
        return record
    raise RecordError(
        f"a run of type {type(run).__name__}",
        hint="pass the path of a report.json, what clipq.read_run or clipq.gate returned",
    )
