"""Selective, smooth, group, retrieval, distance and spectral metrics against other implementations.

Each is compared with an independent library or written out by hand; each of its replicates with
the metric itself on a table that repeats samples as often as they were drawn.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fairlearn.metrics import MetricFrame
from netcal.metrics import ECE
from pytorch_ood.detector import KNN
from scipy.spatial.distance import cdist
from scipy.special import softmax
from scipy.stats import skew
from sklearn.covariance import LedoitWolf
from sklearn.metrics import average_precision_score, recall_score
from torch_uncertainty.metrics.classification import AUGRC, AURC, CovAt5Risk

from clipq.errors import ClipqError, StatisticsError
from clipq.evaluation.resampling import Resampler, Tables
from clipq.metrics import Predictions, metrics
from clipq.metrics.calibration import BINS, classwise_error
from clipq.metrics.distances import knn, mahalanobis
from clipq.metrics.retrieval import captions_kept, cosine_distance, retrieval_columns
from clipq.metrics.spectra import BANDS, band_features, residual_spectrum
from clipq.settings import StatisticsSettings
from clipq.stats import bootstrap_weights, selective_risks, smooth_ece

GROUPS = ("blue", "green", "red")


def table(count=600, seed=0, *, groups=GROUPS) -> Predictions:
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.1, 1.0, count)
    return Predictions(
        {
            "id": np.array([f"s{i}" for i in range(count)]),
            "confidence": confidence,
            "correct": (rng.uniform(size=count) < confidence**1.3).astype(np.int64),
            "fp32_correct": (rng.uniform(size=count) < 0.8).astype(np.int64),
            "label": rng.integers(0, 5, count),
            "group": rng.choice(
                groups, count, p=np.arange(1, len(groups) + 1) / sum(range(len(groups) + 1))
            ),
            "occurrences": rng.poisson(3.0, count).astype(float),
            "cosine_distance": rng.uniform(size=count),
        }
    )


def as_probabilities(found: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes of which the first is predicted: what torch-uncertainty reads."""
    sure = torch.tensor(found.column("confidence"), dtype=torch.float64)
    spread = (1 - sure)[:, None] / 20
    return torch.cat([sure[:, None], spread.expand(-1, 20)], 1), torch.tensor(
        1 - found.column("correct")
    )


RESAMPLED = (
    "aurc",
    "augrc",
    "coverage-at-5",
    "smooth-ece",
    "worst-group-top1",
    "group-top1-range",
    "group-top1-std",
    "group-ece-range",
    "group-tpr-range",
    "corruption-error",
    "hubness",
    "embedding-distance",
)


@pytest.mark.parametrize("name", RESAMPLED)
def test_each_replicate_is_the_metric_of_the_repeated_samples(name):
    metric, found = metrics.get(name), table()
    settings = StatisticsSettings(replicates=100)
    tables = Tables(found, found)
    replicates = Resampler(settings).replicates(metric, tables)
    weights = bootstrap_weights(len(found), replicates=100, seed=settings.seed)
    for row in (0, 7, 99):
        repeated = found.drawn(np.repeat(np.arange(len(found)), weights[row]))
        assert replicates[row] == pytest.approx(metric.compute(repeated), abs=2e-7), row


@pytest.mark.parametrize("name", ["relative-gap", "added-vulnerability"])
def test_replicates_between_common_and_counter(name):
    metric, found = metrics.get(name), table(groups=("common", "counter"))
    settings = StatisticsSettings(replicates=100)
    replicates = Resampler(settings).replicates(metric, Tables(found, found))
    weights = bootstrap_weights(len(found), replicates=100, seed=settings.seed)
    repeated = found.drawn(np.repeat(np.arange(len(found)), weights[3]))
    assert replicates[3] == pytest.approx(metric.compute(repeated), abs=1e-12)


