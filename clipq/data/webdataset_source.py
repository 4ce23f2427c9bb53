"""WebDataset shards in the layout that CLIP_benchmark reads: in a folder, or fetched from a URL.

    <root>/classnames.txt                        one class a line
    <root>/zeroshot_classification_templates.txt one template a line, {c} for the class
    <root>/<split>/nshards.txt                   number of shards
    <root>/<split>/<i>.tar                       <key>.<an ending of `clipq.data.image_names`>,
                                                 <key>.cls and, optionally, <key>.json (attributes),
                                                 <key>.txt (captions, one a line)
    <root>/attributes.csv                        optional, instead of <key>.json: a column `file`
                                                 (the key) and one column per attribute
    <root>/classmap.csv                          optional: see `clipq.data.class_map`

Of probes that are about images and captions there may be no nshards.txt: `split_shards`.

Members that share a key are no sample where none is an image or `<key>.cls` (of captions alone,
`<key>.txt`): a `README.md` or an `index.json` is passed over.

Where a `SHA256SUMS` file (as `sha256sum` writes it) in <root> or its parent speaks of <root>, every
file read must be listed there and match.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipq.data.attributes import ATTRIBUTES, read_attribute
from clipq.data.class_map import classes_seen, read_class_map, within_the_head
from clipq.data.fetch import download_folder, fetch_shards, is_url
from clipq.data.image_signatures import HEAD_BYTES
from clipq.data.probe import CAPTIONED, Probe, fingerprint
from clipq.data.reading import (
    CLASSES,
    TEMPLATES,
    check_captions,
    check_classes,
    check_ids,
    read_lines,
)
from clipq.data.shard_names import split_shards
from clipq.data.shard_samples import image_of, is_sample, kinds_beside, label_of, text_of
from clipq.data.shards import Shard, find_checksums, open_shard
from clipq.data.sources import Source
from clipq.data.unread_files import PassedOver
from clipq.errors import ProbeError, listed
from clipq.shapes import Document, shown

__all__ = ["WEBDATASET"]


def _open(location: str, *, name: str, role: str, split: str, base_dir: Path, group: str) -> Probe:
    """Open a probe from shards; see `clipq.data.open_probe`."""
    root = _root(location, name, split, base_dir)
    checksums = find_checksums(root)
    labelled = role not in CAPTIONED  # images and captions need no classes
    classnames = read_lines(root / CLASSES, checksums) if labelled else ()
    templates = read_lines(root / TEMPLATES, checksums) if labelled else ()
    paths = split_shards(root, split, name, checksums, labelled=labelled)
    shards = [open_shard(path, checksums) for path in paths]
    class_map = read_class_map(root, classnames, name, checksums) if labelled else None
    left_out = {label for label, heads in enumerate(class_map or ()) if role != "ood" and not heads}
    from_table = bool(group) and (root / ATTRIBUTES).is_file()
    ids: list[str] = []
    labels: list[int] = []
    hashes: list[str] = []
    groups: list[str] = []
    captions: list[str | None] = []
    origins: list[Shard] = []
    beside: list[str] = []
    apart: list[str] = []
    unread = {
        f"{shard.path.name}/{member}": head
        for shard in shards
        for member, head in shard.unread.items()
    }
    for shard in shards:
        for sample in shard.samples():
            if not is_sample(sample, labelled=labelled):
                apart.append(sample["__key__"])
                unread |= _heads(sample, shard)
                continue
            where = _where(name, sample, shard)
            ids.append(sample["__key__"])
            origins.append(shard)
            beside += kinds_beside(sample)
            hashes.append(hashlib.sha256(image_of(sample, where)).hexdigest())
            labels.append(label_of(sample, len(classnames), where) if labelled else -1)
            in_json = group and not from_table and labels[-1] not in left_out
            groups.append(_group(sample, group, where) if in_json else "")
            captions.append(text_of(sample, "txt", where) if "txt" in sample else None)
    folder = root / split
    known = frozenset(ids)
    check_ids(name, folder, [*ids, *(key for key in apart if key in known)], paths=True)
    if role == "in-distribution":
        check_classes(name, folder, classnames, labels)
    if from_table:
        kept = [at for at, label in enumerate(labels) if label not in left_out]
        values = read_attribute(root, [ids[at] for at in kept], group, name, checksums)
        for at, value in zip(kept, values, strict=True):
            groups[at] = value
    label_array = np.array(labels, dtype=np.int64)
    if role == "ood":
        label_array[:] = -1  # their classes are not among those of the zero-shot head
    probe = Probe(
        name=name,
        role=role,
        classnames=classnames,
        templates=templates,
        ids=tuple(ids),
        labels=label_array,
        groups=tuple(groups),
        captions=_captions(captions, name, folder, ids, role),
        sample_hashes=tuple(hashes),
        fingerprint=fingerprint(tuple(ids), tuple(hashes), label_array, tuple(groups)),
        read_encoded=lambda: _encoded(shards, name, known, hashes),
        locate=lambda position: str(origins[position]),
        class_map=class_map,
        passed_over=PassedOver.of(unread, ids, head=unread.__getitem__).with_beside(beside),
    )
    return within_the_head(probe) if role != "ood" else probe


def _look(location: str, *, name: str, role: str, split: str, base_dir: Path) -> dict[str, int]:
    """Count shards and classes; see `clipq.data.sources.Look`."""
    root = _root(location, name, split, base_dir)
    checksums = find_checksums(root)
    labelled = role not in CAPTIONED
    shards = split_shards(root, split, name, checksums, labelled=labelled)
    absent = [path for path in shards if not path.is_file()]
    if absent:
        raise ProbeError(
            f"probe {name!r}: no shard {absent[0]}"
            + (f", nor {len(absent) - 1} others" if absent[1:] else ""),
            hint="restore the shard, or correct nshards.txt",
        )
    counts = {"shards": len(shards)}
    if labelled:
        classnames = read_lines(root / CLASSES, checksums)
        class_map = read_class_map(root, classnames, name, checksums) if role != "ood" else None
        counts |= classes_seen(class_map, classnames)
        read_lines(root / TEMPLATES, checksums)
    return counts


def _fetch(
    location: str, *, split: str, base_dir: Path, progress: Callable[[int, int], None]
) -> Path | None:
    """Download the shards of a URL; see `clipq.data.sources.Fetch`."""
    if not is_url(location):
        return None
    return fetch_shards(location, split, base_dir, progress=progress)


def _attribute(
    location: str, column: str, *, name: str, split: str, base_dir: Path, ids: Sequence[str]
) -> tuple[str, ...]:
    root = _root(location, name, split, base_dir)
    checksums = find_checksums(root)
    if (root / ATTRIBUTES).is_file():
        return read_attribute(root, ids, column, name, checksums)
    # Of samples that a class map leaves out, nothing is asked.
    wanted = set(ids)
    paths = split_shards(root, split, name, checksums, labelled=False)
    shards = [open_shard(path, checksums) for path in paths]
    values = {
        sample["__key__"]: _group(sample, column, _where(name, sample, shard))
        for shard in shards
        for sample in shard.samples()
        if sample["__key__"] in wanted
    }
    return tuple(values[key] for key in ids)


WEBDATASET = Source(_open, _look, _fetch, _attribute)
"""The source ``webdataset:LOCATION``."""


def _root(location: str, name: str, split: str, base_dir: Path) -> Path:
    """Return the folder of a location, which is there."""
    root = download_folder(location, base_dir) if is_url(location) else base_dir / location
    if is_url(location) and not (root / split / "nshards.txt").is_file():
        raise ProbeError(
            f"probe {name!r}: {location} is not on this machine, and nothing is downloaded unasked",
            hint=f"clipq probe fetch {name}",
        )
    if not root.is_dir():
        raise ProbeError(f"probe {name!r}: no folder {root}", hint="check `source` in clipq.toml")
    return root


def _heads(sample: dict[str, Any], shard: Shard) -> dict[str, bytes]:
    """Return the first bytes of members that share a key, by their names."""
    name = f"{shard.path.name}/{sample['__key__']}"
    kinds = [kind for kind in sample if not kind.startswith("__")]
    return {f"{name}.{kind}": sample[kind][:HEAD_BYTES] for kind in kinds}


def _encoded(
    shards: list[Shard], name: str, ids: Collection[str], hashes: list[str]
) -> Iterator[bytes]:
    samples = ((shard, sample) for shard in shards for sample in shard.samples())
    expected = iter(hashes)
    for shard, sample in samples:
        if sample["__key__"] not in ids:
            continue
        where = _where(name, sample, shard)
        encoded = image_of(sample, where)
        if hashlib.sha256(encoded).hexdigest() != next(expected, None):
            raise ProbeError(
                f"{where}: the image changed since the probe was opened",
                hint="do not write to shards during a run; run again",
            )
        yield encoded


def _where(name: str, sample: dict[str, Any], shard: Shard) -> str:
    return f"probe {name!r}, sample {sample['__key__']!r} of {shard}"


def _group(sample: dict[str, Any], group: str, where: str) -> str:
    fix = f"<key>.json must hold the attribute {group!r}, a text or whole number"
    document = Document(where, "JSON", ProbeError, fix)
    value = document.read(dict[str, Any], sample.get("json", b"{}")).get(group)
    if not isinstance(value, str | int) or not str(value).strip():
        raise document.fail("", f"no attribute {group!r} ({shown(value)})", "")
    return str(value).strip()


def _captions(
    captions: list[str | None], name: str, folder: Path, ids: list[str], role: str
) -> tuple[str, ...] | None:
    present = [caption for caption in captions if caption is not None]
    if present and len(present) != len(captions):
        silent = [key for key, caption in zip(ids, captions, strict=True) if caption is None]
        raise ProbeError(
            f"probe {name!r}: {len(present)} of {len(captions)} samples in {folder} have a "
            f"caption, and not {listed(silent)}",
            hint="give every sample a <key>.txt, or none",
        )
    if present and role in CAPTIONED:
        return check_captions(name, folder, present, ids)
    return tuple(present) or None
