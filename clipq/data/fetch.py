"""Download of WebDataset shards, only when asked for (`clipq probe fetch`), shard by shard.

A shard that arrived whole is not fetched again, so an interrupted download goes on with the next
one. Each file is written under a temporary name and renamed when its length is right; where the
server offers a `SHA256SUMS`, opening the probe verifies every byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from clipq.data.download import Address, download
from clipq.data.reading import CLASSES, TEMPLATES
from clipq.data.shards import CHECKSUMS
from clipq.errors import ProbeError
from clipq.redaction import is_secret_name
from clipq.shapes import Document

__all__ = ["SHARD_BYTES", "TABLE_BYTES", "TOTAL_BYTES", "download_folder", "fetch_shards", "is_url"]

TABLE_BYTES = 64 << 20
"""A text file or table of a probe has at most so many bytes."""
SHARD_BYTES = 4 << 30
"""A shard has at most so many bytes."""
TOTAL_BYTES = 256 << 30
"""What one `clipq probe fetch` brings of a split has at most so many bytes."""
_OPTIONAL = (CLASSES, TEMPLATES, CHECKSUMS, "attributes.csv", "classmap.csv")
_COUNT_BYTES = 1 << 10


def is_url(location: str) -> bool:
    """Return whether a location is on another machine."""
    return location.lower().startswith(("http://", "https://"))


def download_folder(url: str, base_dir: Path) -> Path:
    """Return where the files of a URL are kept: one folder per URL, whoever asks for it.

    >>> there = [download_folder(f"https://{who}example.org/a", Path()) for who in ("", "ada:x@")]
    >>> there[0] == there[1]
    True
    """
    parts = Address.parse(url).parts
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{parts.netloc}{parts.path}").strip("-")[-80:]
    # A key that expires does not make the data others; whatever else a query says may.
    query = "&".join(
        part for part in parts.query.split("&") if not is_secret_name(part.partition("=")[0])
    )
    digest = hashlib.sha256(str(Address(parts._replace(query=query))).encode()).hexdigest()[:8]
    return base_dir / ".clipq" / "downloads" / f"{name}-{digest}"


def fetch_shards(
    url: str,
    split: str,
    base_dir: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Download a split in CLIP_benchmark's layout; return its folder.

    Args:
        url: of the folder that holds ``classnames.txt`` and ``<split>/``.
        split: which split.
        base_dir: below which downloads are kept.
        progress: called with (shards there, shards in all).

    Raises:
        ProbeError: a file is missing, cut off, too large or cannot be reached.
    """
    root = download_folder(url, base_dir)
    base = Address.parse(url)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._ -]*", split):
        raise ProbeError(
            f"{base} has no split {split!r}", hint="`split` names a folder below it: test, train"
        )
    total = 0
    for name in _OPTIONAL:
        total += download(base.below(name), root / name, most=TABLE_BYTES, required=False)
    listing = root / split / "nshards.txt"
    announced = base.below(split, "nshards.txt")
    download(announced, listing, most=_COUNT_BYTES, required=True)
    document = Document(str(announced), "UTF-8", ProbeError, "it holds the number of shards")
    text = document.text(listing.read_bytes()).strip()
    if not re.fullmatch("[1-9][0-9]{0,6}", text):
        raise ProbeError(f"{announced} says {text[:80]!r}", hint="it holds the number of shards")
    shards = int(text)
    for index in range(shards):
        path = root / split / f"{index}.tar"
        if not path.is_file():
            most = max(0, min(SHARD_BYTES, TOTAL_BYTES - total))
            download(base.below(split, path.name), path, most=most, required=True)
        total += path.stat().st_size
        if progress is not None:
            progress(index + 1, shards)
    return root
