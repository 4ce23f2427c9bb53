"""Labels of the calibration split count in the zero-shot head's classes, whatever it lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from clipq.cases import Candidate, Cell
from clipq.data import Images, probe_from_images
from clipq.errors import ProbeError
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.known_labels import calibration_remarks, known_labels
from clipq.evaluation.mixture_evaluator import MixtureEvaluator
from clipq.settings import load_settings

LACKING = ("circle", "frame")


def split(classes, labels, **changes):
    pixels = np.arange(len(labels) * 192, dtype=np.uint8).reshape(-1, 8, 8, 3)
    given = Images(pixels, labels=labels, classnames=classes)
    return replace(probe_from_images(given, name="calibration", role="calibration"), **changes)


HEAD = split(("cat", "dog", "owl", "red owl"), [0, 1, 2, 3])


def test_labels_are_found_by_name():
    found = known_labels(split(("owl", "cat"), [0, 1, 1]), HEAD)
    assert found.labels.tolist() == [2, 0, 0]
    assert found.columns is None
    assert found.missing == ("dog", "red owl")
    [said] = calibration_remarks(found, HEAD.classnames)
    assert "no sample of 2 of 4 classes ('dog', 'red owl')" in said


def test_the_head_s_own_list_changes_nothing():
    labels = [3, 0, 2, 1, 1]
    found = known_labels(split(HEAD.classnames, labels), HEAD)
    assert found.labels.tolist() == labels
    assert (found.columns, found.missing) == (None, ())
    assert calibration_remarks(found, HEAD.classnames) == []


def test_a_class_that_is_listed_but_shown_by_no_sample_is_missing():
    assert known_labels(split(HEAD.classnames, [0, 1, 2]), HEAD).missing == ("red owl",)


def test_classes_that_stand_for_several_are_one_and_all_others_remain():
    mapped = split(("bird", "cat"), [0, 1], class_map=(("red owl", "owl"), ("cat",)))
    found = known_labels(mapped, HEAD)
    assert found.columns == ((3, 2), (0,), (1,))
    assert found.labels.tolist() == [0, 1]
    assert found.missing == ("dog",)


def test_of_two_classes_of_one_name_each_is_found():
    head = split(("missile", "cat", "missile", "dog"), [0, 1, 2, 3])
    found = known_labels(split(("dog", "missile", "missile"), [0, 1, 2]), head)
    assert found.labels.tolist() == [3, 0, 2]
    one = known_labels(split(("dog", "missile"), [0, 1]), head)
    assert one.columns == ((3,), (0, 2), (1,))  # nobody says which: as near as the nearer


def test_foreign_classes_are_refused_by_their_names():
    with pytest.raises(ProbeError, match=r"'hen'.* is called 'hen' \(nor 'cow', 'ewe'\)"):
        known_labels(split(("cat", "hen", "cow", "dog", "ewe"), [0, 1]), HEAD)


@pytest.mark.parametrize("wrong", [-1, 2])
def test_a_sample_without_a_label_is_refused(wrong):
    unlabelled = replace(split(("cat", "dog"), [0, 1]), labels=np.array([0, wrong]))
    with pytest.raises(ProbeError, match="1 of 2 samples have no label among its 2 classes"):
        known_labels(unlabelled, HEAD)


def fitted(logits, labels):
    """Return the temperature of the smallest NLL, by a search of its own."""

    def nll(log_t):
        return -log_softmax(logits / np.exp(log_t), axis=1)[np.arange(len(labels)), labels].mean()

    return float(np.exp(minimize_scalar(nll, bracket=(-1.0, 1.0)).x))


def test_a_calibration_folder_that_lacks_classes_gives_the_temperature_of_its_samples(
    project, tmp_path
):
    """Positions in the folder's own list made id.ts-ece several times as large, in silence."""
    settings = load_settings(project.settings(metrics=("*",)))
    whole = Evaluator(settings).inputs.calibration
    for position, image in enumerate(whole.images()):
        name = whole.classnames[whole.labels[position]]
        if name not in LACKING and position < 160:
            folder = tmp_path / "images" / "calibration" / name
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{position}.png")
    changes = {
        "id": {"samples": 64, "group": ""},
        "calibration": {"source": f"folder:{tmp_path}/images"},
        "digits": {"samples": 8},
    }
    probes = tuple(replace(one, **changes[one.name]) for one in settings.probes)
    lacking = Evaluator(replace(settings, probes=probes))
    cell = Cell("vit-clean", "fp32", "id")
    found = lacking.evaluate(cell)
    [remark] = found.evidence["models"]["vit-clean"]["remarks"]
    assert "no sample of 2 of 16 classes ('circle', 'frame')" in remark
    head = lacking.encodings.head(cell.candidate)
    features = lacking.encodings.features(cell.on("calibration")).astype(np.float64)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    logits = head.logit_scale * unit @ head.embeddings.T.astype(np.float64) + head.logit_bias
    names = [name.partition("/")[0] for name in lacking.inputs.calibration.ids]
    classes = lacking.inputs.known.classnames
    expected = fitted(logits, np.array([classes.index(name) for name in names]))
    assert found.predictions.scalar("temperature") == pytest.approx(expected, rel=1e-5)
    in_the_folder = sorted(set(names))
    amiss = fitted(logits, np.array([in_the_folder.index(name) for name in names]))
    assert amiss > 2 * expected  # so the test can tell the two apart

    quantized = Candidate("vit-clean", "rtn:w4")
    mixed = MixtureEvaluator(lacking, quantized).tables(frozenset(), "id").predictions
    ours = lacking.evaluate(quantized.on("id")).predictions
    assert mixed.scalar("temperature") == pytest.approx(ours.scalar("temperature"), rel=1e-6)

    # The same samples and label numbers under other names may not meet each other's results.
    renamed = replace(lacking.inputs.calibration, classnames=tuple(in_the_folder[::-1]))
    given = {probe.name: probe for probe in lacking.inputs.probes.values()} | {
        "calibration": renamed
    }
    other = Evaluator(lacking.settings, probes=given)
    assert other.encodings.identity(cell) != lacking.encodings.identity(cell)
