"""What this repository adds to the installed clipq plugin: Hypothesis profiles, and one thread."""

import gc
import os

from clipq.testing.profiles import load_profile

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers with a thread per core each wait for one another more than they compute.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
load_profile()


def pytest_collection_finish() -> None:
    """Leave out of every collection of garbage what stays to the end: libraries and tests."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let libraries end as they do: what is frozen, they report as leaked."""
    gc.unfreeze()
