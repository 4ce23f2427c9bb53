"""Hypothesis profiles: what a developer, a CI run and a thorough search need.

| profile | examples | deadline | draws |
|---|---|---|---|
| default | 60 | none | random, failures remembered |
| ci | 60 | none | the same in every run |
| thorough | 1,000 | none | random |

Deadlines are off because the first call of a torch operation takes longer than those that follow.
"""

from __future__ import annotations

import os

from hypothesis import settings

__all__ = ["load_profile"]

settings.register_profile("default", deadline=None, max_examples=60)
settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True, database=None)
settings.register_profile("thorough", deadline=None, max_examples=1000)


def load_profile() -> str:
    """Load and name the profile of `HYPOTHESIS_PROFILE`; without it `ci` where `CI` is set.

    Call it in a `conftest.py`.
    """
    name = os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if "CI" in os.environ else "default")
    settings.load_profile(name)
    return name
