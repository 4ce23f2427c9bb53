"""Wall time of the embedded matrix under `pytest -n auto`: cold cache, then warm.

    python benchmarks/matrix_time.py [--quick]

Goals on 2 cores, for the default profile: at most 300 s cold, at most 60 s warm, and a gate that
passes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmark import Goals, Script
from embedded import REPOSITORY

GOALS = {"cold": 300.0, "warm": 60.0}


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about five minutes on 2 cores")
    script.size("--workers", full="auto", quick="0", help="processes, pytest's -n")
    for kind, narrow in (("model", "vit-clean"), ("quantizer", "rtn:w8"), ("probe", "digits")):
        script.size(f"--{kind}", full="*", quick=narrow, help="cases of one alone; * for all")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    narrowed = [
        f"--clipq-{kind}={getattr(options, kind)}"
        for kind in ("model", "quantizer", "probe")
        if getattr(options, kind) != "*"
    ]
    with tempfile.TemporaryDirectory() as folder:
        cache, report = Path(folder) / "cache", Path(folder) / "report"
        for state, goal in GOALS.items():
            seconds, cases, code = run(cache, report, options.workers, narrowed)
            print(f"{state}: {cases:,} cases in {seconds:.1f} s (goal {goal:g} s), exit {code}")
            goals.measured(seconds <= goal)
            goals.exact(code == 0)
    return goals.code


def run(cache: Path, report: Path, workers: str, narrowed: list[str]) -> tuple[float, int, int]:
    """Return (seconds, cases, exit code) of one run of the matrix."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider",
         "reliability_tests/test_reliability.py", f"--clipq-cache={cache}",
         f"--clipq-report={report}", *narrowed],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    record = json.loads((report / "report.json").read_text())
    return seconds, len(record["cases"]), done.returncode


if __name__ == "__main__":
    sys.exit(main())
