"""Reports: one run record in several forms. Reads records only; never imports torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from clipq.files import write_atomically
from clipq.records import RunRecord
from clipq.registry import Registry

__all__ = ["report_formats", "write_reports"]

report_formats: Registry[Callable[[RunRecord], str]] = Registry("report", group="clipq.reports")
"""File name to renderer: a function of the record that returns the file's text."""


def _json(record: RunRecord) -> str:
    return json.dumps(record.to_plain(), indent=1, allow_nan=False) + "\n"


report_formats.add("report.json", _json)
report_formats.register_lazy("report.html", "clipq.report.html:html")
report_formats.register_lazy("report.md", "clipq.report.markdown:markdown")
report_formats.register_lazy("junit.xml", "clipq.report.junit:junit")


def write_reports(record: RunRecord, folder: Path) -> list[str]:
    """Write every registered format into `folder`, each atomically; return the paths.

    Raises:
        CacheError: the folder is read-only or full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [Path(path).name for path in write_reports(RunRecord("ci", 0, ()), Path(folder))]
    ['junit.xml', 'report.html', 'report.json', 'report.md']
    """
    written = []
    for name in report_formats.names():
        write_atomically(folder / name, report_formats.get(name)(record).encode())
        written.append(str(folder / name))
    return written
