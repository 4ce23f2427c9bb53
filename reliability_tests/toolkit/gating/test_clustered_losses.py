"""Clustered samples: every error against an implementation of its own, and a few against theory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import statsmodels.api
from pair_evidence import evidence

from clipq.cases import Case
from clipq.errors import StatisticsError
from clipq.evaluation.closed_forms import closed_form
from clipq.evaluation.evaluator import Evaluated
from clipq.evaluation.known_labels import KnownLabels
from clipq.evaluation.pooling import pool
from clipq.evaluation.predict import Encoded, Head, SampleInfo, build_predictions
from clipq.evaluation.resampling import Resampler, Tables
from clipq.evaluation.resolution import resolution
from clipq.gating import comparable
from clipq.gating.baseline import load_baseline, save_baseline
from clipq.gating.comparable import Comparability
from clipq.gating.interval import IntervalJudge
from clipq.gating.loss_estimator import LossEstimator, discordance
from clipq.gating.margins import MarginRule, Margins
from clipq.gating.planning import plan_power
from clipq.gating.verdict import Evidence
from clipq.metrics import Predictions, metrics
from clipq.metrics.calibration import BINS
from clipq.metrics.temperature import fit_temperature
from clipq.settings import StatisticsSettings, load_settings
from clipq.stats import bootstrap_weights, false_positive_rates, linked_codes, side_strata
from clipq.verdicts import Verdict

REPOSITORY = Path(__file__).parents[3]
PATIENTS = 60
SETTINGS = StatisticsSettings(replicates=2000)


def scans(seed: int = 0, *, shared: int = 30, members: int = 6, patients: int = PATIENTS):
    """Return tables of FP32 and of a worse model; patients err together, on either side alike.

    Patients have 1 to 2 x `members` scans in distribution; `shared` of them, and others, have some
    out of distribution as well. Groups and classes cut through patients.
    """
    rng = np.random.default_rng(seed)
    inside = np.repeat(np.arange(patients), rng.integers(1, 2 * members, patients))
    outside = np.repeat(np.arange(patients - shared, 2 * patients - shared), members)
    effect, drift = rng.normal(size=(2, 2 * patients))
    sides = []
    noise = rng.normal(size=len(inside)), rng.normal(size=len(outside))
    sure = rng.uniform(0.8, 1.0, len(inside))
    for harm in (0.0, 0.4):
        moved = harm * (2.0 * drift + 0.5)
        logit = 1.2 + effect[inside] + noise[0] - moved[inside]
        logit += harm * rng.normal(size=len(inside))
        correct = logit > 0.3
        known = Predictions(
            {
                "id": np.array([f"s{n}" for n in range(len(inside))]),
                "cluster": np.array([f"patient={p}" for p in inside]),
                "group": np.array(["young", "old"])[np.arange(len(inside)) % 2],
                "rank": (~correct).astype(int),
                "correct": correct.astype(int),
                "confidence": sure,
                "kl": np.abs(moved[inside]),
                "nll": np.log1p(np.exp(-logit)),
                "agrees": (logit > -0.5).astype(int),
                "t2i_1": np.clip(np.round(logit), 0, 5) / 5,
                "mcm": logit,
            }
        )
        scores = effect[outside] + noise[1] - 0.5 * moved[outside]
        out = Predictions(
            {
                "id": np.array([f"o{n}" for n in range(len(outside))]),
                "cluster": np.array([f"patient={p}" for p in outside]),
                "mcm": scores + harm * rng.normal(size=len(outside)),
            }
        )
        sides.append(Tables(out, known))
    return sides


def without(tables: Tables, column: str = "cluster") -> Tables:
    inside, outside = (
        Predictions({k: v for k, v in table.columns.items() if k != column})
        for table in (tables.in_distribution, tables.predictions)
    )
    return Tables(outside, inside)


def sides_of(case):
    return case.baseline_tables, case.observed_tables


def clusters_of(tables: Tables):
    """Return the clusters in and out of distribution."""
    return (tables.in_distribution.column("cluster"), tables.predictions.column("cluster"))


def drawn_whole(seed, draws, *sides):
    """Yield rows of each side: as many clusters as there are on any, drawn with all their rows."""
    rng = np.random.default_rng(seed)
    names = np.unique(np.concatenate(sides))
    rows = [[np.flatnonzero(side == name) for name in names] for side in sides]
    for _ in range(draws):
        picks = rng.integers(0, len(names), len(names))
        yield [np.concatenate([own[pick] for pick in picks]) for own in rows]


# -- means and shares ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nll", "top1", "flip-rate", "t2i-recall-1"])
def test_a_mean_has_the_cluster_robust_error_of_statsmodels(name):
    case = evidence(name, *scans())
    column = case.metric.statistic.columns[0]
    values = [tables.in_distribution.column(column) for tables in sides_of(case)]
    if case.metric.statistic.kind == "share":
        values = [value < case.metric.statistic.below for value in values]
    lost = values[1] * 1.0 - values[0] * 1.0
    groups = np.unique(case.observed_tables.predictions.column("cluster"), return_inverse=True)[1]
    fit = statsmodels.api.OLS(lost, np.ones(len(lost))).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": True}
    )
    found = closed_form(case.metric, case.baseline_tables, case.observed_tables)
    assert found.standard_error == pytest.approx(float(fit.bse[0]), rel=1e-9)
    sizes = np.bincount(groups)
    assert found.freedom == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum() - 1)
    assert discordance(case) is None  # no test of independent pairs, exact or not, is asked


def test_four_pictures_of_one_emoji_make_the_error_of_its_mean_twice_as_wide():
    rng = np.random.default_rng(3)
    own = np.repeat(rng.exponential(size=(2, 100)), 4, axis=1)
    ids = np.array([f"{n // 4:x}_{n % 4}" for n in range(400)])
    clusters = np.array([f"emoji={n // 4:x}" for n in range(400)])
    errors = []
    for extra in ({}, {"cluster": clusters}):
        sides = [Predictions({"id": ids, "nll": nll, **extra}) for nll in own]
        found = closed_form(metrics.get("nll"), *(Tables(table, table) for table in sides))
        errors.append(found.standard_error)
    assert errors[1] / errors[0] == pytest.approx(2.0, rel=0.01)


# -- sums that are folded, sorted or grouped -------------------------------------------------------


def expected_error(table: Predictions) -> float:
    """Calibration error in equal bins of confidence, by definition."""
    sure, right = table.column("confidence"), table.column("correct")
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    return sum(
        abs(sure[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    )


def worst_group(table: Predictions) -> float:
    group, right = table.column("group"), table.column("correct")
    return min(right[group == name].mean() for name in ("young", "old"))


@pytest.mark.parametrize(
    ("name", "value", "sign"), [("ece", expected_error, 1), ("worst-group-top1", worst_group, -1)]
)
def test_what_is_resampled_has_the_error_of_clusters_drawn_by_hand(name, value, sign):
    case = evidence(name, *scans())
    first, second = (tables.predictions for tables in sides_of(case))
    losses = [
        sign * (value(second.drawn(rows)) - value(first.drawn(rows)))
        for (rows,) in drawn_whole(1, 600, first.column("cluster"))
    ]
    resampler = Resampler(StatisticsSettings(replicates=1000))

    def error(case):
        both = (resampler.replicates(case.metric, tables) for tables in sides_of(case))
        return case.metric.loss(*both).std()

    assert error(case) == pytest.approx(np.std(losses), rel=0.1)
    assert error(case) > 1.15 * error(evidence(name, *map(without, scans())))


# -- two sides -------------------------------------------------------------------------------------


def obuchowski(sides) -> float:
    """Standard error of the difference of two AUROCs of clustered data, by Obuchowski (1997).

    With V10 and V01 the placements summed by cluster, S10, S01 and S11 their covariances over
    clusters: those with samples inside, outside, and over all.
    """
    inside, outside = clusters_of(sides[0])
    v10, v01 = 0.0, 0.0
    for sign, side in zip((1, -1), sides, strict=True):
        x, y = side.in_distribution.column("mcm"), side.predictions.column("mcm")
        wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)
        v10, v01 = v10 + sign * wins.mean(axis=1), v01 + sign * wins.mean(axis=0)
    names = np.unique(np.concatenate([inside, outside]))
    m, n = len(inside), len(outside)
    a = np.array([(v10[inside == c] - v10.mean()).sum() for c in names])
    b = np.array([(v01[outside == c] - v01.mean()).sum() for c in names])
    i10, i01, both = len(np.unique(inside)), len(np.unique(outside)), len(names)
    s10 = i10 / ((i10 - 1) * m) * (a @ a)
    s01 = i01 / ((i01 - 1) * n) * (b @ b)
    s11 = both / (both - 1) * (a @ b)
    return float(np.sqrt(s10 / m + s01 / n + 2 * s11 / (m * n)))


@pytest.mark.parametrize("shared", [0, 30, 60])
def test_areas_of_clusters_on_both_sides_have_obuchowski_s_error(shared):
    sides = scans(shared=shared)
    case = evidence("auroc-mcm", *sides)
    found = closed_form(case.metric, *sides)
    assert found.standard_error == pytest.approx(obuchowski(sides), rel=1e-9)


@pytest.mark.parametrize("name", ["aupr-mcm", "aupr-out-mcm"])
def test_a_precision_has_the_error_of_clusters_drawn_by_hand(name):
    sides = [
        Tables(
            *(
                Predictions({key: table.column(key) for key in ("id", "cluster", "mcm")})
                for table in (tables.predictions, tables.in_distribution)
            )
        )
        for tables in scans(members=10)
    ]
    case = evidence(name, *sides)
    losses = []
    for inside, outside in drawn_whole(2, 150, *clusters_of(sides[0])):
        values = [
            case.metric.compute(t.predictions.drawn(outside), t.in_distribution.drawn(inside))
            for t in sides
        ]
        losses.append(case.metric.loss(*values))
    found = closed_form(case.metric, *sides).standard_error
    assert found == pytest.approx(np.std(losses), rel=0.2)
    assert found > 1.15 * closed_form(case.metric, *map(without, sides)).standard_error


def test_a_rate_at_a_threshold_draws_shared_clusters_once_for_both_sides():
    sides = scans()
    metric = metrics.get("fpr95-mcm")
    resampler = Resampler(StatisticsSettings(replicates=300))
    ours = [resampler.replicates(metric, tables) for tables in sides]
    codes = linked_codes(*clusters_of(sides[0]))
    weights = bootstrap_weights(
        sum(map(len, codes)), replicates=300, seed=resampler.settings.seed, stream=1,
        clusters=np.concatenate(codes), strata=side_strata(*codes),
    )  # fmt: skip
    cut = len(codes[0])
    for tables, found in zip(sides, ours, strict=True):
        x, y = tables.in_distribution.column("mcm"), tables.predictions.column("mcm")
        expected = [
            false_positive_rates(np.repeat(x, row[:cut]), np.repeat(y, row[cut:]),
                                 np.ones((1, row[:cut].sum()), np.uint8),
                                 np.ones((1, row[cut:].sum()), np.uint8))[0]
            for row in weights[:20]
        ]  # fmt: skip
        assert found[:20] == pytest.approx(expected)
    both = np.intersect1d(*codes)[0]
    of_one = weights[:, np.concatenate(codes) == both]
    assert (of_one == of_one[:, :1]).all()


def test_equal_names_are_one_cluster_only_where_one_column_names_them():
    first, second = (np.array([f"{column}=1", f"{column}=2"]) for column in ("patient", "burst"))
    ids = {"id": np.array(["a", "b"])}
    known = Predictions(ids | {"cluster": first})
    assert Tables(Predictions(ids | {"cluster": first.copy()}), known).linked is not None
    assert Tables(Predictions(ids | {"cluster": second}), known).linked is None
    assert Tables(Predictions(ids), known).linked is None
    images = np.array(["0001", "0002"])  # of two sources: their ids say nothing
    assert Tables(*(Predictions(ids | {"cluster": images.copy()}) for _ in "ab")).linked is None


@pytest.mark.parametrize("side", ["in", "out"])
def test_few_clusters_on_either_side_are_refused(side):
    sides = scans()
    for at, tables in enumerate(sides):
        one = tables.in_distribution if side == "in" else tables.predictions
        few = np.array([f"patient={n % 9}" for n in range(len(one))])
        other = Predictions(one.columns | {"cluster": few})
        sides[at] = (
            replace(tables, in_distribution=other)
            if side == "in"
            else replace(tables, predictions=other)
        )
    case = evidence("auroc-mcm", *sides)
    judge = IntervalJudge(SETTINGS, Resampler(SETTINGS))
    with pytest.raises(StatisticsError, match=r"samples of 9 (independent )?clusters"):
        judge(case)


# -- what changes nothing --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["nll", "top1", "ece", "worst-group-top1", "auroc-mcm", "fpr95-mcm"],
)
def test_clusters_of_one_sample_each_change_nothing(name):
    settings = StatisticsSettings(replicates=100)
    plain = [without(tables) for tables in scans()]
    alone = [
        Tables(
            *(
                Predictions(
                    table.columns | {"cluster": np.char.add("patient=", table.column("id"))}
                )
                for table in (tables.predictions, tables.in_distribution)
            )
        )
        for tables in plain
    ]
    found = []
    for sides in (plain, alone):
        case = evidence(name, *sides)
        loss = case.metric.loss(case.baseline, case.observed)
        found.append(LossEstimator(settings, Resampler(settings))(case, loss, margin=0.05))
    assert found[0] == found[1]


# -- the calibration split -------------------------------------------------------------------------


def calibrated(clusters, *, patients=80, members=4, seed=5):
    """Return a candidate's in-distribution table; calibration samples of a patient are alike."""
    rng = np.random.default_rng(seed)
    own = np.repeat(rng.normal(size=(patients, 3)), members, axis=0)
    features = (own + 0.1 * rng.normal(size=own.shape)).astype(np.float32)
    labels = (features + 0.8 * np.repeat(rng.normal(size=(patients, 3)), members, axis=0)).argmax(1)
    head = Head(np.eye(3, dtype=np.float32), 4.0, 0.0)

    def form(shift):
        moved = (features + shift * np.repeat(rng.normal(size=(patients, 3)), members, 0)).astype(
            np.float32
        )
        unit = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        logits = 4.0 * unit.astype(np.float64)
        return Encoded(moved, head, moved, fit_temperature(logits, labels)), logits

    (fp32, theirs), (ours, logits) = form(0.0), form(0.5)
    samples = SampleInfo(tuple(map(str, range(len(labels)))), labels, ("",) * len(labels))
    table = build_predictions(
        "in-distribution", samples, ours, fp32, known=KnownLabels(labels), towers="both",
        known_clusters=clusters(np.repeat(np.arange(patients), members)),
    )  # fmt: skip
    return table, logits, theirs, labels


