"""Files that lie where a probe's samples lie and are not read: counted, named, limited.

A file is no sample where its ending is not one of `clipq.data.image_names.IMAGES`. Most such files
are meant to be there: texts, tables, arrays, models, archives. Those that end as pictures do, or
start as the files of image formats do, may be pictures that an evaluation would lack without
anybody knowing. Both kinds are counted; of the second a probe may have few. What is hidden is of
the first, and what shares its name with an image, unless its ending is a picture's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from clipq.data.image_names import IMAGES, ending, is_hidden
from clipq.data.image_signatures import starts_as_image
from clipq.errors import ProbeError

if TYPE_CHECKING:
    from clipq.data.probe import Probe

__all__ = [
    "PassedOver",
    "check_passed_over",
    "facts_of_files",
    "remarks_on_files",
]

_PICTURES = """
apng arw avif bpg cr2 cr3 dcm dds dib dicom dng dpx emf eps exr fits gif hdr heic heif icns ico j2k
jfif jp2 jpe jpf jpx jxl jxr nef orf pam pbm pcx pef pfm pic pnm psd qoi raf raw rw2 sgi srw svg
svgz tga wbmp wmf xbm xcf xpm
"""
_PICTURE_ENDINGS = frozenset((*_PICTURES.split(), *IMAGES))
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PassedOver:
    """What a source did not read, and of which files it took what it read.

    Args:
        read: files that are samples.
        pictures: how many others may be pictures, by ending.
        beside: how many others are not, by ending.
        first: names of the first of `pictures`, and of the first of `beside` where there are none.
        taken: files that the samples lie in, where these are not files themselves.

    >>> print(PassedOver.of(["cat/1.gif", "cat/notes.txt"], ["cat/1.png", "cat/3.png"]))
    1 of 3 files may be pictures and are not read (1 .gif): cat/1.gif
    """

    read: int = 0
    pictures: tuple[tuple[str, int], ...] = ()
    beside: tuple[tuple[str, int], ...] = ()
    first: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        names: Iterable[str],
        read: Collection[str],
        *,
        head: Callable[[str], bytes] = lambda name: b"",
        taken: Iterable[str] = (),
    ) -> PassedOver:
        """Return the account of files that were passed over where others were read.

        Args:
            names: of the files passed over, relative to where the samples lie; a folder that was
                not looked into ends in a slash.
            read: names of the files that are samples.
            head: returns a file's first bytes by its name, and may raise OSError; asked where the
                name does not say what a file is.
            taken: files that the samples lie in.

        >>> PassedOver.of(["LICENSE", "a/2"], [], head={"LICENSE": b"", "a/2": b"GIF89a"}.get)
        PassedOver(read=0, pictures=(('without an ending', 1),), ...
        """
        names = sorted(names)
        stems = {name.rpartition(".")[0] for name in read} if names else set()
        pictures = [name for name in names if _may_be_picture(name, stems, head)]
        known = set(pictures)
        beside = [name for name in names if name not in known]
        first = tuple((pictures or beside)[:_SHOWN])
        return cls(len(read), _counted(pictures), _counted(beside), first, tuple(taken))

    def with_beside(self, kinds: Iterable[str]) -> PassedOver:
        """Return the account with members of samples that are not read, by their endings.

        >>> PassedOver(read=2).with_beside(["npy", "npy"]).beside
        (('.npy', 2),)
        """
        more = Counter(dict(self.beside)) + Counter(f".{kind}" for kind in kinds)
        return PassedOver(self.read, self.pictures, _ordered(more), self.first, self.taken)

    @property
    def share(self) -> float:
        """The share of files that may be pictures and are not read, from 0 to 1.

        >>> PassedOver(read=3, pictures=((".gif", 1),)).share
        0.25
        """
        unread = sum(count for _, count in self.pictures)
        return unread / (self.read + unread) if unread else 0.0

    def __str__(self) -> str:
        pictures = sum(count for _, count in self.pictures)
        if pictures:
            named, more = ", ".join(map(_shown, self.first)), pictures - len(self.first)
            return (
                f"{pictures:,} of {self.read + pictures:,} files may be pictures and are not read "
                f"({_listed(self.pictures)}): {named}" + (f" and {more:,} more" if more else "")
            )
        if self.beside:
            named = f", first {_shown(self.first[0])}" if self.first else ""
            return _beside(self.beside) + named
        return "every file is read"


def check_passed_over(probe: Probe, *, most: float) -> None:
    """Refuse a probe of whose files too many may be pictures and are not read.

    Args:
        probe: that was opened.
        most: largest share, from 0 to 1.

    Raises:
        ProbeError: the share is larger.

    >>> from pathlib import Path
    >>> from clipq.data import open_probe
    >>> check_passed_over(open_probe(name="digits", role="ood", split="test", base_dir=Path(),
    ...                              source="webdataset:fixtures/data/digits"), most=0.0)
    """
    share = probe.passed_over.share
    if share > most:
        enough = math.ceil(share * 1000) / 1000
        raise ProbeError(
            f"probe {probe.name!r}: {probe.passed_over}",
            hint=f"images end in {', '.join(IMAGES)}: convert the files, give images such an "
            "ending, take them away, or allow for them: "
            f"passed_over = {enough:g} in the probe's table (now {most:g})",
        )


def remarks_on_files(probe: Probe) -> list[str]:
    """Return what is odd about the files that a probe was read from, at most a sentence.

    >>> from pathlib import Path
    >>> from clipq.data import open_probe
    >>> remarks_on_files(open_probe(name="digits", role="ood", split="test", base_dir=Path(),
    ...                             source="webdataset:fixtures/data/digits"))
    []
    """
    return [str(probe.passed_over)] if probe.passed_over.pictures else []


def facts_of_files(probe: Probe) -> list[tuple[str, str]]:
    """Return which files a probe was read from, and what lies beside them: a name and a text each.

    >>> from pathlib import Path
    >>> from clipq.data import open_probe
    >>> facts_of_files(open_probe(name="digits", role="ood", split="test", base_dir=Path(),
    ...                           source="webdataset:fixtures/data/digits"))
    []
    """
    account, facts = probe.passed_over, []
    if account.taken:
        more = len(account.taken) - _SHOWN
        named = ", ".join(map(_shown, account.taken[:_SHOWN]))
        facts.append(("read from", named + (f" and {more:,} more" if more > 0 else "")))
    if account.beside:
        first = "" if account.pictures or not account.first else f", first {account.first[0]}"
        facts.append(("not read", _beside(account.beside) + _shown(first)))
    return facts


def _may_be_picture(name: str, stems: Collection[str], head: Callable[[str], bytes]) -> bool:
    path = PurePosixPath(name)
    if name.endswith("/") or any(map(is_hidden, path.parts)):
        return False
    if ending(path.name) in _PICTURE_ENDINGS:
        return True
    if any(stem in stems for stem in _stems(name)):
        return False
    try:
        return starts_as_image(head(name))
    except OSError:
        return True  # nobody knows


def _stems(name: str) -> Iterator[str]:
    """Yield a path without its last ending, its last two endings, and so on."""
    folder, slash, file = name.rpartition("/")
    while "." in file:
        file = file.rpartition(".")[0]
        yield f"{folder}{slash}{file}"


def _kind(name: str) -> str:
    path = PurePosixPath(name)
    if name.endswith("/") or any(map(is_hidden, path.parts)):
        return "hidden"
    kind = ending(path.name)
    return f".{kind}" if kind else "without an ending"


def _counted(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return _ordered(Counter(map(_kind, names)))


def _ordered(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _beside(counts: tuple[tuple[str, int], ...]) -> str:
    count = sum(count for _, count in counts)
    files = "file beside the images is" if count == 1 else "files beside the images are"
    return f"{count:,} {files} not read ({_listed(counts)})"


def _listed(counts: tuple[tuple[str, int], ...]) -> str:
    listed = ", ".join(f"{count:,} {_shown(kind)}" for kind, count in counts[:_SHOWN])
    return listed + (", ..." if len(counts) > _SHOWN else "")


def _shown(name: str) -> str:
    """Return a name that any encoding can write."""
    return name.encode("utf-8", "backslashreplace").decode()
