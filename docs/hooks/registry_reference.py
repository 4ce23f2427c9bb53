"""Write reference/metrics.md and reference/quantizers.md from the registries."""

from __future__ import annotations

import ast
import math
from importlib.util import find_spec
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from clipq.metrics import Metric, metrics
from clipq.quant import quantizers

_METRICS = """\
# Metrics

Every metric that clipq declares, written from its registry. `clipq list metrics` prints the same,
with those of your plugins. What is *better*: lower or higher values, or values nearer to zero.
*Judged by* is the statistic that is resampled; [statistics](../statistics.md) says how.
"""
_QUANTIZERS = """\
# Quantizers

Every method that clipq brings, written from its registry. [Quantizers](../quantizers.md) has the
formats and options; [your own](../tutorial/quantizer.md) is a function in a file.

| method | what it does |
|---|---|
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the two pages."""
    declared = [metrics.get(name) for name in metrics.names()]
    files.append(File.generated(config, "reference/metrics.md", content=metric_page(declared)))
    files.append(File.generated(config, "reference/quantizers.md", content=quantizer_page()))
    return files


def metric_page(declared: list[Metric]) -> str:
    """Return the page of metrics: a table, grouped by the roles of probes that they apply to."""
    roles = sorted({role for metric in declared for role in metric.roles})
    parts = [_METRICS]
    for role in roles:
        rows = [_row(metric) for metric in declared if role in metric.roles]
        head = "| metric | what | unit | range | better | judged by | version | note |\n"
        parts.append(f"## Role {role}\n\n{head}|---|---|---|---|---|---|---|---|\n{''.join(rows)}")
    return "\n".join(parts)


def quantizer_page() -> str:
    """Return the page of quantizer methods."""
    rows = [f"| `{name}` | {_cell(_described(name))} |\n" for name in quantizers.names()]
    return _QUANTIZERS + "".join(rows)


def _described(name: str) -> str:
    """Return the first paragraph of a method's module, which is parsed, not imported: no torch."""
    found = find_spec(f"clipq.quant.{name}")
    if found is None or found.origin is None:
        return "of an installed package"
    text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _row(metric: Metric) -> str:
    low, high = (_bound(value) for value in metric.range)
    statistic = metric.statistic.kind if metric.statistic else "its function, resampled"
    cells = (
        f"`{metric.name}`", metric.title, metric.unit, f"{low} to {high}", metric.direction,
        statistic, str(metric.version), metric.note,
    )  # fmt: skip
    return f"| {' | '.join(_cell(cell) for cell in cells)} |\n"


def _bound(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else "∞" if value > 0 else "-∞"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
