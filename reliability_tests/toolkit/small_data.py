"""Parts of the embedded data, for tests that need no more of it."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path


def part(source: Path, target: Path, images: Mapping[str, int]) -> None:
    """Copy the first images of each split of a WebDataset folder, as one shard."""
    target.mkdir(parents=True)
    for path in source.glob("*.txt"):
        shutil.copy(path, target)
    for split, count in images.items():
        (target / split).mkdir()
        (target / split / "nshards.txt").write_text("1")
        with (
            tarfile.open(source / split / "0.tar") as whole,
            tarfile.open(target / split / "0.tar", "w") as part,
        ):
            keys: set[str] = set()
            for member in whole:
                keys.add(member.name.partition(".")[0])
                if len(keys) > count:
                    break
                part.addfile(member, whole.extractfile(member))
