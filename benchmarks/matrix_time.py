"""Wall time of the embedded matrix under `pytest -n auto`: cold cache, then warm.

    python benchmarks/matrix_time.py

Goals on 2 cores, for the default profile: at most 300 s cold, at most 60 s warm.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def run(cache: Path, report: Path) -> tuple[float, int, int]:
    """Return (seconds, cases, exit code) of one run of the matrix."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider",
         "reliability_tests/test_reliability.py", f"--clipq-cache={cache}",
         f"--clipq-report={report}"],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    record = json.loads((report / "report.json").read_text())
    return seconds, len(record["cases"]), done.returncode


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache, report = Path(folder) / "cache", Path(folder) / "report"
        for state, goal in (("cold", 300), ("warm", 60)):
            seconds, cases, code = run(cache, report)
            print(f"{state}: {cases} cases in {seconds:.1f} s (goal {goal} s), exit code {code}")


if __name__ == "__main__":
    main()