class TestSelective:
    @pytest.mark.parametrize(
        ("name", "theirs"), [("aurc", AURC), ("augrc", AUGRC), ("coverage-at-5", CovAt5Risk)]
    )
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_equals_torch_uncertainty(self, name, theirs, seed):
        found = table(seed=seed)
        reference = theirs()
        reference.update(*as_probabilities(found))
        assert metrics.get(name).compute(found) == pytest.approx(
            float(reference.compute()), abs=1e-6
        )

    def test_by_hand(self):
        # By falling confidence: right, wrong, right, right; risks 0, 1/2, 1/3, 1/4.
        found = Predictions(
            {"confidence": np.array([0.5, 0.9, 0.7, 0.6]), "correct": np.array([1, 1, 0, 1])}
        )
        area = (0 + 0.5) / 2 + (0.5 + 1 / 3) / 2 + (1 / 3 + 0.25) / 2
        assert metrics.get("aurc").compute(found) == pytest.approx(area / 4 / 0.75)
        assert metrics.get("augrc").compute(found) == pytest.approx(
            (0.125 + 0.25 + 0.25) / 4 / 0.75
        )
        assert metrics.get("coverage-at-5").compute(found) == 0.25

    def test_ties_count_against_the_model_whatever_their_order(self):
        columns = {"confidence": np.full(4, 0.7), "correct": np.array([1, 0, 1, 1])}
        turned = {name: values[::-1] for name, values in columns.items()}
        for name in ("aurc", "augrc", "coverage-at-5"):
            metric = metrics.get(name)
            assert metric.compute(Predictions(columns)) == metric.compute(Predictions(turned))
        assert metrics.get("coverage-at-5").compute(Predictions(columns)) == 0.0

    def test_weights_that_are_no_counts_are_refused(self):
        with pytest.raises(StatisticsError, match="no counts"):
            selective_risks(np.ones(3), np.ones(3), np.full((1, 3), 0.5), risk=0.05)

    def test_a_sample_without_a_finite_confidence_is_no_number(self):
        found = Predictions({"confidence": np.array([0.5, np.nan]), "correct": np.array([1, 0])})
        for name in ("aurc", "augrc", "coverage-at-5", "smooth-ece"):
            assert np.isnan(metrics.get(name).compute(found))


class TestSmooth:
    @staticmethod
    def by_images(confidence, correct):
        """The definition: a Gaussian and its mirror images, integrated by the midpoint rule."""
        t = (np.arange(1024) + 0.5) / 1024
        places = np.concatenate(
            [2 * k + sign * confidence for k in range(-4, 5) for sign in (1, -1)]
        )
        residual = np.tile(confidence - correct, 18)

        def error(sigma):
            kernel = (
                np.exp(-0.5 * ((t[:, None] - places) / sigma) ** 2) / sigma / np.sqrt(2 * np.pi)
            )
            return np.abs(kernel @ residual / len(confidence)).mean()

        low, high = 0.004, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if error(middle) <= middle else (middle, high)
        return error(high)

    @pytest.mark.parametrize("seed", [0, 1])
    @pytest.mark.parametrize("exponent", [0.3, 1.0, 3.0])
    def test_equals_the_definition(self, seed, exponent):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0, 1, 150)
        correct = (rng.uniform(size=150) < confidence**exponent).astype(np.int64)
        expected = self.by_images(confidence, correct)
        found = Predictions({"confidence": confidence, "correct": correct})
        assert metrics.get("smooth-ece").compute(found) == pytest.approx(expected, abs=1e-6)
        unit = smooth_ece(confidence, correct, np.ones((1, 150), np.uint8))
        assert unit[0] == pytest.approx(expected, abs=1e-6)

    def test_one_confident_mistake_is_an_error_of_one(self):
        found = Predictions({"confidence": np.ones(5), "correct": np.zeros(5, np.int64)})
        assert metrics.get("smooth-ece").compute(found) == pytest.approx(1.0, abs=1e-6)

    def test_logits_are_refused(self):
        found = Predictions({"confidence": np.array([3.0, 0.1]), "correct": np.array([1, 0])})
        with pytest.raises(ClipqError, match="never logits"):
            metrics.get("smooth-ece").compute(found)


def test_classwise_error_is_the_mean_of_one_against_the_rest():
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(0, 2, (500, 6)), rng.integers(0, 6, 500)
    probability = softmax(logits, axis=1)
    expected = [
        ECE(bins=BINS).measure(probability[:, k], (labels == k).astype(int)) for k in range(6)
    ]
    assert classwise_error(logits, labels) == pytest.approx(np.mean(expected), abs=1e-9)
    logits[3, 2] = np.inf
    assert np.isnan(classwise_error(logits, labels))


