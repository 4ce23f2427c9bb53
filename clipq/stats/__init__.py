"""Paired statistics on per-sample predictions: resampling, intervals, tests, planning.

Takes arrays and returns numbers; knows no metric, model or baseline. Numpy and scipy only.
"""

from clipq.stats.clusters import (
    changing_share,
    cluster_codes,
    effective_units,
    linked_codes,
    side_strata,
)
from clipq.stats.delong import PairedAuroc, delong, placements
from clipq.stats.discordant import (
    Discordance,
    count_discordant,
    mcnemar,
    score_interval,
    score_z,
)
from clipq.stats.discordant_tail import discordance_p_value, estimated_p_value
from clipq.stats.group_replicates import GroupedReplicates, grouped_statistic
from clipq.stats.group_resolution import group_resolution
from clipq.stats.group_statistics import rates_of
from clipq.stats.intervals import (
    Interval,
    bca_interval,
    percentile_interval,
)
from clipq.stats.linear_error import linear_error, linked_error
from clipq.stats.multiplicity import CONDITION, adjusted, counted, single_step
from clipq.stats.operating_point import false_positive_rates
from clipq.stats.pairing import (
    MINIMUM_CLUSTERS,
    MINIMUM_SAMPLES,
    check_paired,
    check_size,
    check_units,
)
from clipq.stats.power import (
    minimum_detectable_effect,
    samples_needed,
    swap_rows,
    unpaired_accuracy_error,
)
from clipq.stats.precision_influence import precision_influence
from clipq.stats.ranking import ranking
from clipq.stats.resampling_weights import bootstrap_weights, by_sample, jackknife_weights
from clipq.stats.sampling_error import SamplingError
from clipq.stats.selective_replicates import selective_risks
from clipq.stats.share_interval import independent_samples, wilson
from clipq.stats.smooth_replicates import smooth_ece
from clipq.stats.statistics import (
    bin_resolution,
    binned_errors,
    finite_column,
    skewness_resolution,
    weighted_means,
    weighted_skewness,
)

__all__ = [
    "CONDITION",
    "MINIMUM_CLUSTERS",
    "MINIMUM_SAMPLES",
    "Discordance",
    "GroupedReplicates",
    "Interval",
    "PairedAuroc",
    "SamplingError",
    "adjusted",
    "bca_interval",
    "bin_resolution",
    "binned_errors",
    "bootstrap_weights",
    "by_sample",
    "changing_share",
    "check_paired",
    "check_size",
    "check_units",
    "cluster_codes",
    "count_discordant",
    "counted",
    "delong",
    "discordance_p_value",
    "effective_units",
    "estimated_p_value",
    "false_positive_rates",
    "finite_column",
    "group_resolution",
    "grouped_statistic",
    "independent_samples",
    "jackknife_weights",
    "linear_error",
    "linked_codes",
    "linked_error",
    "mcnemar",
    "minimum_detectable_effect",
    "percentile_interval",
    "placements",
    "precision_influence",
    "ranking",
    "rates_of",
    "samples_needed",
    "score_interval",
    "score_z",
    "selective_risks",
    "side_strata",
    "single_step",
    "skewness_resolution",
    "smooth_ece",
    "swap_rows",
    "unpaired_accuracy_error",
    "weighted_means",
    "weighted_skewness",
    "wilson",
]