def patient_names(codes):
    return tuple(f"patient={code}" for code in codes)


def test_a_temperature_s_error_is_that_of_refits_on_drawn_clusters():
    table, ours, theirs, labels = calibrated(patient_names)
    codes = np.repeat(np.arange(80), 4)
    ratios, logs = [], []
    for (rows,) in drawn_whole(6, 100, codes):
        both = [np.log(fit_temperature(logits[rows], labels[rows])) for logits in (ours, theirs)]
        ratios.append(both[0] - both[1])
        logs.append(both[0])
    scalars = table.scalars
    assert scalars["temperature_log_ratio.error"] == pytest.approx(np.std(ratios), rel=0.25)
    assert np.sqrt(scalars["log_temperature.variance"]) == pytest.approx(np.std(logs), rel=0.25)
    assert scalars["temperature_log_ratio.freedom"] == pytest.approx(79)
    alone = calibrated(lambda codes: None)[0].scalars
    ratio = scalars["temperature_log_ratio.error"] / alone["temperature_log_ratio.error"]
    assert 1.4 < ratio < 2.2  # four nearly equal samples count as one
    assert "log_temperature.clusters" not in alone


def test_too_few_calibration_clusters_decide_nothing_about_a_temperature():
    table = calibrated(patient_names, patients=20, members=16)[0]
    tables = Tables(table, table)
    for name in ("temperature-log-ratio", "ts-ece"):
        metric = metrics.get(name)
        value = metric.compute(table, table)
        reference = Predictions(
            {k: v for k, v in table.columns.items() if "slope" not in k}, table.scalars
        )
        case = Evidence(metric, 0.0 if "ratio" in name else value, value, 1.0,
                        Tables(reference, reference), tables)  # fmt: skip
        judge = IntervalJudge(SETTINGS, Resampler(SETTINGS))
        with pytest.raises(StatisticsError, match=r"a calibration split worth 20 clusters"):
            judge(case)


