"""Runs exported models: ONNX Runtime, OpenVINO, exported programs, features made elsewhere."""

from clipq.runtimes.finding import Finding
from clipq.runtimes.runtime import (
    Look,
    Port,
    Runtime,
    Tower,
    TowerFacts,
    TowerPorts,
    runtimes,
)

__all__ = [
    "Finding",
    "Look",
    "Port",
    "Runtime",
    "Tower",
    "TowerFacts",
    "TowerPorts",
    "runtimes",
]