class TestGroups:
    def test_equal_fairlearn(self):
        found = table()
        right, groups = found.column("correct"), found.column("group")
        frame = MetricFrame(
            metrics=lambda truth, guess: (truth == guess).mean(),
            y_true=np.ones_like(right),
            y_pred=right,
            sensitive_features=groups,
        )
        assert metrics.get("worst-group-top1").compute(found) == pytest.approx(frame.group_min())
        difference = frame.difference(method="between_groups")
        assert metrics.get("group-top1-range").compute(found) == pytest.approx(difference)
        assert metrics.get("group-top1-std").compute(found) == pytest.approx(
            frame.by_group.to_numpy(float).std()
        )

    def test_true_positive_rates_equal_scikit_learn_s_within_fairlearn(self):
        found = table()
        labels = found.column("label")
        guess = np.where(found.column("correct") == 1, labels, (labels + 1) % 5)
        frame = MetricFrame(
            metrics=lambda y, p: recall_score(y, p, average="macro", labels=np.unique(y)),
            y_true=labels,
            y_pred=guess,
            sensitive_features=found.column("group"),
        )
        expected = frame.difference(method="between_groups")
        assert metrics.get("group-tpr-range").compute(found) == pytest.approx(expected)

    def test_calibration_of_each_group_equals_netcal_s(self):
        found = table()
        errors = [
            ECE(bins=BINS).measure(
                found.column("confidence")[found.column("group") == group],
                found.column("correct")[found.column("group") == group],
            )
            for group in GROUPS
        ]
        assert metrics.get("group-ece-range").compute(found) == pytest.approx(np.ptp(errors))

    def spurious(self) -> Predictions:
        # common: FP32 9 of 10, model 8 of 10; counter: FP32 6 of 10, model 4 of 10.
        def counts(right):
            return [1] * right + [0] * (10 - right)

        return Predictions(
            {
                "group": np.repeat(["common", "counter"], 10),
                "correct": np.array(counts(8) + counts(4)),
                "fp32_correct": np.array(counts(9) + counts(6)),
                "confidence": np.full(20, 0.5),
            }
        )

    def test_spurious_cues_by_hand(self):
        found = self.spurious()
        assert metrics.get("relative-gap").compute(found) == pytest.approx((0.8 - 0.4) / 0.8)
        assert metrics.get("added-vulnerability").compute(found) == pytest.approx(
            (0.6 - 0.4) / 0.6 - (0.9 - 0.8) / 0.9
        )

    def test_corruption_error_by_hand(self):
        ratios = (2 / 1, 6 / 4)
        found = self.spurious()
        assert metrics.get("corruption-error").compute(found) == pytest.approx(np.mean(ratios))

    def test_a_kind_that_fp32_never_gets_wrong_counts_half_a_sample(self):
        columns = dict(self.spurious().columns) | {"fp32_correct": np.array([1] * 10 + [0] * 10)}
        expected = (2 / 0.5 + 6 / 10) / 2
        assert metrics.get("corruption-error").compute(Predictions(columns)) == pytest.approx(
            expected
        )

    def test_other_groups_than_common_and_counter(self):
        for name in ("relative-gap", "added-vulnerability"):
            with pytest.raises(ClipqError, match="no group 'common' among blue, green, red"):
                metrics.get(name).compute(table())
        with pytest.raises(ClipqError, match="1 group"):
            metrics.get("worst-group-top1").compute(table(groups=("only",)))


