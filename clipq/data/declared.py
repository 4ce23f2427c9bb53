"""From a `[[probes]]` table to a probe: opened, narrowed, corrupted, and fit for its role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from clipq.cluster_names import cluster_column
from clipq.data.class_order import names_by_place
from clipq.data.corruption import corrupted
from clipq.data.probe import CAPTIONED, Probe, hashed_order, taken
from clipq.data.shipped_lists import CLASS_LISTS, class_list, template_list, wordnet_names
from clipq.data.sources import Progress, open_probe
from clipq.data.unread_files import check_passed_over
from clipq.errors import ProbeError
from clipq.provenance import digest
from clipq.settings import ProbeSettings

__all__ = ["SMALLEST_GROUP", "open_declared", "unreadable_images", "without"]

SMALLEST_GROUP = 10
"""Members that a group needs: less say nothing about it."""
_GROUPED = ("groups", "spurious")
_OWN_READING = ("in-distribution", "ood", "proxy", "retrieval")
_BY_WORDNET = "imagenet1k-wnid"


def open_declared(
    declared: ProbeSettings,
    *,
    base_dir: Path,
    opened: dict[tuple[str, ...], Probe] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Probe:
    """Open and verify a probe as the settings declare it.

    Args:
        declared: the table.
        base_dir: folder that relative locations start from.
        opened: what was opened before: probes that differ in what becomes of the images share one
            reading of the data.
        cache: folder in which a source may keep what it makes; by default ``.clipq/cache`` in
            `base_dir`.
        progress: told how far such a source is.

    Raises:
        ClipqError: as of `open_probe`; too many files are not read; or its samples, groups or
            captions do not fit its role.

    >>> declared = ProbeSettings("digits", "ood", "webdataset:fixtures/data/digits", samples=100)
    >>> len(open_declared(declared, base_dir=Path()))
    100
    """
    known = {} if opened is None else opened
    probe = _source(declared, base_dir, known, cache, progress)
    check_passed_over(probe, most=declared.passed_over)
    if declared.classes:
        probe = _with_classes(probe, declared.classes, base_dir)
    if declared.templates:
        probe = replace(probe, templates=template_list(declared.templates, base_dir))
    if declared.samples:
        probe = _first(probe, declared.samples)
    if declared.corruption is not None:
        probe = corrupted(probe, declared.corruption)
    if declared.attack is not None:
        # What is evaluated is not the stored image, but what becomes of it.
        probe = replace(probe, fingerprint=digest([probe.fingerprint, asdict(declared.attack)]))
    _check_role(probe, declared)
    return probe


def _source(
    declared: ProbeSettings,
    base_dir: Path,
    opened: dict[tuple[str, ...], Probe],
    cache: Path | None,
    progress: Progress | None,
) -> Probe:
    # What a source returns depends on the role only in these.
    role = declared.role if declared.role in _OWN_READING else "labelled"
    key = (declared.source, declared.split, declared.group, declared.cluster, role)
    if key not in opened:
        opened[key] = open_probe(
            name=declared.name,
            role=declared.role,
            source=declared.source,
            split=declared.split,
            base_dir=base_dir,
            group=declared.group,
            cluster=declared.cluster,
            cache=cache,
            progress=progress,
        )
    return replace(opened[key], name=declared.name, role=declared.role)


def unreadable_images(
    probe: Probe, *, tell: Callable[[int, Image.Image], None] | None = None
) -> list[tuple[int, str]]:
    """Decode every image; return the positions of those that do not, and why.

    Args:
        probe: whose images.
        tell: called with the position of every image that does, and the image.

    >>> declared = ProbeSettings("digits", "ood", "webdataset:fixtures/data/digits", samples=8)
    >>> probe = open_declared(declared, base_dir=Path())
    >>> unreadable_images(probe)
    []
    """
    unreadable = []
    for position, encoded in enumerate(probe.read_encoded()):
        try:
            image = probe.decode(encoded, position)
            if tell is not None:
                tell(position, image)
        except ProbeError as error:
            unreadable.append((position, error.problem))
    return unreadable


def without(probe: Probe, unreadable: Sequence[tuple[int, str]], *, most: int) -> Probe:
    """Return the probe without images that do not decode.

    Raises:
        ProbeError: they are more than `most`.

    >>> declared = ProbeSettings("digits", "ood", "webdataset:fixtures/data/digits", samples=8)
    >>> probe = open_declared(declared, base_dir=Path())
    >>> len(without(probe, [(3, "it is truncated")], most=1))
    7
    """
    if len(unreadable) > most:
        raise ProbeError(
            f"probe {probe.name!r}: {len(unreadable)} of {len(probe)} images do not decode: "
            + "; ".join(reason for _, reason in unreadable[:3]),
            hint=f"replace them, or allow for them: unreadable = {len(unreadable)} in its table "
            f"(now {most})",
        )
    if not unreadable:
        return probe
    broken = {position for position, _ in unreadable}
    kept = taken(probe, [p for p in range(len(probe)) if p not in broken])
    if taken(probe, range(len(probe))).fingerprint == probe.fingerprint:
        return kept
    # A corruption or an attack is part of the fingerprint beside what the images are.
    return replace(kept, fingerprint=digest([probe.fingerprint, kept.fingerprint]))


def _with_classes(probe: Probe, wanted: str, base_dir: Path) -> Probe:
    names = wordnet_names()
    if wanted == _BY_WORDNET:
        for classname in probe.classnames:
            if classname not in names:
                raise ProbeError(
                    f"probe {probe.name!r}: class {classname!r} is none of ImageNet-1k's WordNet "
                    "ids",
                    hint=f"classes = {_BY_WORDNET!r} is for folders called like n01440764; "
                    "classes = 'imagenet1k' for folders called 0 to 999",
                )
        return replace(probe, classnames=tuple(names[classname] for classname in probe.classnames))
    classes = class_list(wanted, base_dir)
    named = names_by_place(
        probe.classnames,
        classes,
        probe=probe.name,
        listed=f"classes = {wanted!r}",
        shipped=wanted in CLASS_LISTS,
    )
    return replace(probe, classnames=named)


def _first(probe: Probe, count: int) -> Probe:
    """Return `count` samples: those whose ids' hashes are smallest, so always the same."""
    if count > len(probe):
        raise ProbeError(
            f"probe {probe.name!r} holds {len(probe)} samples, samples = {count}",
            hint=f"write at most {len(probe)}, or leave it out for all",
        )
    return taken(probe, sorted(hashed_order(probe)[:count]))


