"""Pooled evidence: several probes as one table, derived, stratified, base images kept together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipq.cases import Candidate, Cell
from clipq.data import Images, probe_from_images
from clipq.errors import ProbeError, SettingsError
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.mixture_evaluator import MixtureEvaluator
from clipq.evaluation.plan import plan
from clipq.evaluation.pooling import check_apart, pool, pooled_fingerprint
from clipq.evaluation.resampling import Resampler, Tables
from clipq.metrics import Predictions, metrics
from clipq.settings import CorruptionSettings, ProbeSettings, StatisticsSettings, load_settings
from clipq.stats import bootstrap_weights

DATA = Path(__file__).parents[3] / "fixtures" / "data"
POOLED = ("four", "id", "noise")
PROBES = (
    ProbeSettings("four", "groups", f"webdataset:{DATA}/four-groups", group="group"),
    ProbeSettings(
        "noise",
        "corruption",
        f"webdataset:{DATA}/shapes",
        samples=50,
        corruption=CorruptionSettings(("gaussian_noise", "fog"), (1,)),
    ),
    ProbeSettings("pooled", "pooled", probes=POOLED),
)


def table(ids, *, clusters=None, **columns) -> Predictions:
    found = {"id": np.array(ids), "group": np.array([""] * len(ids)), **columns}
    return Predictions(found if clusters is None else found | {"cluster": np.array(clusters)})


def numbered(count, start=0):
    return [f"{number}" for number in range(start, start + count)]


def weights_of(pooled, replicates=300):
    return bootstrap_weights(
        len(pooled),
        replicates=replicates,
        seed=1,
        clusters=pooled.column("cluster"),
        strata=pooled.column("stratum"),
    )


@pytest.fixture
def three():
    """A probe of 40 images, two versions of 20 of them, and 30 images from elsewhere."""
    tables = {
        "id": table(numbered(40), rank=np.arange(40) % 2),
        "fog": table(
            [f"{n}~{k}" for n in range(20) for k in "ab"],
            clusters=[f"{n}" for n in range(20) for _ in "ab"],
            rank=np.arange(40) % 3,
        ),
        "far": table(numbered(30), rank=np.arange(30) % 5),
    }
    return pool(tables, {"id": "id", "fog": "id", "far": "far"})


def test_every_probe_keeps_its_size_in_every_resample(three):
    for name, size in (("id", 40), ("fog", 40), ("far", 30)):
        drawn = weights_of(three)[:, three.column("group") == name].sum(axis=1)
        assert set(drawn.tolist()) == {size}


def test_samples_of_one_image_are_drawn_together_across_probes(three):
    weights = weights_of(three)
    ids = three.column("id").tolist()
    for one, others in (("id/3", ("fog/3~a", "fog/3~b")), ("id/30", ())):
        for other in others:
            assert (weights[:, ids.index(one)] == weights[:, ids.index(other)]).all()
    # The same id in another source is another image.
    assert (weights[:, ids.index("id/3")] != weights[:, ids.index("far/3")]).any()


def test_the_spread_is_that_of_sums_over_images_within_each_stratum(three):
    values = three.column("rank") > 0
    replicates = weights_of(three, 4000) @ values / len(three)
    variance, size = 0.0, len(three)
    for stratum in set(three.column("stratum").tolist()):
        inside = three.column("stratum") == stratum
        clusters = three.column("cluster")[inside]
        sums = np.array([values[inside][clusters == c].sum() for c in np.unique(clusters)])
        variance += len(sums) * sums.var() / size**2
    assert replicates.std() == pytest.approx(np.sqrt(variance), rel=0.05)
    assert replicates.mean() == pytest.approx(values.mean(), abs=0.005)


def test_kinds_of_few_images_are_drawn_with_each_other_or_with_the_largest_kind():
    def strata(*repeats):  # of image number i, in `fog`, as many versions
        images = numbered(sum(count for count, _ in repeats))
        versions = [times for count, times in repeats for _ in range(count)]
        fog = [
            (image, n) for image, times in zip(images, versions, strict=True) for n in range(times)
        ]
        tables = {
            "id": table(images, rank=np.zeros(len(images), np.int64)),
            "fog": table(
                [f"{image}~{n}" for image, n in fog],
                clusters=[image for image, _ in fog],
                rank=np.zeros(len(fog), np.int64),
            ),
        }
        names = pool(tables, {"id": "id", "fog": "id"}).column("stratum")[: len(images)]
        return dict(zip(*(x.tolist() for x in np.unique(names, return_counts=True)), strict=True))

    assert strata((20, 1), (30, 2)) == {"1 fog, 1 id": 20, "2 fog, 1 id": 30}
    assert strata((20, 1), (6, 2), (7, 3)) == {"1 fog, 1 id": 20, "mixed": 13}
    assert strata((20, 1), (3, 2)) == {"1 fog, 1 id": 23}


def test_only_columns_that_all_members_have_are_pooled(three):
    ours = {"id": table(["a"], nll=np.ones(1), mcm=np.ones(1)), "b": table(["a"], nll=np.zeros(1))}
    pooled = pool(ours, {"id": "id", "b": "b"})
    assert set(pooled.columns) == {"id", "group", "cluster", "stratum", "nll"}
    assert "label" not in three.columns  # classes are counted in each probe's own list


def test_what_identifies_a_pooled_probe_is_its_members_their_samples_and_what_they_share():
    origins, samples = {"id": "id", "fog": "id"}, {"id": "0f", "fog": "1e"}
    known = pooled_fingerprint(origins, samples)
    assert known == pooled_fingerprint(dict(origins), dict(samples))
    assert known != pooled_fingerprint(origins | {"fog": "fog"}, samples)
    assert known != pooled_fingerprint(origins, samples | {"id": "2d"})
    assert known != pooled_fingerprint({"id": "id"}, samples)


def test_an_image_from_two_sources_would_count_twice():
    night = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 1)])
    data = Images(night, [0, 0], ["x"])
    probes = [probe_from_images(data, name=name, role="shift") for name in ("near", "far")]
    check_apart(probes, {"near": "near", "far": "near"})
    with pytest.raises(ProbeError, match="'near' and 'far' are pooled and share 2 images"):
        check_apart(probes, {"near": "near", "far": "far"})


class TestThroughAModel:
    @pytest.fixture
    def settings(self, project):
        found = load_settings(project.settings(metrics=("*",), quantizers=("rtn:w8",)))
        return replace(found, probes=(*found.probes, *PROBES))

    @pytest.fixture
    def evaluator(self, settings) -> Evaluator:
        return Evaluator(settings)

    def test_its_values_are_means_over_all_samples_and_nothing_is_stored(self, evaluator, settings):
        cell = Cell("vit-clean", "rtn:w8", "pooled")
        members = [evaluator.evaluate(cell.on(name)) for name in POOLED]
        stored = set(settings.cache.rglob("*.safetensors"))
        found = evaluator.evaluate(cell)
        assert set(settings.cache.rglob("*.safetensors")) == stored
        assert len(found.predictions) == sum(len(one.predictions) for one in members) == 2048 + 420
        for name in ("top1", "negative-flips", "nll"):
            sizes = [len(one.predictions) for one in members]
            values = [metrics.get(name).compute(one.predictions) for one in members]
            expected = np.average(values, weights=sizes)
            assert metrics.get(name).compute(found.predictions) == pytest.approx(
                expected, rel=1e-12
            )
        assert set(found.evidence["predictions"]) == {str(cell.on(name)) for name in POOLED}
        seen = found.evidence["probes"]["pooled"]
        assert seen["pools"] == {"id": "id", "four": "four", "noise": "id"}
        assert (seen["role"], seen["samples"]) == ("pooled", 2468)

    def test_fp32_and_the_quantized_model_are_drawn_alike(self, evaluator):
        cell = Cell("vit-clean", "rtn:w8", "pooled")
        resampler = Resampler(StatisticsSettings(replicates=100))
        tables = [evaluator.evaluate(one).predictions for one in (cell, cell.reference)]
        for name in ("cluster", "stratum", "id"):
            assert np.array_equal(*(one.column(name) for one in tables))
        ours, theirs = (
            resampler.replicates(metrics.get("top1"), Tables(one, one)) for one in tables
        )
        assert np.corrcoef(ours, theirs)[0, 1] > 0.95

    def test_its_figures_are_drawn_by_probe(self, evaluator):
        drawn = evaluator.figures(Cell("vit-clean", "fp32", "pooled"))
        assert {name: row["samples"] for name, row in drawn["groups"].items()} == {
            "four": 320, "id": 2048, "noise": 100,
        }  # fmt: skip
        assert sum(drawn["calibration"]["samples"]) == 2468

    def test_layers_put_back_to_float_are_pooled_as_well(self, evaluator):
        candidate = Candidate("vit-clean", "rtn:w8")
        tables = MixtureEvaluator(evaluator, candidate).tables(frozenset(), "pooled")
        whole = evaluator.evaluate(candidate.on("pooled")).predictions
        assert np.array_equal(tables.predictions.column("rank"), whole.column("rank"))

    def test_its_cases_are_those_metrics_that_are_means_over_samples(self, settings):
        found = [case.metric for case in plan(settings) if case.probe == "pooled"]
        assert found == ["negative-flips", "nll", "top1"]
        brier = replace(PROBES[-1], metrics=("brier",))
        with pytest.raises(SettingsError, match="no metric matches 'brier'"):
            plan(replace(settings, probes=(*settings.probes[:-1], brier)))

    def test_it_has_no_images_of_its_own(self, evaluator):
        with pytest.raises(SettingsError, match="'pooled' has no images to look at"):
            evaluator.encodings.features(Cell("vit-clean", "fp32", "pooled"))
