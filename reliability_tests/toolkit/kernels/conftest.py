"""Without a GPU, kernels are interpreted on the CPU: asked for before any of them is loaded."""

import pytest
import torch

from clipq.kernels.device import use_interpreter

if not torch.cuda.is_available():
    use_interpreter()


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
