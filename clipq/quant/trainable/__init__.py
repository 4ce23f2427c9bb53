"""Trained quantizers: models whose weights and inputs are rounded while they learn.

`prepare` puts trainable twins into an open_clip model; `Trainable` names what can be learnt, takes
and gives a trained state, and freezes. `learner_of` asks a method of somebody else's for its own.
What is learnt from which data is no business of this package.
"""

from __future__ import annotations

from clipq.quant.trainable.preparation import prepare
from clipq.quant.trainable.trainable import Trainable
from clipq.quant.trainable.trained_method import Learner, learner_of

__all__ = ["Learner", "Trainable", "learner_of", "prepare"]
