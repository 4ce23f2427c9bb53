"""Per-sample predictions of a run, from the cache that its gate filled."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from clipq.evaluation.tables import TableError, parse_table
from clipq.records import RunRecord

__all__ = ["prediction_tables"]


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=2)


def prediction_tables(
    record: RunRecord, cache: Path, *, warn: Callable[[str], None] = _warn
) -> Mapping[str, bytes]:
    """Return the bytes of a run's cached prediction tables, by "model/quantizer/probe".

    Nothing is read before it is asked for: `Store.record` asks only for what the store lacks. A
    table that is gone, damaged or no longer the run's is told to `warn` and left out.

    Args:
        record: whose evidence names each table's cache key and digest.
        cache: the folder that `clipq.toml` names.
        warn: takes one sentence for each table that is left out.
    """
    files: dict[str, tuple[Path, str, str]] = {}
    for cell, entry in record.evidence().get("predictions", {}).items():
        key, digest = str(entry.get("key", "")), str(entry.get("sha256", ""))
        path = cache / "predictions" / key[:2] / f"{key}.safetensors"
        if key and path.is_file():
            files[cell] = (path, f"predictions/{key}", digest)
        else:
            warn(f"predictions of {cell} are not kept: no longer in the cache")
    return _Tables(files, warn)


class _Tables(Mapping[str, bytes]):
    def __init__(
        self, files: Mapping[str, tuple[Path, str, str]], warn: Callable[[str], None]
    ) -> None:
        self._files = files
        self._warn = warn

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, cell: str) -> bytes:
        path, key, expected = self._files[cell]
        try:
            content = path.read_bytes()
            digest = parse_table(content, name=str(path), key=key)[2]
        except (TableError, OSError) as error:
            self._warn(f"predictions of {cell} are not kept: {error}")
            raise KeyError(cell) from error
        if digest != expected:
            self._warn(f"predictions of {cell} are not kept: the cache has others of that name")
            raise KeyError(cell)
        return content
