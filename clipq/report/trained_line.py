"""What reports say of a candidate's training, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipq.terminal import one_line

__all__ = ["trained_line"]

_DIGITS = 16


def trained_line(entry: Mapping[str, Any]) -> str:
    """Return what a quantizer of a record has learnt; "" of one that learns nothing.

    Args:
        entry: what the record's evidence says of the quantizer.

    >>> trained_line({"trained": {"sha256": "0f" * 32, "from": "folder trained/vit", "steps": 300,
    ...     "best_step": 250, "pairs": 900, "proxy": "proxy", "loss_before": 0.8, "loss": 0.5}})
    '900 pairs of proxy, step 250 of 300, held-out loss 0.8 -> 0.5; folder trained/vit, ...'
    """
    learnt = entry.get("trained")
    if not learnt:
        return ""
    parts = [f"{learnt['pairs']:,} pairs of {learnt['proxy']}"] if "pairs" in learnt else []
    if "steps" in learnt:
        parts.append(f"step {learnt.get('best_step', learnt['steps']):,} of {learnt['steps']:,}")
    before, after = learnt.get("loss_before"), learnt.get("loss")
    if before is not None and after is not None:
        parts.append(f"held-out loss {before:.4g} -> {after:.4g}")
    place = f"{learnt.get('from', '')}, state {learnt['sha256'][:_DIGITS]}"
    return one_line("; ".join(filter(None, (", ".join(parts), place))))