class TestRetrieval:
    def brute(self, images, texts, owner):
        cosine = (
            images
            @ texts.T
            / np.outer(np.linalg.norm(images, axis=1), np.linalg.norm(texts, axis=1))
        )
        recalls = {}
        for k in (1, 5, 10):
            nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
            recalls[f"i2t-recall-{k}"] = np.mean([i in owner[row] for i, row in enumerate(nearest)])
            nearest = np.argsort(-cosine, axis=0, kind="stable")[:k]
            hits = [owner[m] in nearest[:, m] for m in range(len(texts))]
            recalls[f"t2i-recall-{k}"] = np.mean(
                [
                    np.mean([hit for hit, o in zip(hits, owner, strict=True) if o == i])
                    for i in range(len(images))
                ]
            )
        top = np.argsort(-cosine, axis=0, kind="stable")[:10]
        recalls["hubness"] = skew(np.bincount(top.ravel(), minlength=len(images)))
        return recalls

    @pytest.mark.parametrize("captions", [1, 3])
    @pytest.mark.parametrize("tied", [False, True])
    def test_equals_sorting_everything(self, captions, tied):
        rng = np.random.default_rng(captions)
        images = rng.normal(size=(60, 8))
        owner = rng.permutation(np.repeat(np.arange(60), captions))
        texts = images[owner] + rng.normal(0, 1.2, (60 * captions, 8))
        if tied:  # two images and two captions in three are another's, and cosines are exact
            images, texts = images[np.arange(60) // 3], texts[np.arange(len(texts)) // 3]
            axes = np.eye(8)
            images, texts = (axes[np.abs(x).argmax(axis=1)] for x in (images, texts))
        found = Predictions(
            retrieval_columns(images, texts, owner)
            | {"cosine_distance": cosine_distance(images, images)}
        )
        for name, expected in self.brute(images, texts, owner).items():
            assert metrics.get(name).compute(found) == pytest.approx(expected), name
        assert metrics.get("embedding-distance").compute(found) == pytest.approx(0.0, abs=1e-12)

    def test_recall_equals_clip_benchmark_s(self):
        from clip_benchmark.metrics.zeroshot_retrieval import recall_at_k

        rng = np.random.default_rng(3)
        images, noise = rng.normal(size=(50, 6)), rng.normal(0, 1.0, (50, 6))
        owner, texts = np.arange(50), images + noise
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)]
        scores = torch.tensor(unit[1] @ unit[0].T)
        pairs = torch.eye(50, dtype=torch.bool)
        found = Predictions(retrieval_columns(images, texts, owner))
        for k in (1, 5, 10):
            theirs = float((recall_at_k(scores, pairs, k=k) > 0).float().mean())
            assert metrics.get(f"t2i-recall-{k}").compute(found) == pytest.approx(theirs)
            theirs = float((recall_at_k(scores.T, pairs.T, k=k) > 0).float().mean())
            assert metrics.get(f"i2t-recall-{k}").compute(found) == pytest.approx(theirs)

    def test_captions_are_lost_one_by_one_where_recall_may_stay(self):
        rng = np.random.default_rng(5)
        theirs, owner = rng.normal(size=(120, 16)), np.repeat(np.arange(60), 2)
        ours = theirs + rng.normal(0, 0.1, theirs.shape)
        assert captions_kept(ours, theirs, owner).all()
        ours[15::16] = ours[14::16][: len(ours[15::16])]
        kept = captions_kept(ours, theirs, owner)
        expected = {owner[i] for i in range(15, 120, 16)}
        assert set(np.flatnonzero(kept == 0)) == expected
        found = Predictions({"captions_kept": kept, "occurrences": np.ones(60)})
        assert metrics.get("lost-captions").compute(found) == pytest.approx(len(expected) / 60)
        ours[0, 0] = np.nan
        assert captions_kept(ours, theirs, owner)[0] == 0

    def test_a_model_that_tells_nothing_apart_is_right_where_chance_is(self):
        same = np.ones((4, 3))
        found = retrieval_columns(same, same, np.arange(4))
        assert found["i2t_rank"].tolist() == [0, 1, 2, 3]
        assert found["t2i_1"].tolist() == [1.0, 0.0, 0.0, 0.0]

    def test_an_image_without_a_caption(self):
        with pytest.raises(ClipqError, match="2 captions of 1 images for 2 images"):
            retrieval_columns(np.eye(2), np.eye(2), np.array([0, 0]))

    def test_features_that_are_not_finite_give_no_number(self):
        broken = np.eye(12)
        broken[0, 0] = np.nan
        found = Predictions(retrieval_columns(broken, np.eye(12), np.arange(12)))
        found = Predictions(dict(found.columns) | {"captions_kept": np.zeros(12, np.int64)})
        for name in ("i2t-recall-1", "t2i-recall-1", "hubness", "lost-captions"):
            assert np.isnan(metrics.get(name).compute(found)), name


