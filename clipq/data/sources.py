"""Kinds of storage that probes come from: each opens them, and may look at them and fetch them.

A source is called with a location and returns a `Probe`. Three methods are optional: by `look` it
says what is there without an image being read, by `fetch` it brings here what is elsewhere, and by
`attribute` it says one attribute of every sample (else it is opened again, by that as the group).
`Source` makes one of functions; an object with methods of these names does as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from clipq.data.probe import Probe, clustered
from clipq.errors import ClipqError, ProbeError, SettingsError, did_you_mean
from clipq.registry import Registry
from clipq.settings import ROLES

__all__ = [
    "Attribute",
    "Fetch",
    "KeepingSource",
    "Look",
    "ProbeSource",
    "Progress",
    "Source",
    "fetch_probe",
    "look_at_probe",
    "open_probe",
    "probe_sources",
]


class ProbeSource(Protocol):
    """Opens probes of one kind of storage; the part after ``kind:`` is `location`."""

    def __call__(
        self, location: str, *, name: str, role: str, split: str, base_dir: Path, group: str
    ) -> Probe: ...


class Look(Protocol):
    """Says what is there, in moments: files are listed, images neither read nor decoded.

    Returns how many there are of what can be counted (``{"shards": 12, "classes": 100}``); empty
    where nothing can be said before the probe is opened.

    Raises:
        ProbeError: opening the probe would fail.
    """

    def __call__(
        self, location: str, *, name: str, role: str, split: str, base_dir: Path
    ) -> Mapping[str, int]: ...


class Fetch(Protocol):
    """Brings a split here and returns its folder; None where the location is on this machine.

    `progress` is called with (parts there, parts in all).

    Raises:
        ProbeError: it cannot be fetched.
    """

    def __call__(
        self, location: str, *, split: str, base_dir: Path, progress: Callable[[int, int], None]
    ) -> Path | None: ...


class Attribute(Protocol):
    """Returns an attribute of each sample (N,), in the order of `ids`.

    Raises:
        ProbeError: there is no such attribute, or a sample has no value.
    """

    def __call__(
        self,
        location: str,
        column: str,
        *,
        name: str,
        split: str,
        base_dir: Path,
        ids: Sequence[str],
    ) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A source made of functions; None for what it cannot do.

    >>> def first(location, *, name, role, split, base_dir, group):
    ...     return f"{location} as {role}"
    >>> Source(first)("scans", name="id", role="ood", split="test", base_dir=Path(), group="")
    'scans as ood'
    """

    open: ProbeSource
    look: Look | None = None
    fetch: Fetch | None = None
    attribute: Attribute | None = None

    def __call__(
        self, location: str, *, name: str, role: str, split: str, base_dir: Path, group: str
    ) -> Probe:
        """Open a probe."""
        return self.open(
            location, name=name, role=role, split=split, base_dir=base_dir, group=group
        )


Progress = Callable[[str, int, int], None]
"""Called with (what is done, so many of it, in all); 0 in all where nobody knows."""


@dataclass(frozen=True, slots=True)
class KeepingSource:
    """A source that keeps what it makes: it is told where, and whom to tell how far it is.

    Args:
        keeping: returns the source that keeps things in a folder.

    >>> kept = KeepingSource(lambda cache, progress: Source(lambda *_, **given: f"in {cache}"))
    >>> kept("scans", name="id", role="ood", split="test", base_dir=Path("here"), group="")
    'in here/.clipq/cache'
    """

    keeping: Callable[[Path, Progress], Source]

    def at(self, base_dir: Path, cache: Path | None, progress: Progress | None) -> Source:
        """Return the source that keeps things in `cache`; by default where settings have it."""
        return self.keeping(
            cache or base_dir / ".clipq" / "cache", progress or (lambda what, done, total: None)
        )

    def __call__(
        self, location: str, *, name: str, role: str, split: str, base_dir: Path, group: str
    ) -> Probe:
        """Open a probe."""
        return self.at(base_dir, None, None)(
            location, name=name, role=role, split=split, base_dir=base_dir, group=group
        )


probe_sources: Registry[ProbeSource] = Registry("probe source", group="clipq.probes")
"""Kinds of storage; a source text is ``kind:location``."""
probe_sources.register_lazy("folder", "clipq.data.folder_source:FOLDER")
probe_sources.register_lazy("huggingface", "clipq.data.huggingface_source:HUGGINGFACE")
probe_sources.register_lazy("imagelist", "clipq.data.image_list_source:IMAGE_LIST")
probe_sources.register_lazy("made", "clipq.data.made_source:MADE")
probe_sources.register_lazy("torchvision", "clipq.data.torchvision_source:TORCHVISION")
probe_sources.register_lazy("webdataset", "clipq.data.webdataset_source:WEBDATASET")


