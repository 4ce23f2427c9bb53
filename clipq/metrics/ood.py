"""Detection of out-of-distribution samples by a per-sample score.

The positive class is *in-distribution* and scores are oriented so that higher = more
in-distribution, everywhere in clipq. Areas come from scikit-learn.
"""

from __future__ import annotations

import numpy as np

from clipq.errors import ClipqError

__all__ = ["aupr", "aupr_out", "auroc", "fpr95"]


def auroc(scores_id: np.ndarray, scores_ood: np.ndarray) -> float:
    """Area under the ROC curve; in [0, 1], 0.5 where scores do not separate (ties count half).

    >>> auroc(np.array([0.9, 0.8]), np.array([0.85, 0.1]))  # three of four pairs in order
    0.75
    """
    from sklearn.metrics import roc_auc_score

    target, scores = _stack(scores_id, scores_ood)
    return float(roc_auc_score(target, scores)) if np.isfinite(scores).all() else float("nan")


def aupr(scores_id: np.ndarray, scores_ood: np.ndarray) -> float:
    """Average precision with in-distribution as the positive class; in [0, 1].

    Where all scores are equal it is the share of in-distribution samples.

    >>> round(aupr(np.array([0.9, 0.8]), np.array([0.85, 0.1])), 4)  # (1/1 + 2/3) / 2
    0.8333
    """
    from sklearn.metrics import average_precision_score

    target, scores = _stack(scores_id, scores_ood)
    if not np.isfinite(scores).all():
        return float("nan")
    return float(average_precision_score(target, scores))


def aupr_out(scores_id: np.ndarray, scores_ood: np.ndarray) -> float:
    """Average precision with out-of-distribution as the positive class; in [0, 1].

    >>> round(aupr_out(np.array([0.9, 0.8, 0.7]), np.array([0.75, 0.1])), 4)  # (1/1 + 2/3) / 2
    0.8333
    """
    return aupr(-scores_ood, -scores_id)


def fpr95(scores_id: np.ndarray, scores_ood: np.ndarray) -> float:
    """False-positive rate at the first ROC point whose true-positive rate is at least 95 %.

    In [0, 1]; 1 where all scores are equal (accepting 95 % then means accepting everything).

    >>> fpr95(np.array([0.9, 0.8]), np.array([0.85, 0.1]))  # accepting 0.8 accepts 0.85
    0.5
    """
    from sklearn.metrics import roc_curve

    target, scores = _stack(scores_id, scores_ood)
    if not np.isfinite(scores).all():
        return float("nan")
    false_positive, true_positive, _ = roc_curve(target, scores, drop_intermediate=False)
    return float(false_positive[np.argmax(true_positive >= 0.95)])


def _stack(scores_id: np.ndarray, scores_ood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(scores_id) or not len(scores_ood):
        raise ClipqError(
            f"OOD detection needs both kinds of samples, got {len(scores_id)} in-distribution "
            f"and {len(scores_ood)} out-of-distribution",
            hint="give probes that hold samples",
        )
    target = np.concatenate([np.ones(len(scores_id), int), np.zeros(len(scores_ood), int)])
    return target, np.concatenate([scores_id, scores_ood])
