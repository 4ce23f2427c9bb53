"""Tar shards: verified against checksums, refused when truncated, read sample by sample.

`webdataset` groups tar members into samples. It is handed members that are already read: its own
opener would run a path such as ``pipe:...`` as a shell command, expand braces in folder names and
draw from the global random generator, and its reader would walk all headers again.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from clipq.data.image_names import is_hidden
from clipq.data.image_signatures import HEAD_BYTES
from clipq.data.tar_headers import PlainFile, plain_files
from clipq.errors import ProbeError
from clipq.provenance import sha256_file
from clipq.shapes import Document

__all__ = ["CHECKSUMS", "Checksums", "Shard", "find_checksums", "open_shard"]

CHECKSUMS = "SHA256SUMS"
"""What a folder's checksums lie in."""
_BLOCK = 512
# As webdataset has them: members that it keeps to itself, and names that it can group.
_METADATA = re.compile(r"__[^/]*__($|/)")
_GROUPED = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
_MEMBER_BYTES = 256 << 20  # of one image, or what belongs to it: it is read at once


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file whose structure was checked, and the sha256 (hex) of its bytes."""

    path: Path
    sha256: str
    members: tuple[PlainFile, ...] = field(default=(), repr=False)
    """The files of samples, in order."""
    unread: Mapping[str, bytes] = field(default_factory=dict)
    """Members that belong to no sample, by their names, and the first bytes of each."""

    def __str__(self) -> str:
        return f"{self.path} (sha256 {self.sha256})"

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield samples in order: ``__key__`` and the bytes of each extension.

        Raises:
            ProbeError: the archive cannot be read, or one sample has two files of one kind.
        """
        from webdataset.tariterators import group_by_keys

        with self.path.open("rb") as stream:
            samples = iter(group_by_keys(self._files(stream)))
            while True:
                try:
                    sample = next(samples)
                except StopIteration:
                    return
                except Exception as error:  # webdataset passes on whatever its reader raised
                    raise ProbeError(
                        f"shard {self} is damaged: {error}", hint="restore the shard"
                    ) from error
                yield sample

    def _files(self, stream: BinaryIO) -> Iterator[dict[str, Any]]:
        """Yield the members as webdataset's own reader of archives does."""
        for name, start, size in self.members:
            stream.seek(start)
            content = stream.read(size)
            if len(content) < size:
                raise EOFError(f"{name!r} ends after {len(content):,} of {size:,} bytes")
            yield {"fname": name, "data": content, "__url__": str(self.path)}


@dataclass(frozen=True, slots=True)
class Checksums:
    """What a `SHA256SUMS` file promises of the files below a probe's folder."""

    path: Path
    expected: Mapping[str, str]

    def verify(self, file: Path, actual: str) -> None:
        """Compare a file's sha256 with the promised one.

        Raises:
            ProbeError: they differ, or nothing is promised of this file.
        """
        wanted = self.expected.get(file.relative_to(self.path.parent).as_posix())
        if wanted is None:
            raise ProbeError(
                f"{file} (sha256 {actual}) is not listed in {self.path}",
                hint="add its line with sha256sum, or remove the file: unlisted means unreviewed",
            )
        if wanted != actual:
            raise ProbeError(
                f"{file} was tampered with or truncated: sha256 is {actual}, {self.path} expects "
                f"{wanted}",
                hint="restore the file (or, if the change is wanted, its line in SHA256SUMS)",
            )


def find_checksums(root: Path) -> Checksums | None:
    """Return the checksums in `root` or its parent; None where no such file speaks of `root`.

    Raises:
        ProbeError: a line is not as `sha256sum` writes it.
    """
    for folder in (root, root.parent):
        path = folder / CHECKSUMS
        if not path.is_file():
            continue
        expected = dict(_checksum(path, line) for line in _lines(path))
        below = "" if folder == root else f"{root.name}/"
        if any(name.startswith(below) for name in expected):
            return Checksums(path, expected)
    return None


def open_shard(path: Path, checksums: Checksums | None) -> Shard:
    """Verify a shard's bytes and its structure as a tar archive.

    Raises:
        ProbeError: it is missing, does not hash to what is promised, or is truncated or damaged.
    """
    try:
        shard = Shard(path, sha256_file(path))
        if checksums is not None:
            checksums.verify(path, shard.sha256)
        members, unread = _checked_members(shard)
    except OSError as error:
        raise ProbeError(
            f"shard {path} is missing or cannot be read: {error.strerror or error}",
            hint="restore the shard, or correct nshards.txt",
        ) from error
    return replace(shard, members=members, unread=unread)


def _of_sample(member: str) -> bool:
    """Whether a member's name is that of a sample's file, as webdataset groups them."""
    if _METADATA.match(member) or any(map(is_hidden, member.split("/"))):
        return False
    return _GROUPED.match(member) is not None


def _checked_members(shard: Shard) -> tuple[tuple[PlainFile, ...], dict[str, bytes]]:
    """Walk the headers: tarfile takes a damaged one in the middle for the end of the archive.

    Returns the files of samples, and the first bytes of those that belong to none.
    """
    files = plain_files(shard.path)
    entries = files if files is not None else _entries(shard)
    for name, _, size in entries:
        if size > _MEMBER_BYTES:
            raise _damaged(shard, f"{name!r} has {size:,} bytes")
        if name.startswith("/") or ".." in name.split("/"):
            raise _damaged(shard, f"{name!r} would lie outside of the archive")
    end = max((start + -(-size // _BLOCK) * _BLOCK for _, start, size in entries), default=0)
    with shard.path.open("rb") as stream:
        stream.seek(end)
        if stream.read(2 * _BLOCK) != bytes(2 * _BLOCK):
            raise _damaged(shard, f"no end-of-archive marker after {len(entries)} members")
        found, unread = [], {}
        for entry in entries:
            if isinstance(entry, _Folder):
                continue
            if _of_sample(entry.name):
                found.append(entry)
            else:
                stream.seek(entry.start)
                unread[entry.name] = stream.read(min(entry.size, HEAD_BYTES))
    return tuple(found), unread


class _Folder(PlainFile):
    """A folder in an archive, which holds nothing itself."""


def _entries(shard: Shard) -> list[PlainFile]:
    """Return files and folders of an archive that not only plain files are in, by `tarfile`."""
    try:
        with tarfile.open(shard.path, "r:") as archive:
            members = archive.getmembers()
    except tarfile.TarError as error:
        raise _damaged(shard, str(error)) from error
    for member in members:
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise _damaged(shard, f"{member.name!r} is not a plain file")
    return [
        (PlainFile if member.isreg() else _Folder)(member.name, member.offset_data, member.size)
        for member in members
    ]


def _damaged(shard: Shard, why: str) -> ProbeError:
    return ProbeError(
        f"shard {shard} is truncated or damaged: {why}",
        hint="restore the shard from where it came (a plain, uncompressed tar)",
    )


def _checksum(path: Path, line: str) -> tuple[str, str]:
    value, _, name = line.partition(" ")
    file = name[1:] if name[:1] in (" ", "*") else ""
    if len(value) != 64 or not file:
        raise ProbeError(
            f"{path} has the line {line!r}", hint="write it as sha256sum does: <sha256>  <path>"
        )
    return file.removeprefix("./"), value.lower()


def _lines(path: Path) -> list[str]:
    text = Document(path, "UTF-8", ProbeError, "write it as sha256sum does").text()
    return [line for line in text.splitlines() if line.strip()]