def open_probe(
    *,
    name: str,
    role: str,
    source: str,
    split: str,
    base_dir: Path,
    group: str = "",
    cluster: str = "",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Probe:
    """Open and verify a probe.

    Args:
        name: as in case ids.
        role: one of `clipq.settings.ROLES`.
        source: ``kind:location``, for example ``webdataset:fixtures/data/shapes``.
        split: which split of it.
        base_dir: folder that relative locations start from.
        group: attribute that divides samples into groups; "" for none.
        cluster: attribute that says which samples belong together; "" where they are independent.
        cache: folder in which a source may keep what it makes; by default ``.clipq/cache`` in
            `base_dir`.
        progress: told how far such a source is.

    Raises:
        SettingsError: the role is unknown, or the source is not of the form ``kind:location``.
        UnknownNameError: no source of that kind is registered.
        ProbeError: data are missing, damaged, empty or mislabelled.

    >>> probe = open_probe(name="digits", role="ood", source="webdataset:fixtures/data/digits",
    ...                    split="test", base_dir=Path())
    >>> len(probe), set(probe.labels.tolist())  # no class of the head
    (768, {-1})
    """
    if role not in ROLES:
        raise SettingsError(f"probe {name!r}: role {role!r}", hint=did_you_mean(role, ROLES))
    opened, location = _source(source, name, base_dir, cache, progress)
    open_by = partial(opened, location, name=name, role=role, split=split, base_dir=base_dir)
    probe = open_by(group=group)
    if not cluster:
        return probe
    attribute: Attribute | None = getattr(opened, "attribute", None)
    if attribute is not None:
        values = attribute(
            location, cluster, name=name, split=split, base_dir=base_dir, ids=probe.ids
        )
        return clustered(probe, cluster, values)
    return clustered(probe, cluster, open_by(group=cluster).groups)


def look_at_probe(
    *, name: str, role: str, source: str, split: str, base_dir: Path, cache: Path | None = None
) -> Mapping[str, int]:
    """Return what a probe's source sees without reading an image: counts by what is counted.

    Empty where the source cannot look, or sees nothing that it can count.

    Args:
        name: as in case ids.
        role: one of `clipq.settings.ROLES`.
        source: ``kind:location``.
        split: which split of it.
        base_dir: folder that relative locations start from.
        cache: as of `open_probe`.

    Raises:
        SettingsError: the source is not of the form ``kind:location``.
        UnknownNameError: no source of that kind is registered.
        ProbeError: opening the probe would fail, or the source's `look` itself failed.

    >>> look_at_probe(name="id", role="in-distribution", source="webdataset:fixtures/data/shapes",
    ...               split="test", base_dir=Path())
    {'shards': 2, 'classes': 16}
    """
    probe_source, location = _source(source, name, base_dir, cache)
    look: Look | None = getattr(probe_source, "look", None)
    if look is None:
        return {}
    try:
        return dict(look(location, name=name, role=role, split=split, base_dir=base_dir))
    except ClipqError:
        raise
    except Exception as error:  # the code of another package, on files of any kind
        raise ProbeError(
            f"probe {name!r}: looking at {source} failed: {error!r}",
            hint="check `source` and `split` in clipq.toml, and that its files can be read",
        ) from error


def fetch_probe(
    *,
    name: str,
    source: str,
    split: str,
    base_dir: Path,
    progress: Callable[[int, int], None],
    cache: Path | None = None,
) -> Path | None:
    """Bring a probe's files here; return their folder, or None where there is nothing to fetch.

    Args:
        name: as in case ids.
        source: ``kind:location``.
        split: which split of it.
        base_dir: folder below which downloads are kept.
        progress: called with (parts there, parts in all).
        cache: as of `open_probe`.

    Raises:
        SettingsError: the source is not of the form ``kind:location``.
        UnknownNameError: no source of that kind is registered.
        ProbeError: it cannot be fetched.

    >>> fetch_probe(name="id", source="webdataset:fixtures/data/shapes", split="test",
    ...             base_dir=Path(), progress=print) is None  # it is on this machine
    True
    """
    probe_source, location = _source(source, name, base_dir, cache)
    fetch: Fetch | None = getattr(probe_source, "fetch", None)
    if fetch is None:
        return None
    return fetch(location, split=split, base_dir=base_dir, progress=progress)


def _source(
    source: str,
    name: str,
    base_dir: Path,
    cache: Path | None,
    progress: Progress | None = None,
) -> tuple[ProbeSource, str]:
    kind, colon, location = source.partition(":")
    if not colon or not location:
        raise SettingsError(
            f"probe {name!r}: source {source!r} is not of the form kind:location",
            hint="for example 'webdataset:data/my-probe'; kinds: "
            f"{', '.join(probe_sources.names())}",
        )
    found = probe_sources.get(kind)
    if isinstance(found, KeepingSource):
        found = found.at(base_dir, cache, progress)
    return found, location
