"""Writing the site: files named by their content, the page that names them last.

A reader of a site that is being rewritten sees the old pages or the new ones: data files get new
names when they change, and old ones go when nothing refers to them any more.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipq.errors import SettingsError
from clipq.files import write_atomically
from clipq.history.model import TrendTable
from clipq.history.site.commits import CommitLink
from clipq.history.site.site_payload import matrix_of, overview, pair_columns
from clipq.history.steps import find_steps
from clipq.web import page_script, page_styles, page_template

__all__ = ["SiteFacts", "write_site"]

_MARK = '<meta name="generator" content="clipq site">'
_OURS = re.compile(r"(?:data/(?:overview|pair-\d+)|assets/site)\.[0-9a-f]{12}\.(?:js|css)")


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What was written: files and their bytes in all; runs, cases and steps that they show."""

    index: Path
    files: int
    bytes: int
    runs: int
    cases: int
    steps: int


def write_site(table: TrendTable, folder: Path, *, link: CommitLink | None = None) -> SiteFacts:
    """Write the site of `table` into `folder`; equal tables give equal files.

    Args:
        table: at least one run.
        folder: new, empty, or a site that an earlier call wrote.
        link: where commits can be looked at; None shows their hashes alone.

    Raises:
        SettingsError: the folder holds something else, or the table has no run.
        CacheError: the folder is read-only or full.
    """
    _check(table, folder)
    steps, levels = find_steps(table)
    matrix = matrix_of(table)
    files: dict[str, bytes] = {}
    names = []
    for pair in range(len(matrix.pairs)):
        rows = np.flatnonzero(matrix.pair_of == pair)
        columns = pair_columns(table, rows, levels=levels)
        names.append(_add(files, f"data/pair-{pair}.js", _script("pair", pair, columns)))
    shown = overview(table, steps, matrix=matrix, link=link)
    data = _add(files, "data/overview.js", _script("overview", {**shown, "files": names}))
    names_of_assets = {
        "style": _add(files, "assets/site.css", page_styles("site/site.css")),
        "script": _add(files, "assets/site.js", page_script("site/main.js")),
    }
    page = page_template("site/index.html")
    text = page.substitute(names_of_assets, data=data, summary=_summary(table))
    files["index.html"] = text.encode()
    for name, content in files.items():  # index.html is the last of them
        if not (folder / name).is_file() or name == "index.html":
            write_atomically(folder / name, content)
    _remove_stale(folder, set(files))
    return SiteFacts(
        index=folder / "index.html",
        files=len(files),
        bytes=sum(len(content) for content in files.values()),
        runs=len(table.runs),
        cases=len(table.cases),
        steps=len(steps),
    )


def _check(table: TrendTable, folder: Path) -> None:
    if not table.runs or not table.cases:
        raise SettingsError(
            "there is no recorded run to show", hint="`clipq gate --record` records one"
        )
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file", hint="name a folder for the site")
    if not folder.exists() or not any(folder.iterdir()):
        return
    index = folder / "index.html"
    if not index.is_file() or _MARK not in index.read_text(encoding="utf-8", errors="replace"):
        raise SettingsError(
            f"{folder} holds files that are not of a trend site",
            hint="name a new or empty folder, or one that `clipq site` wrote",
        )


def _script(kind: str, *values: Any) -> str:
    """Return a script that hands `values` over: pages opened as files may load nothing else.

    All is ASCII, and nothing in it can be taken for markup.
    """
    texts = (json.dumps(value, allow_nan=False, separators=(",", ":")) for value in values)
    code = f"clipqSite.{kind}({','.join(texts)});\n"
    return code.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _add(files: dict[str, bytes], name: str, content: str) -> str:
    """Add a file under a name that holds its content's hash; return that name."""
    encoded = content.encode()
    stem, _, ending = name.rpartition(".")
    full = f"{stem}.{hashlib.sha256(encoded).hexdigest()[:12]}.{ending}"
    files[full] = encoded
    return full


def _summary(table: TrendTable) -> str:
    """Return the outcome in a sentence, for readers without scripts."""
    run = table.runs[-1]
    counted = ", ".join(f"{count:,} {verdict}" for verdict, count in run.counts.items())
    return html.escape(
        f"Run {run.number} of {run.started[:10]} {'passed' if run.passed else 'failed'}"
        f"{': ' if counted else ''}{counted}. {len(table.runs):,} runs, {len(table.cases):,} cases."
    )


def _remove_stale(folder: Path, written: set[str]) -> None:
    for path in folder.glob("*/*"):
        name = path.relative_to(folder).as_posix()
        if _OURS.fullmatch(name) and name not in written:
            path.unlink(missing_ok=True)