def test_enough_calibration_clusters_do_though_they_are_fewer_than_fifty():
    table = calibrated(patient_names, patients=30, members=10)[0]
    metric = metrics.get("temperature-log-ratio")
    case = Evidence(metric, 0.0, metric.compute(table, table), 0.01, *[Tables(table, table)] * 2)
    found = IntervalJudge(SETTINGS, Resampler(SETTINGS))(case)
    assert found.samples == 30
    assert "30 clusters of calibration samples" in found.reason


# -- pooled ----------------------------------------------------------------------------------------


def test_a_named_cluster_is_one_over_all_probes_that_name_it_and_may_vary_in_size():
    rng = np.random.default_rng(0)
    tables = {}
    for name, patients in (("day", range(40)), ("night", range(20, 60))):
        owner = np.repeat(list(patients), rng.integers(1, 5, 40))
        tables[name] = Predictions(
            {
                "id": np.array([f"{n}" for n in range(len(owner))]),
                "group": np.full(len(owner), ""),
                "cluster": np.array([f"patient={p}" for p in owner]),
                "nll": rng.normal(size=60)[owner] + 0.1 * rng.normal(size=len(owner)),
            }
        )
    pooled = pool(tables, {"day": "day", "night": "night"})
    assert len(set(pooled.column("cluster"))) == 60
    kinds = ["some day", "some day, some night", "some night"]
    assert sorted(set(pooled.column("stratum"))) == kinds
    plain = Predictions({**pooled.columns, "nll": np.zeros(len(pooled))})
    found = closed_form(metrics.get("nll"), Tables(plain, plain), Tables(pooled, pooled))
    values, variance = pooled.column("nll"), 0.0
    for stratum in set(pooled.column("stratum")):  # sums over patients about their stratum's mean
        inside = pooled.column("stratum") == stratum
        owners, own = pooled.column("cluster")[inside], values[inside] - values[inside].mean()
        sums = np.array([own[owners == one].sum() for one in np.unique(owners)])
        variance += (sums @ sums) * len(sums) / (len(sums) - 1) / len(values) ** 2
    assert found.standard_error == pytest.approx(np.sqrt(variance))
    apart = pool(
        {n: Predictions({k: v for k, v in t.columns.items() if k != "cluster"})
         for n, t in tables.items()},
        {"day": "day", "night": "night"},
    )  # fmt: skip
    assert set(apart.column("stratum")) == {"1 day", "1 night"}


