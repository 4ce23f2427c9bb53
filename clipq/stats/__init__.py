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
from clipq.stats.intervals import (
    Interval,
    bca_interval,
    normal_interval,
    percentile_interval,
    standard_error,
)
from clipq.stats.multiplicity import adjusted, single_step
from clipq.stats.pairing import MINIMUM_SAMPLES, check_paired, check_size
from clipq.stats.power import (
    minimum_detectable_effect,
    samples_needed,
    swap_rows,
    unpaired_accuracy_error,
)
from clipq.stats.ranking import RANKINGS, ranking
from clipq.stats.statistics import bin_resolution, binned_errors, weighted_means
from clipq.stats.weights import bootstrap_weights, jackknife_weights

__all__ = [
    "MINIMUM_SAMPLES",
    "RANKINGS",
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
    "jackknife_weights",
    "mcnemar",
    "minimum_detectable_effect",
    "normal_interval",
    "percentile_interval",
    "ranking",
    "samples_needed",
    "score_interval",
    "score_z",
    "single_step",
    "standard_error",
    "swap_rows",
    "unpaired_accuracy_error",
    "weighted_means",
]
