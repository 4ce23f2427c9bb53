"""Every metric that clipq knows, with unit, direction, range and the probes it applies to."""

from __future__ import annotations

import math
from typing import Any

from clipq.metrics.declare import Direction, Metric, Statistic, metrics
from clipq.metrics.retrieval import DEPTHS
from clipq.metrics.spectra import BANDS, band_name

__all__: list[str] = []

_CLASSIFIED = frozenset({"in-distribution"})
_LABELLED = _CLASSIFIED | {"adversarial", "corruption", "groups", "shift", "spurious"}
_POOLED = frozenset({"pooled"})
_GROUPED = _LABELLED - {"adversarial"}
_EMBEDDED = _CLASSIFIED | {"retrieval"}
_SPURIOUS = frozenset({"spurious"})
_CORRUPTION = frozenset({"corruption"})
_RETRIEVAL = frozenset({"retrieval"})
_OOD = frozenset({"ood"})

_BINS = "15 equal-width bins over [0, 1]; an edge belongs to the upper bin, 1 to the last"
_WIDE = "intervals cover more than they state"
_ERRORS_FIRST = "among equal confidences errors come first"
_SURE = ("confidence", "correct")


def _declare(
    name: str,
    title: str,
    direction: Direction,
    target: str,
    *,
    roles: frozenset[str],
    statistic: Statistic,
    unit: str = "fraction",
    range_: tuple[float, float] = (0, 1),
    **further: Any,
) -> None:
    metric = Metric(
        name=name,
        title=title,
        unit=unit,
        direction=direction,
        range=range_,
        roles=roles,
        target=f"clipq.metrics.{target}",
        statistic=statistic,
        **further,
    )
    metrics.add(name, metric)


def _point(scalar: str) -> Statistic:
    return Statistic("point", scalar=scalar)


# -- accuracy and calibration -----------------------------------------------------------------

_declare(
    "top1",
    "zero-shot top-1 accuracy",
    "higher",
    "accuracy:top1",
    roles=_LABELLED | _POOLED,
    note="of equal logits the first class is predicted, as by argmax",
    statistic=Statistic("share", ("rank",), below=1),
)
_declare(
    "top5",
    "zero-shot top-5 accuracy",
    "higher",
    "accuracy:top5",
    roles=_CLASSIFIED,
    note="of equal logits the first class stands first",
    statistic=Statistic("share", ("rank",), below=5),
)
_declare(
    "confidence-gap",
    "mean confidence - accuracy",
    "zero",
    "calibration:confidence_gap",
    roles=_LABELLED,
    range_=(-1, 1),
    note="positive = over-confident",
    statistic=Statistic("mean-gap", _SURE),
)
_declare(
    "ece",
    "expected calibration error",
    "lower",
    "calibration:ece",
    roles=_LABELLED,
    note=_BINS,
    statistic=Statistic("ece", _SURE),
)
_declare(
    "ace",
    "average calibration error",
    "lower",
    "calibration:ace",
    roles=_CLASSIFIED,
    note=f"{_BINS}; unweighted mean over the bins that hold samples; {_WIDE}",
    statistic=Statistic("ace", _SURE),
)
_declare(
    "mce",
    "maximum calibration error",
    "lower",
    "calibration:mce",
    roles=_CLASSIFIED,
    note=f"{_BINS}; {_WIDE}",
    statistic=Statistic("mce", _SURE),
)
_declare(
    "smooth-ece",
    "smooth calibration error",
    "lower",
    "smooth:smooth_ece",
    roles=_CLASSIFIED,
    note="no bins: reflected Gaussian kernel whose bandwidth equals the error",
    statistic=Statistic("smooth-ece", _SURE),
)
_declare(
    "classwise-ece",
    "classwise expected calibration error",
    "lower",
    "calibration:classwise_ece",
    roles=_CLASSIFIED,
    note=f"mean over classes, each one's probability in {_BINS}",
    statistic=_point("classwise_ece"),
)
_declare(
    "ts-ece",
    "expected calibration error after temperature scaling",
    "lower",
    "calibration:ts_ece",
    roles=_CLASSIFIED,
    note=f"{_BINS}; temperature fitted on the calibration split; {_WIDE}",
    statistic=Statistic("ece", ("ts_confidence", "correct"), slope="ts_slope"),
)
_declare(
    "temperature-log-ratio",
    "log of the fitted temperature over FP32's",
    "zero",
    "calibration:temperature_log_ratio",
    roles=_CLASSIFIED,
    unit="log ratio",
    range_=(-math.inf, math.inf),
    note="positive = more confident than it may be; 0 for FP32 itself",
    statistic=_point("temperature_log_ratio"),
)
_declare(
    "nll",
    "negative log-likelihood",
    "lower",
    "calibration:nll",
    roles=_LABELLED | _POOLED,
    unit="nats",
    range_=(0, math.inf),
    statistic=Statistic("mean", ("nll",)),
)
_declare(
    "brier",
    "Brier score",
    "lower",
    "calibration:brier",
    roles=_CLASSIFIED,
    unit="score",
    range_=(0, 2),
    note="sum over classes (0 to 2), not their mean",
    statistic=Statistic("mean", ("brier",)),
)

