"""Paired statistics on per-sample predictions: resampling, intervals, tests, planning.

Takes arrays and returns numbers; knows no metric, model or baseline. Numpy and scipy only.
"""

from clipq.stats.delong import PairedAuroc, delong
from clipq.stats.discordant import (
    Discordance,
    count_discordant,
    mcnemar,
    score_interval,
    score_z,
)
from clipq.stats.group_replicates import grouped_statistic
from clipq.stats.intervals import (
    Interval,
    bca_interval,
    normal_interval,
    percentile_interval,
    standard_error,
)
from clipq.stats.multiplicity import CONDITION, adjusted, single_step
from clipq.stats.pairing import MINIMUM_SAMPLES, check_paired, check_size
from clipq.stats.power import (
    minimum_detectable_effect,
    samples_needed,
    swap_rows,
    unpaired_accuracy_error,
)
from clipq.stats.ranking import ranking
from clipq.stats.resampling_weights import bootstrap_weights, jackknife_weights
from clipq.stats.selective_replicates import selective_risks
from clipq.stats.smooth_replicates import smooth_ece
from clipq.stats.statistics import (
    bin_resolution,
    binned_errors,
    weighted_means,
    weighted_skewness,
)

__all__ = [
    "CONDITION",
    "MINIMUM_SAMPLES",
    "Discordance",
    "Interval",
    "PairedAuroc",
    "adjusted",
    "bca_interval",
    "bin_resolution",
    "binned_errors",
    "bootstrap_weights",
    "check_paired",
    "check_size",
    "count_discordant",
    "delong",
    "grouped_statistic",
    "jackknife_weights",
    "mcnemar",
    "minimum_detectable_effect",
    "normal_interval",
    "percentile_interval",
    "ranking",
    "samples_needed",
    "score_interval",
    "score_z",
    "selective_risks",
    "single_step",
    "smooth_ece",
    "standard_error",
    "swap_rows",
    "unpaired_accuracy_error",
    "weighted_means",
    "weighted_skewness",
]