# -- baselines -------------------------------------------------------------------------------------


def named(table: Predictions, column: str = "patient") -> Predictions:
    clusters = np.array([f"{column}={n // 2}" for n in range(len(table))])
    return Predictions(table.columns | {"cluster": clusters}, table.scalars)


@pytest.fixture(scope="module")
def stored():
    return load_baseline(REPOSITORY / "baselines", "vit-clean")


def with_clusters(stored, column="patient", probe="id"):
    tables = {**stored.predictions, probe: named(stored.predictions[probe], column)}
    return replace(stored, predictions=tables)


def test_a_baseline_keeps_clusters_and_one_without_any_keeps_its_bytes(stored, tmp_path):
    save_baseline(tmp_path, stored)
    for suffix in ("json", "safetensors"):
        kept = (REPOSITORY / "baselines" / f"vit-clean.{suffix}").read_bytes()
        assert (tmp_path / f"vit-clean.{suffix}").read_bytes() == kept
    save_baseline(tmp_path, with_clusters(stored))
    again = load_baseline(tmp_path, "vit-clean")
    assert again.predictions["id"].column("cluster")[:3].tolist() == [
        "patient=0", "patient=0", "patient=1",
    ]  # fmt: skip
    grown = (tmp_path / "vit-clean.safetensors").stat().st_size
    grown -= (REPOSITORY / "baselines" / "vit-clean.safetensors").stat().st_size
    assert grown <= len("patient=1023") * 2048 + 500


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (
            "",
            "patient",
            "come in clusters now, cluster = 'patient'; in the baseline they are",
        ),
        ("patient", "", "cluster = 'patient'; now they are independent"),
        ("burst", "patient", "cluster = 'burst'; now cluster = 'patient'"),
    ],
)
def test_other_clusters_than_a_baseline_s_are_incomparable_and_told(
    stored, monkeypatch, before, now, said
):
    baseline = with_clusters(stored, before) if before else stored
    live = (with_clusters(stored, now) if now else stored).predictions
    evaluator = SimpleNamespace(
        evaluate=lambda cell: Evaluated(live[cell.probe], stored.identity_of(cell.probe), {}),
        live_reference=lambda model, samples: None,
    )
    monkeypatch.setattr(comparable, "drift", lambda live, baseline, known: "")
    case = Case.parse("vit-clean/rtn:w4/id.top1")
    found = Comparability(evaluator, "id", "calibration").obstacle(
        case, baseline, stored.values["id.top1"], evaluator.evaluate(case.cell)
    )
    assert found.verdict is Verdict.INCOMPARABLE
    assert said in found.reason


