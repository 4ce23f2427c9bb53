"""Render the report gallery's samples when the site is built, by the code that renders reports.

The run record is a real one of the embedded matrix, reduced by docs/examples/reduce_record.py. The
trend site's runs are drawn around it: a young repository has no history of its own to show.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from simulated_history import simulated_runs

from clipq.history.site.write import write_site
from clipq.history.store import open_store
from clipq.records import RunRecord
from clipq.report.html import html
from clipq.report.junit import junit
from clipq.report.markdown import markdown

_SAMPLE = "examples/report.json.gz"
_DAYS = 60


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the samples below samples/."""
    record = sample(Path(config.docs_dir) / _SAMPLE)
    pages = {
        "report.html": html(record),
        "report.md.txt": markdown(record),
        "junit.xml": junit(record),
        "report.json": json.dumps(record.to_plain(), indent=1, allow_nan=False) + "\n",
    }
    for name, content in pages.items():
        files.append(File.generated(config, f"samples/{name}", content=content))
    for name, data in trend_site(record).items():
        files.append(File.generated(config, f"samples/trends/{name}", content=data))
    return files


def trend_site(record: RunRecord) -> dict[str, bytes]:
    """Return the files of a trend site over a simulated history."""
    with TemporaryDirectory() as folder:
        site = Path(folder, "site")
        with open_store("sqlite:///runs.db", root=Path(folder)) as store:
            for run in simulated_runs(record, days=_DAYS, seed=1):
                store.record(run)
            write_site(store.trend_table(), site)
        return {
            path.relative_to(site).as_posix(): path.read_bytes()
            for path in sorted(site.rglob("*"))
            if path.is_file()
        }


def sample(path: Path) -> RunRecord:
    """Return the committed record; its id proves that it was not altered."""
    return RunRecord.from_plain(json.loads(gzip.decompress(path.read_bytes())))
