"""Download of WebDataset shards, only when asked for (`clipq probe fetch`), shard by shard.

A shard that arrived whole is not fetched again, so an interrupted download goes on with the next
one. Each file is written under a temporary name and renamed when its length is right; where the
server offers a `SHA256SUMS`, opening the probe verifies every byte.
"""

from __future__ import annotations

import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

from clipq.data.reading import CLASSES, TEMPLATES
from clipq.errors import ProbeError
from clipq.files import replace_atomically

__all__ = ["download_folder", "fetch_shards", "is_url"]

_OPTIONAL = (CLASSES, TEMPLATES, "SHA256SUMS", "attributes.csv", "classmap.csv")
_TIMEOUT_SECONDS = 60


def is_url(location: str) -> bool:
    """Return whether a location is on another machine."""
    return urlsplit(location).scheme in ("http", "https")


def download_folder(url: str, base_dir: Path) -> Path:
    """Return where the files of a URL are kept: one folder per URL."""
    parts = urlsplit(url)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{parts.netloc}{parts.path}").strip("-")[-80:]
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
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
        ProbeError: a file is missing, cut off or cannot be reached.
    """
    root = download_folder(url, base_dir)
    base = url.rstrip("/")
    for name in _OPTIONAL:
        _fetch(f"{base}/{name}", root / name, required=False)
    listing = root / split / "nshards.txt"
    _fetch(f"{base}/{quote(split)}/nshards.txt", listing, required=True)
    text = listing.read_text(encoding="utf-8").strip()
    if not re.fullmatch("[1-9][0-9]{0,6}", text):
        raise ProbeError(
            f"{base}/{split}/nshards.txt says {text!r}", hint="it holds the number of shards"
        )
    total = int(text)
    for index in range(total):
        path = root / split / f"{index}.tar"
        if not path.is_file():
            _fetch(f"{base}/{quote(split)}/{index}.tar", path, required=True)
        if progress is not None:
            progress(index + 1, total)
    return root


def _fetch(url: str, path: Path, *, required: bool) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
            expected = answer.headers.get("Content-Length")

            def write(temporary: Path) -> None:
                with temporary.open("wb") as stream:
                    for block in _blocks(answer, url):
                        stream.write(block)
                if expected is not None and temporary.stat().st_size != int(expected):
                    raise ProbeError(
                        f"{url} was cut off: {temporary.stat().st_size} of {expected} bytes",
                        hint="run `clipq probe fetch` again: shards that are there are kept",
                    )

            replace_atomically(path, write)
    except urllib.error.HTTPError as error:
        if required or error.code != 404:
            raise _unreachable(url, error) from error
    except (OSError, ValueError) as error:
        raise _unreachable(url, error) from error


def _blocks(answer: IO[bytes], url: str) -> Iterator[bytes]:
    try:
        while block := answer.read(1 << 20):
            yield block
    except (HTTPException, OSError) as error:
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> ProbeError:
    return ProbeError(
        f"{url} cannot be fetched: {error}",
        hint="check the address; on a machine without network, fetch it elsewhere (`clipq probe "
        "fetch` there), copy .clipq/downloads here, or name a local folder in `source`",
    )