def _check_role(probe: Probe, declared: ProbeSettings) -> None:
    if probe.role in CAPTIONED and probe.captions is None:
        raise ProbeError(
            f"probe {probe.name!r}: no captions, which its role {probe.role!r} is about",
            hint="captions are read of shards (webdataset: <key>.txt, one caption a line) and of "
            "Hugging Face data sets (huggingface: a column 'caption' or 'text')",
        )
    if probe.role in _GROUPED and not declared.group:
        raise ProbeError(
            f"probe {probe.name!r}: no group, which its role {probe.role!r} is about",
            hint="name the attribute that divides its samples: group = '...'",
        )
    sizes = Counter(probe.groups)
    if probe.role == "spurious" and not {"common", "counter"} <= set(sizes):
        raise ProbeError(
            f"probe {probe.name!r}: groups {', '.join(sorted(sizes))}",
            hint="a spurious cue is judged between the groups 'common' and 'counter'; "
            "use role = 'groups' for any other division",
        )
    if any(probe.groups) and probe.role != "ood":
        smallest, members = min(sizes.items(), key=lambda item: (item[1], item[0]))
        if members < SMALLEST_GROUP:
            raise ProbeError(
                f"probe {probe.name!r}: group {smallest!r} has {members} member"
                + ("s" if members > 1 else ""),
                hint=f"a group needs {SMALLEST_GROUP}: join it with another, or leave it out",
            )
        _check_clusters(probe)


def _check_clusters(probe: Probe) -> None:
    """Refuse a group whose samples come from too few clusters to say anything about it."""
    column = cluster_column(probe.clusters)
    if not column or probe.clusters is None:
        return
    held: dict[str, set[str]] = {}
    for group, cluster in zip(probe.groups, probe.clusters, strict=True):
        held.setdefault(group, set()).add(cluster)
    smallest, clusters = min(held.items(), key=lambda item: (len(item[1]), item[0]))
    if len(clusters) < SMALLEST_GROUP:
        members = probe.groups.count(smallest)
        raise ProbeError(
            f"probe {probe.name!r}: the {members} members of group {smallest!r} are of "
            f"{len(clusters)} {column!r}",
            hint=f"a group needs {SMALLEST_GROUP} clusters, for samples of one err together: join "
            "it with another, or leave it out",
        )