# -- selective classification -----------------------------------------------------------------

_declare(
    "aurc",
    "area under the risk-coverage curve",
    "lower",
    "selective:aurc",
    roles=_CLASSIFIED,
    note=_ERRORS_FIRST,
    statistic=Statistic("aurc", _SURE),
)
_declare(
    "augrc",
    "area under the generalised risk-coverage curve",
    "lower",
    "selective:augrc",
    roles=_CLASSIFIED,
    note=f"share of samples accepted and wrong, over coverage; {_ERRORS_FIRST}",
    statistic=Statistic("augrc", _SURE),
)
_declare(
    "coverage-at-5",
    "largest coverage with at most 5 % errors",
    "higher",
    "selective:coverage_at_risk",
    roles=_CLASSIFIED,
    note=f"0 where there is none; {_ERRORS_FIRST}",
    statistic=Statistic("coverage", _SURE),
)

# -- churn against FP32 -----------------------------------------------------------------------

_declare(
    "flip-rate",
    "share of samples whose predicted class differs from FP32's",
    "lower",
    "churn:flip_rate",
    roles=_CLASSIFIED,
    note="0 for FP32 itself",
    statistic=Statistic("share", ("agrees",), below=1),
)
_declare(
    "negative-flips",
    "share of samples that FP32 gets right and the quantized model wrong",
    "lower",
    "churn:negative_flips",
    roles=_GROUPED | _POOLED,
    note="0 for FP32 itself; equal accuracy can hide them",
    statistic=Statistic("share", ("stays_correct",), below=1),
)
_declare(
    "kl-to-fp32",
    "mean Kullback-Leibler divergence of the softmax from FP32's",
    "lower",
    "churn:kl_to_fp32",
    roles=_CLASSIFIED,
    unit="nats",
    range_=(0, math.inf),
    note="KL(FP32 || quantized)",
    statistic=Statistic("mean", ("kl",)),
)
_declare(
    "top2-gap-shrinkage",
    "mean loss of the gap between the two largest probabilities, against FP32",
    "lower",
    "churn:top2_gap_shrinkage",
    roles=_CLASSIFIED,
    range_=(-1, 1),
    note="positive = decisions became less clear",
    statistic=Statistic("mean", ("top2_gap_loss",)),
)

# -- groups: fairness, spurious cues, corruptions ---------------------------------------------

_declare(
    "worst-group-top1",
    "accuracy of the worst group",
    "higher",
    "groups:worst_group_top1",
    roles=_GROUPED,
    statistic=Statistic("group-min", ("correct",)),
)
_declare(
    "group-top1-range",
    "largest minus smallest accuracy of a group",
    "lower",
    "groups:top1_range",
    roles=_GROUPED,
    statistic=Statistic("group-range", ("correct",)),
)
_declare(
    "group-top1-std",
    "standard deviation of the groups' accuracies",
    "lower",
    "groups:top1_std",
    roles=_GROUPED,
    note="each group counts once",
    statistic=Statistic("group-std", ("correct",)),
)
_declare(
    "group-ece-range",
    "largest minus smallest expected calibration error of a group",
    "lower",
    "groups:ece_range",
    roles=_GROUPED,
    note=_BINS,
    statistic=Statistic("group-ece-range", _SURE),
)
_declare(
    "group-tpr-range",
    "largest minus smallest true-positive rate of a group",
    "lower",
    "groups:tpr_range",
    roles=_GROUPED,
    note="rate of a group: mean over the classes that occur in it",
    statistic=Statistic("group-tpr-range", ("correct", "label")),
)
_declare(
    "relative-gap",
    "relative spurious gap (A_common - A_counter) / A_common",
    "lower",
    "groups:relative_gap",
    roles=_SPURIOUS,
    range_=(-math.inf, 1),
    note="its loss is the study's delta RSG",
    statistic=Statistic("relative-gap", ("correct",)),
)
_declare(
    "added-vulnerability",
    "relative degradation on counter minus common samples",
    "lower",
    "groups:added_vulnerability",
    roles=_SPURIOUS,
    range_=(-math.inf, math.inf),
    note="0 for FP32 itself",
    statistic=Statistic("added-vulnerability", ("correct", "fp32_correct")),
)
_declare(
    "corruption-error",
    "mean corruption error relative to FP32",
    "lower",
    "groups:corruption_error",
    roles=_CORRUPTION,
    unit="ratio",
    range_=(0, math.inf),
    note="mean over kinds of errors / FP32's errors; 1 for FP32 itself",
    statistic=Statistic("corruption-error", ("correct", "fp32_correct")),
)

# -- retrieval --------------------------------------------------------------------------------

