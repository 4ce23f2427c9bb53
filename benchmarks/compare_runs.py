"""What `clipq compare` takes for two runs of 5,000 cases, and that it imports no torch.

Both runs are files; their predictions lie in a cache. The tables are the embedded baselines' own
columns, in the second run with a part of the samples changed, so that sizes and column types are
real. Three settings: no predictions at hand, a tenth of the cells changed, every cell changed.
Goals: at most 3 s, and no torch.

    python benchmarks/compare_runs.py [--quick] [--cases 5000] [--rounds 3]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmark import Goals, Script
from embedded import REPOSITORY
from made_results import judged_by_errors, made_result

from clipq.evaluation.plan import plan
from clipq.evaluation.tables import as_table, table_digest, write_table
from clipq.gating.baseline import load_baseline
from clipq.metrics import Predictions, metrics
from clipq.records import RunRecord, sort_cases
from clipq.settings import Settings, load_settings
from clipq.verdicts import Verdict

GOAL_SECONDS = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about two minutes on 2 cores")
    script.size("--cases", full=5000, quick=100, help="of each run")
    script.size("--rounds", full=3, quick=1, help="of each comparison")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    settings = load_settings(REPOSITORY / "clipq.toml")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        project(root)
        for title, share, kept in (
            ("without predictions", 1.0, False),
            ("a tenth of the cells changed", 0.1, True),
            ("every cell changed", 1.0, True),
        ):
            before = run(settings, options.cases, root, changed=0.0, kept=kept)
            after = run(settings, options.cases, root, changed=share, kept=kept)
            for name, record in (("a.json", before), ("b.json", after)):
                (root / name).write_text(json.dumps(record.to_plain()))
            seconds = [compared(root) for _ in range(options.rounds)]
            counts = json.loads((root / "diff.json").read_text())
            paired = sum(d["interval"] == "paired" for d in counts["differences"])
            print(
                f"{title}: {len(after.cases)} cases, {paired} paired; "
                f"{min(seconds):.2f} to {max(seconds):.2f} s (goal {GOAL_SECONDS:.0f} s)",
                flush=True,
            )
            goals.measured(min(seconds) <= GOAL_SECONDS)
    return goals.code


def project(root: Path) -> None:
    text = (REPOSITORY / "clipq.toml").read_text()
    (root / "clipq.toml").write_text(text.replace("fixtures/", f"{REPOSITORY}/fixtures/"))


def compared(root: Path) -> float:
    """Return the seconds that one comparison takes, as a process; it must not load torch."""
    code = (
        "import sys; from clipq.cli import main; "
        "code = main(['compare', 'a.json', 'b.json', '--json', 'diff.json', '--output', 'diff']); "
        "assert 'torch' not in sys.modules; sys.exit(0 if code in (0, 1) else 9)"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True)
    return time.perf_counter() - start


def run(settings: Settings, cases: int, root: Path, *, changed: float, kept: bool) -> RunRecord:
    """Return a run over the embedded matrix whose tables differ in a share of the cells."""
    rng = np.random.default_rng(7)
    planned = plan(settings, profile="default")[:cases]
    stored = {
        model.name: load_baseline(settings.baselines, model.name) for model in settings.models
    }
    cells = sorted({(case.model, case.quantizer, case.probe) for case in planned})
    digests = {}
    for cell in cells if kept else ():
        baseline = stored[cell[0]]
        table = baseline.predictions[cell[2]] if baseline else Predictions({}, {})
        moved = table if rng.uniform() >= changed else perturbed(table, rng)
        columns, metadata = as_table(moved, {})
        digest = table_digest(columns)
        path = root / ".clipq" / "cache" / "predictions" / digest[:2] / f"{digest}.safetensors"
        if not path.exists():
            write_table(path, columns, metadata, key=f"predictions/{digest}")
        digests["/".join(cell)] = {"key": digest, "sha256": digest}
    evidence = {
        "predictions": digests,
        "probes": {
            probe.name: {"role": probe.role, "fingerprint": probe.name, "samples": 2048}
            for probe in settings.probes
        },
    }
    found = []
    for case in planned:
        declared = metrics.get(case.metric)
        baseline = stored[case.model]
        value = baseline.values[case.key].value if baseline else 0.5
        value = 30.0 if value is None else value
        point = declared.statistic is not None and declared.statistic.kind == "point"
        point = point or declared.judged_by != "baseline"
        found.append(
            made_result(
                *(case.model, case.quantizer, case.probe, case.metric, Verdict.PASS),
                unit=declared.unit,
                direction=declared.direction,
                metric_version=declared.version,
                baseline=value,
                observed=value + changed * float(rng.normal(0, 0.002)),
                margin=0.02,
                standard_error=None if point else 0.003,
            )
        )
    judged = list(judged_by_errors(found))
    judged[0] = replace(judged[0], evidence=evidence)
    statistics = {"alpha": 0.05, "replicates": 500, "seed": 1, "correction": "holm"}
    return RunRecord("ci", len(found), sort_cases(judged), statistics=statistics)


def perturbed(table: Predictions, rng: np.random.Generator) -> Predictions:
    """Return a table with 2 % of its samples exchanged among themselves, column by column."""
    columns = dict(table.columns)
    rows = rng.choice(len(table), max(2, len(table) // 50), replace=False)
    for name, values in columns.items():
        if name not in ("id", "label", "group", "cluster", "stratum"):
            moved = values.copy()
            moved[rows] = values[rng.permutation(rows)]
            columns[name] = moved
    return Predictions(columns, table.scalars)


if __name__ == "__main__":
    sys.exit(main())
