"""Features that were made elsewhere: the time to import them, beside `np.load` of the same file.

    python benchmarks/feature_import.py [--quick]

50,000 samples x 512 dimensions, float32, rows shuffled, from each format that clipq reads: checked
against the samples' ids and brought into their order. The file was just written, so it comes from
memory.

Goal: at most 5 s each.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from benchmark import Goals, Script, lacking

from clipq.runtimes.feature_files import FeatureFiles

GOAL = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="half a minute")
    script.size("--samples", full=50_000, quick=500, help="rows of features")
    script.size("--dimensions", full=512, quick=16, help="columns of features")
    script.size("--rounds", full=5, quick=1, help="of which the median is shown")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        lacking("pyarrow")
    random = np.random.default_rng(0)
    ids = [f"val-{number:08d}.jpg" for number in range(options.samples)]
    features = random.standard_normal((options.samples, options.dimensions)).astype(np.float32)
    order = random.permutation(options.samples)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.npz"
        np.savez(plain, ids=ids, features=features)
        bare = timed(lambda: load(plain), options.rounds)
        print(f"np.load: {bare:.3f} s ({plain.stat().st_size / 2**20:,.0f} MiB)")
        for path in written(Path(folder), [ids[row] for row in order], features[order]):
            found = FeatureFiles(path, {"id": ids}).rows("id")
            goals.exact(np.array_equal(found, features))
            seconds = timed(lambda: FeatureFiles(path, {"id": ids}).rows("id"), options.rounds)  # noqa: B023
            met = goals.measured(seconds <= GOAL)
            print(
                f"{path.suffix[1:]}: {seconds:.3f} s, {seconds / bare:.1f} x np.load "
                f"(goal {GOAL:g} s{'' if met else ', missed'})"
            )
    return goals.code


def written(folder: Path, ids: list[str], features: np.ndarray) -> list[Path]:
    """Write the same features in every format; return the files."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    paths = [folder / f"features{suffix}" for suffix in (".npz", ".safetensors", ".parquet")]
    np.savez(paths[0], ids=ids, features=features)
    save_file({"features": features}, paths[1], {"ids": json.dumps(ids)})
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
    pq.write_table(pa.table({"id": ids, "embedding": embedding}), paths[2])
    return paths


def load(path: Path) -> list[np.ndarray]:
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


def timed(run: Callable[[], object], rounds: int) -> float:
    """Return the median of the seconds that a call takes."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    sys.exit(main())