def test_a_sample_that_moved_to_another_cluster_is_told():
    from clipq.evaluation.cluster_facts import clusters_changed

    before = named(Predictions({"id": np.array(["a", "b", "c", "d"])}))
    moved = before.column("cluster").copy()
    moved[1:3] = "patient=9"
    after = Predictions(before.columns | {"cluster": moved})
    assert clusters_changed(before, before) == ""
    assert clusters_changed(before, after) == (
        "sample 'b' belongs to patient=9 now, in the baseline to patient=0 (and 1 others)"
    )


# -- planning --------------------------------------------------------------------------------------


def test_planning_counts_samples_in_clusters(stored, tmp_path):
    settings = load_settings(REPOSITORY / "clipq.toml")
    probes = tuple(
        replace(probe, cluster="patient") if probe.name == "id" else probe
        for probe in settings.probes
        if probe.role != "pooled"
    )
    plain = replace(settings, probes=tuple(p for p in settings.probes if p.role != "pooled"))
    clustered = replace(plain, probes=probes)
    keys = ("id.top1", "id.ece", "digits.auroc-mcm")
    cases = [Case.parse(f"vit-clean/rtn:w4/{key}") for key in keys]
    margins = Margins(Path("m.toml"), (MarginRule({"*": 0.05}),), ())

    def planned(settings, baseline):
        save_baseline(tmp_path, baseline)
        found = plan_power(replace(settings, baselines=tmp_path), cases, margins)
        return {power.key: power for power in found}

    one, two = planned(plain, stored), planned(clustered, with_clusters(stored))
    for key in keys:
        assert two[key].standard_error == pytest.approx(
            np.sqrt(2.0) * one[key].standard_error, rel=0.02
        )
        assert one[key].clusters is None
    assert (two["id.top1"].clusters, two["id.top1"].samples) == (1024, 2048)
    assert two["id.top1"].clusters_needed == max(25, -(-two["id.top1"].needed // 2))
    few = np.array([f"patient={n % 20}" for n in range(2048)])
    table = Predictions(stored.predictions["id"].columns | {"cluster": few})
    table = replace(table, scalars=stored.predictions["id"].scalars)
    scarce = planned(clustered, replace(stored, predictions={**stored.predictions, "id": table}))
    assert {power.problem for power in scarce.values()} == {"too few clusters"}


def test_a_moved_cluster_is_worth_what_its_places_move_and_all_of_them_where_none_moved():
    sides = scans()
    metric = metrics.get("auroc-mcm")
    units = sum(sides[1].units)
    assert resolution(metric, sides[0], sides[0]) == pytest.approx(1.0 / units)
    assert resolution(metric, sides[1]) == pytest.approx(1.0 / units)  # beside nothing
    found = resolution(metric, sides[1], sides[0])
    before, after = (
        (t.in_distribution.column("mcm")[:, None] > t.predictions.column("mcm")) for t in sides
    )
    shares = []
    for axis, clusters in zip((1, 0), clusters_of(sides[0]), strict=True):
        moved = np.abs(after.mean(axis=axis) - before.mean(axis=axis))
        means = np.array([moved[clusters == one].mean() for one in np.unique(clusters)])
        means = means[means > 0]
        shares.append(np.sqrt((1 + means @ means) / (1 + len(means))))
    assert found == pytest.approx(max(shares) / units)
    assert found > 1.0 / sum(map(len, clusters_of(sides[0])))


def test_an_undecided_verdict_says_that_clusters_count():
    case = evidence("nll", *scans(), margin=0.2)
    judge = IntervalJudge(SETTINGS, Resampler(SETTINGS))
    near = replace(case, margin=case.observed - case.baseline)
    assert "the 60 clusters (by 'patient') that its samples come in" in judge(near).reason
    assert judge(replace(case, margin=5.0)).reason == ""
    plain = evidence("nll", *map(without, scans()))
    assert judge(replace(plain, margin=near.margin)).reason == ""
