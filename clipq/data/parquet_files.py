"""Which Parquet files of a folder are a split: by the whole name, and all of them."""

from __future__ import annotations

import re
from pathlib import Path

from clipq.errors import ProbeError

__all__ = ["parquet_files"]

# As `datasets`, the hub and pandas number them: -0, -00000-of-00004, and a hash of earlier years.
_NUMBERED = r"(?:[-_.](?P<part>[0-9]+)(?:[-_]of[-_](?P<parts>[0-9]+)(?:-[0-9a-f]{16})?)?)?"


def parquet_files(folder: Path, split: str, name: str) -> list[Path]:
    """Return a split's Parquet files, sorted; none where no file is called so.

    These are `SPLIT.parquet`, `SPLIT-00000-of-00004.parquet` and the like, or whatever lies in the
    folder `SPLIT/`; never `SPLIT_hard.parquet`.

    Args:
        folder: that holds them.
        split: its whole name.
        name: of the probe, for messages.

    Raises:
        ProbeError: parts that the names announce are missing, or the files are two versions.
    """
    pattern = re.compile(f"{re.escape(split)}{_NUMBERED}\\.parquet")
    named = {path: pattern.fullmatch(path.name) for path in sorted(folder.glob("*.parquet"))}
    found = {path: match for path, match in named.items() if match}
    inside = sorted((folder / split).glob("*.parquet")) if split else []
    versions = {match["parts"] for match in found.values()}
    if len(versions) + bool(inside) > 1:
        shown = ", ".join(path.relative_to(folder).as_posix() for path in [*found, *inside][:6])
        raise ProbeError(
            f"probe {name!r}: split {split!r} is in {folder} more than once: {shown}",
            hint="keep the files of one version: read together, they would count samples twice",
        )
    if parts := next(iter(versions), None):
        present = {int(match["part"]) for match in found.values()}
        missing = sorted(set(range(int(parts))) - present)
        if missing or len(present) != len(found):
            raise ProbeError(
                f"probe {name!r}: {folder} holds {len(found)} files of split {split!r}, which has "
                f"{int(parts)} parts; missing: {', '.join(map(str, missing[:6])) or 'none'}",
                hint="bring all parts here, each once",
            )
    return [*found, *inside]
