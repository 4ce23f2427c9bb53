"""Small CLIPs of every family, shared by the tests of quantization."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from clipq.testing import SMALL_CLIPS, SmallInputs, small_clip


@pytest.fixture(scope="session")
def sample() -> SmallInputs:
    return SmallInputs()


@pytest.fixture(scope="session", params=SMALL_CLIPS)
def any_model(request: pytest.FixtureRequest) -> nn.Module:
    """Each family in turn; shared, so no test may change it."""
    return small_clip(request.param)


@pytest.fixture(scope="session")
def vit() -> nn.Module:
    return small_clip("vit")


@pytest.fixture
def fresh() -> Callable[[str], nn.Module]:
    """Builder of models that a test may change."""
    return small_clip
