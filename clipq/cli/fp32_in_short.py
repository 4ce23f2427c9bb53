"""FP32's headline numbers as a table, and what speaks against them."""

from __future__ import annotations

from tabulate import tabulate

from clipq.gating.baseline import Baseline
from clipq.gating.soundness import Headline, headlines, remarks

__all__ = ["in_short"]

_HEADERS = ("probe", "samples", "top-1", "chance", "ECE", "ts-ECE", "best AUROC", "recall at 1")


def in_short(baseline: Baseline, known: str) -> str:
    """Return the headline numbers of a model per probe, with what makes them meaningless below.

    Args:
        baseline: of the FP32 model.
        known: the in-distribution probe.

    >>> from pathlib import Path
    >>> from clipq.gating.baseline import load_baseline
    >>> shown = in_short(load_baseline(Path("baselines"), "siglip"), "id").splitlines()
    >>> shown[0]
    'FP32 of siglip in short, with 95 % intervals:'
    >>> print(shown[-1][:64])
    FP32 itself: the energy score has an AUROC below 0.5 on digits (
    """
    rows = [_row(one) for one in headlines(baseline, known)]
    kept = [at for at, name in enumerate(_HEADERS) if at < 2 or any(row[at] for row in rows)]
    table = tabulate(
        [[row[at] for at in kept] for row in rows],
        [_HEADERS[at] for at in kept],
        disable_numparse=True,
    )
    found = (*baseline.remarks, *remarks(baseline, known))
    said = [f"FP32 itself: {remark}" for remark in found]
    title = f"FP32 of {baseline.model} in short, with 95 % intervals:"
    return "\n".join([title, table, *(["", *said] if said else [])])


def _row(one: Headline) -> tuple[str, ...]:
    best = one.best_auroc
    shares = one.top1 or one.recall
    recall = f"{one.recall} (text to image {one.text_recall:.3f})" if one.recall else ""
    return (
        one.probe,
        f"{one.samples:,}",
        str(one.top1 or ""),
        f"{shares.chance:.2g}" if shares else "",
        *("" if value is None else f"{value:.3f}" for value in (one.ece, one.ts_ece)),
        f"{best[1]} ({best[0]})" if best else "",
        recall,
    )