for _k in DEPTHS:
    _declare(
        f"i2t-recall-{_k}",
        f"image-to-text recall@{_k}",
        "higher",
        "retrieval:image_to_text",
        roles=_RETRIEVAL,
        arguments={"k": _k},
        note="of equally similar captions the first stands first",
        statistic=Statistic("share", ("i2t_rank",), below=_k),
    )
    _declare(
        f"t2i-recall-{_k}",
        f"text-to-image recall@{_k}",
        "higher",
        "retrieval:text_to_image",
        roles=_RETRIEVAL,
        arguments={"k": _k},
        note="of equally similar images the first stands first",
        statistic=Statistic("mean-share", (f"t2i_{_k}",)),
    )
_declare(
    "hubness",
    "skewness of how often an image is among a caption's ten nearest",
    "lower",
    "retrieval:hubness",
    roles=_RETRIEVAL,
    unit="skewness",
    range_=(-math.inf, math.inf),
    statistic=Statistic("skewness", ("occurrences",)),
)
_declare(
    "lost-captions",
    "share of images with a caption whose embedding has a cosine below 0.9 with FP32's",
    "lower",
    "retrieval:lost_captions",
    roles=_RETRIEVAL,
    note="0 for FP32 itself; recall can hide captions that were answered with others' features",
    statistic=Statistic("share", ("captions_kept",), below=1),
)
_declare(
    "embedding-distance",
    "mean of 1 - cosine between an image's embedding and FP32's",
    "lower",
    "retrieval:embedding_distance",
    roles=_EMBEDDED,
    unit="1 - cosine",
    range_=(0, 2),
    note="0 for FP32 itself",
    statistic=Statistic("mean", ("cosine_distance",)),
)

# -- features and their spectra ---------------------------------------------------------------

_declare(
    "sqnr",
    "feature signal-to-quantization-noise ratio",
    "higher",
    "sanity:sqnr",
    roles=_CLASSIFIED,
    unit="dB",
    range_=(-math.inf, math.inf),
    note="against FP32 features; the worse of the quantized towers; the margin is a floor",
    judged_by="limit",
    statistic=_point("sqnr_db"),
)
_declare(
    "zero-fraction",
    "share of zero feature entries",
    "lower",
    "sanity:zero_fraction",
    roles=_CLASSIFIED,
    statistic=_point("zero_fraction"),
)
_declare(
    "effective-rank",
    "effective rank of the image features",
    "higher",
    "sanity:effective_rank",
    roles=_CLASSIFIED,
    unit="dimensions",
    range_=(1, math.inf),
    note="exp of the spectrum's entropy, centred features",
    statistic=_point("effective_rank"),
)
for _band in BANDS:
    _declare(
        f"sqnr-{_band}",
        f"SQNR of ranks {band_name(_band)} in FP32's basis",
        "higher",
        "spectra:band_sqnr",
        roles=_CLASSIFIED,
        unit="dB",
        range_=(-math.inf, math.inf),
        note="image features; infinite where the vision tower is not quantized; the margin is a "
        "floor",
        judged_by="limit",
        arguments={"band": _band},
        statistic=_point(f"sqnr_{_band}_db"),
    )
    _declare(
        f"top1-{_band}",
        f"zero-shot accuracy from ranks {band_name(_band)} alone",
        "higher",
        "spectra:band_top1",
        roles=_CLASSIFIED,
        note="ranks of the model's own features, centred",
        arguments={"band": _band},
        statistic=Statistic("share", (f"{_band}_band_wrong",), below=1),
    )
for _name, _ranks in (("head", "low"), ("tail", "high")):
    _declare(
        f"{_name}-energy",
        f"share of the features' energy in ranks {band_name(_ranks)}",
        "higher" if _name == "tail" else "lower",
        "spectra:band_energy",
        roles=_CLASSIFIED,
        note="the study's damping of high ranks raises the head's share and lowers the tail's",
        arguments={"band": _ranks},
        statistic=_point(f"{_ranks}_energy"),
    )

# -- detection of what is out of distribution -------------------------------------------------

for _score, _title, _column in (
    ("mcm", "MCM", "mcm"),
    ("max-logit", "max-logit", "max_logit"),
    ("energy", "energy", "energy"),
    ("entropy", "negative entropy", "neg_entropy"),
    ("knn", "k-nearest-neighbour", "knn"),
    ("mahalanobis", "Mahalanobis", "mahalanobis"),
):
    for _name, _kind, _better, _note in (
        ("auroc", "AUROC", "higher", "positive class: in-distribution"),
        ("aupr", "AUPR", "higher", "positive class: in-distribution; step-wise (no interpolation)"),
        (
            "aupr-out",
            "AUPR of what is out",
            "higher",
            "positive class: out-of-distribution; step-wise (no interpolation)",
        ),
        (
            "fpr95",
            "FPR at 95 % TPR",
            "lower",
            "share of OOD accepted where at least 95 % of in-distribution is; with few samples "
            + _WIDE,
        ),
    ):
        _declare(
            f"{_name}-{_score}",
            f"OOD detection {_kind}, {_title} score",
            _better,  # type: ignore[arg-type]
            f"ood:{_name.replace('-', '_')}",
            roles=_OOD,
            note=_note,
            score=_column,
            statistic=Statistic(_name, (_column,)),
        )
