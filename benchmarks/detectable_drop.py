"""How much smaller an accuracy drop a paired test detects than an unpaired one, at equal size.

    python benchmarks/detectable_drop.py [--quick]

For every quantizer of this repository's matrix: the share of in-distribution samples whose
correctness changed, and the smallest true accuracy drop that is told from none with 95 %
probability (one-sided error rate 2.5 %), from paired predictions and from two accuracies alone.
The unpaired test would need the square of the ratio times as many samples. No goal. Predictions
are kept in this repository's cache, and taken from there; a quick run leaves it alone.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark import MET, Script
from embedded import embedded_settings, kept_predictions, predictions
from tabulate import tabulate

from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import planned_quantizers
from clipq.gating.baseline import load_baseline
from clipq.settings import Settings
from clipq.stats import (
    count_discordant,
    mcnemar,
    minimum_detectable_effect,
    unpaired_accuracy_error,
)


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about three minutes on 2 cores")
    script.size("--models", full=4, quick=1, help="the first of the settings")
    script.size("--quantizers", full=("*",), quick=("rtn:w8",), help="* for all")
    script.add_argument("--cache", type=Path, help="where predictions are kept")
    options = script.options(arguments)
    with kept_predictions(options.cache, apart=options.quick) as cache:
        report(
            embedded_settings(
                models=options.models,
                quantizers=() if "*" in options.quantizers else options.quantizers,
                probes=("id", "calibration"),
                cache=cache,
            )
        )
    return MET


def report(settings: Settings) -> None:
    """Print a row for each model and quantizer."""
    tail, power = settings.statistics.tail, settings.statistics.power
    evaluator, probe = Evaluator(settings), settings.in_distribution.name
    rows, ratios = [], []
    for model in settings.models:
        stored = load_baseline(settings.baselines, model.name)
        if stored is None:
            continue
        before = stored.predictions[probe].column("correct")
        for quantizer in planned_quantizers(settings):
            after = predictions(evaluator, model.name, quantizer, probe).column("correct")
            counts = count_discordant(before, after)
            changed = counts.worse + counts.better
            # Two imagined samples, one changed each way: as the gate counts them.
            paired = math.sqrt(changed + 2 - counts.samples * counts.drop**2) / counts.samples
            unpaired = unpaired_accuracy_error(before.mean(), after.mean(), counts.samples)
            effects = [
                minimum_detectable_effect(error, tail=tail, power=power)
                for error in (paired, unpaired)
            ]
            ratios.append(effects[1] / effects[0])
            rows.append(
                (
                    model.name,
                    quantizer,
                    f"{changed / counts.samples:.2%}",
                    f"{counts.drop:+.2%}",
                    f"{mcnemar(counts):.2g}",
                    *(f"{effect:.2%}" for effect in effects),
                    f"{ratios[-1]:.1f}",
                )
            )
    headers = ("model", "quantizer", "changed", "drop", "McNemar p", "paired", "unpaired", "ratio")
    print(tabulate(rows, headers, disable_numparse=True))
    median = statistics.median(ratios)
    print(
        f"\nmedian over {len(ratios)} quantizers: unpaired, detectable drops are {median:.1f} "
        f"times as large: {median**2:.0f} times the samples would be needed"
    )


if __name__ == "__main__":
    sys.exit(main())
