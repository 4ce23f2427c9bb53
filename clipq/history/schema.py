"""The tables of a store, as queries see them; `migrations` is what creates them.

A case's results lie side by side (the key is case, then run), so that a trend is one range scan.
There is no foreign key from results to runs: without an index on `run`, which would double the
table, removing a run would scan all results once per run. One transaction writes and removes both.
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from clipq.verdicts import Verdict

__all__ = [
    "CODES",
    "AnyText",
    "blobs",
    "cases",
    "code_of",
    "metadata",
    "results",
    "run_predictions",
    "runs",
    "verdict_of",
]

# What `results.verdict` holds. Stored numbers never change their meaning: new verdicts go last.
CODES = (
    "pass",
    "improved",
    "inconclusive",
    "waived",
    "fail",
    "non-finite",
    "missing",
    "vanished",
    "incomparable",
    "drifted",
    "error",
    "suspect",
)

_ESCAPED = re.compile(r"[\\\x00\ud800-\udfff]")
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")


def code_of(verdict: Verdict) -> int:
    """Return the number that a verdict is stored as."""
    return CODES.index(verdict.value)


def verdict_of(code: int) -> Verdict:
    """Return the verdict that was stored as `code`."""
    return Verdict(CODES[code])


class AnyText(sa.types.TypeDecorator[str]):
    """Text that every database takes: NUL, lone surrogates and backslashes as ``\\uXXXX``."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        if value is None:
            return None
        return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", value)

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        if not isinstance(value, str) or "\\" not in value:
            return value  # what is no text is refused by whoever reads the row
        return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), value)


metadata = sa.MetaData()

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("started", AnyText, nullable=False),
    sa.Column("recorded", AnyText, nullable=False),
    sa.Column("commit_sha", AnyText, nullable=False),
    sa.Column("commit_date", AnyText, nullable=False),
    sa.Column("commit_subject", AnyText, nullable=False),
    sa.Column("commit_branch", AnyText, nullable=False),
    sa.Column("commit_dirty", sa.Boolean, nullable=False),
    sa.Column("policy", AnyText, nullable=False),
    sa.Column("blocks", sa.Text, nullable=False),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("cases", sa.Integer, nullable=False),
    sa.Column("planned", sa.Integer, nullable=False),
    sa.Column("counts", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("remarks", sa.Text, nullable=False),
    # Last: SQLite then lists runs without reading their records.
    sa.Column("record", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,  # the number of a removed run is never given again
)

cases = sa.Table(
    "cases",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    # Of the name: a long quantizer text does not fit PostgreSQL's index pages.
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("name", AnyText, nullable=False),
    sa.Column("model", AnyText, nullable=False),
    sa.Column("quantizer", AnyText, nullable=False),
    sa.Column("probe", AnyText, nullable=False),
    sa.Column("metric", AnyText, nullable=False),
    sa.Column("unit", AnyText, nullable=False),
    sa.Column("direction", AnyText, nullable=False),
)

results = sa.Table(
    "results",
    metadata,
    sa.Column("case_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("verdict", sa.SmallInteger, nullable=False),
    sa.Column("observed", sa.Double),
    sa.Column("baseline", sa.Double),
    sa.Column("loss", sa.Double),
    sa.Column("margin", sa.Double),
    sa.Column("low", sa.Double),
    sa.Column("high", sa.Double),
    sa.Column("standard_error", sa.Double),
    sqlite_with_rowid=False,
)

blobs = sa.Table(
    "blobs",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

run_predictions = sa.Table(
    "run_predictions",
    metadata,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("cell", AnyText, nullable=False),
    sa.Column("sha256", sa.String(64), sa.ForeignKey("blobs.sha256"), nullable=False, index=True),
)
