"""What this repository adds to the installed clipq plugin: Hypothesis profiles, and one thread."""

import os

from clipq.testing.profiles import load_profile

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers with a thread per core each wait for one another more than they compute.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
load_profile()