class TestDistances:
    def features(self):
        rng = np.random.default_rng(0)
        labels = np.repeat(np.arange(4), 30)
        centres = rng.normal(size=(4, 12))
        return rng.normal(size=(25, 12)), centres[labels] + rng.normal(0, 0.4, (120, 12)), labels

    def test_neighbours_equal_pytorch_ood(self):
        queries, known, labels = self.features()
        detector = KNN(None, k=10)
        detector.fit_features(torch.tensor(known), torch.tensor(labels))
        theirs = detector.predict_features(torch.tensor(queries)).numpy()
        assert knn(queries, known) == pytest.approx(-theirs, abs=1e-9)

    def test_mahalanobis_equals_scipy_with_scikit_learn_s_covariance(self):
        queries, known, labels = self.features()
        queries, known = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, known))
        means = np.stack([known[labels == k].mean(axis=0) for k in range(4)])
        shrunk = LedoitWolf(assume_centered=True).fit(known - means[labels])
        squared = cdist(queries, means, "mahalanobis", VI=shrunk.precision_) ** 2
        assert mahalanobis(queries, known, labels) == pytest.approx(-squared.min(axis=1), abs=1e-9)

    def test_length_does_not_matter(self):
        queries, known, labels = self.features()
        assert knn(queries * 7, known) == pytest.approx(knn(queries, known))
        assert mahalanobis(queries * 7, known, labels) == pytest.approx(
            mahalanobis(queries, known, labels)
        )

    def test_labels_that_do_not_fit(self):
        queries, known, labels = self.features()
        with pytest.raises(ClipqError, match="119 labels for 120 features"):
            mahalanobis(queries, known, labels[1:])


def test_detection_of_the_outside_is_average_precision_of_minus_the_score():
    rng = np.random.default_rng(2)
    inside, outside = rng.normal(1, 1, 300), rng.normal(0, 1, 200)
    target = np.repeat([0, 1], [300, 200])
    expected = average_precision_score(target, -np.concatenate([inside, outside]))
    metric = metrics.get("aupr-out-mcm")
    known, other = Predictions({"mcm": inside}), Predictions({"mcm": outside})
    assert metric.compute(other, known) == pytest.approx(expected)
    replicates = Resampler(StatisticsSettings(replicates=100)).replicates(
        metric, Tables(other, known)
    )
    assert abs(replicates.mean() - expected) < 0.03


class TestSpectra:
    def features(self, dimensions=80):
        rng = np.random.default_rng(1)
        scales = 1.0 / np.arange(1, dimensions + 1)
        reference = rng.normal(size=(400, dimensions)) * scales + 3.0
        return reference.astype(np.float32), (
            reference + rng.normal(0, 0.01, reference.shape)
        ).astype(np.float32)

    def test_energies_equal_a_singular_value_decomposition(self):
        reference, quantized = self.features()
        wide = reference.astype(np.float64)
        centred = wide - wide.mean(axis=0)
        _, values, directions = np.linalg.svd(centred, full_matrices=False)
        found = residual_spectrum(reference, quantized)
        assert found.signal == pytest.approx(values**2 / len(wide), rel=1e-6)
        residual = (quantized.astype(np.float64) - wide) @ directions.T
        assert found.residual == pytest.approx((residual**2).mean(axis=0), rel=1e-6)
        low, high = (found.sqnr_db(band) for band in ("low", "high"))
        assert low > high  # white noise drowns weak directions first
        share = (values[:8] ** 2).sum() / (values**2).sum()
        assert found.energy_share("low") == pytest.approx(share)

    def test_bands_of_the_own_basis_sum_to_the_centred_features(self):
        features, _ = self.features()
        total = sum(band_features(features, band) for band in BANDS)
        wide = features.astype(np.float64)
        assert total == pytest.approx(wide - wide.mean(axis=0), abs=1e-9)

    def test_no_residual_no_such_ranks_and_no_numbers(self):
        features, _ = self.features(dimensions=20)
        assert residual_spectrum(features, features).sqnr_db("low") == float("inf")
        assert np.isnan(residual_spectrum(features, features * 2).sqnr_db("high"))
        broken = np.full_like(features, np.nan)
        assert np.isnan(residual_spectrum(features, broken).sqnr_db("low"))
        assert np.isnan(band_features(broken, "low")).all()
        with pytest.raises(ClipqError, match="cannot be compared"):
            residual_spectrum(features, features[1:])
