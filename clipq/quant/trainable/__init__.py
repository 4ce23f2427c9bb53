"""Trained quantizers: models whose weights and inputs are rounded while they learn.

`prepare` puts trainable twins into an open_clip model; `Trainable` names what can be learnt, takes
and gives a trained state, and freezes. What is learnt from which data is no business of it.
"""

from __future__ import annotations

from clipq.quant.trainable.preparation import prepare
from clipq.quant.trainable.trainable import Trainable

__all__ = ["Trainable", "prepare"]
