"""A method of somebody else's that learns is trained by the same door as clipq's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import clipq
from clipq.errors import QuantizerError
from clipq.evaluation.trained_folder import TrainedFolder
from clipq.quant.methods import find_method, quantizers
from clipq.quant.spec import QuantizerSpec

TEXT = "shifted:w8,batch=8,every=1,lr=0,objective=features,pairs=40,step_lr=0.1,steps=3@vision"
NEAREST = QuantizerSpec.parse("rtn:w8@vision")


class Shifted:
    """Rounding to nearest, and a shift of image features that is learnt."""

    def __init__(self, model, spec, calibration):
        self.module = find_method(NEAREST)(model, NEAREST, calibration)
        self.shift = nn.Parameter(torch.full((96,), 0.5))
        visual = self.module.visual
        visual.register_parameter("shift", self.shift)
        visual.register_forward_hook(lambda module, given, features: features + self.shift)

    def weights(self):
        return {}

    def steps(self):
        return {"shift": self.shift}

    def collapsed(self):
        return []

    def state(self):
        return {"shift": self.shift.detach().clone()}

    def load(self, state):
        self.shift.data.copy_(state["shift"])


def shifted(model, spec, calibration):
    learner = Shifted(model, spec, calibration)
    if calibration.trained is not None:
        learner.load(calibration.trained)
    return learner.module


@pytest.fixture
def registered(monkeypatch):
    for held in ("_objects", "_origins"):
        monkeypatch.setattr(quantizers, held, dict(getattr(quantizers, held)))
    return quantizers.register


def train(folder):
    pairs = clipq.open_probe("webdataset:fixtures/data/captions", split="test", role="retrieval")
    return clipq.train("local-dir:fixtures/models/vit-clean", TEXT, pairs, output=folder)


def test_its_own_learner_is_trained_and_its_state_is_what_the_method_is_given(registered, tmp_path):
    excused = {"nearest": "features are shifted, and three steps do not shift them back"}
    registered("shifted", trains=True, prepare=Shifted, exceptions=excused)(shifted)
    trained = train(tmp_path / "trained")
    began, *_, ended = (entry.held_out["total"] for entry in trained.manifest.losses)
    assert ended < began
    state = TrainedFolder.read(tmp_path / "trained").state()
    assert list(state) == ["shift"]
    assert (state["shift"] < 0.5).float().mean() > 0.5  # from nowhere near zero, towards it
    assert trained.quantized().coverage.share > 0.99


def test_one_that_says_nothing_of_how_it_is_prepared_is_refused(registered, tmp_path):
    registered("shifted", trains=True)(lambda model, spec, calibration: model)
    with pytest.raises(QuantizerError, match="no trainable form"):
        train(tmp_path / "trained")
