"""What a quantizer can be trained to minimise, by name.

| name | minimised |
|---|---|
| `contrastive` | the loss that CLIP or SigLIP was trained with |
| `features` | distance of the features to FP32's |
| `distil` | `contrastive` + `features` |
| `kl` | divergence of the batch's probabilities from FP32's |
| `reliability` | divergence from FP32's *calibrated* probabilities, and made outliers' ranks |

docs/objectives.md derives them and says what each did.

>>> objectives.names()
['contrastive', 'distil', 'features', 'kl', 'reliability']
>>> objectives.get("contrastive")().contrasts
True
>>> objectives.get("distill")
Traceback (most recent call last):
clipq.errors.UnknownNameError: unknown objective 'distill'
  fix: did you mean 'distil'? ...
"""

from __future__ import annotations

from collections.abc import Callable

from clipq.registry import Registry
from clipq.training.objective import Objective

__all__ = ["objectives"]

objectives: Registry[Callable[[], Objective]] = Registry("objective", group="clipq.objectives")
"""Objectives by name: what is registered makes one, without arguments."""
for _name, _target in {
    "contrastive": "contrastive:Contrastive",
    "distil": "distances:Distil",
    "features": "distances:FeatureDistance",
    "kl": "distances:LogitDivergence",
    "reliability": "reliability:Reliability",
}.items():
    objectives.register_lazy(_name, f"clipq.training.objectives_{_target}")
