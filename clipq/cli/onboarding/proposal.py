"""From what was found to what clipq.toml should say, with a reason for each choice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath

from clipq.cli.onboarding.code import CodeFindings, read_code
from clipq.cli.onboarding.data import SPLITS, DataFindings, DataSet, find_data
from clipq.cli.onboarding.local_models import ModelFindings, find_models
from clipq.cli.onboarding.walk import Limits, Walk, walk
from clipq.quant import quantizers

__all__ = ["Findings", "Model", "ProbeProposal", "Proposal", "look", "propose"]

_QUANTIZERS = ("rtn:w8", "rtn:w8a8", "rtn:w4g32")
_SMALLEST_GROUP = 10
_CUES = {"common", "counter"}


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything a repository holds that clipq could use."""

    walk: Walk
    code: CodeFindings
    data: DataFindings
    models: ModelFindings
    installed: tuple[str, ...] = ()  # quantizers of other packages, by entry points


@dataclass(frozen=True, slots=True)
class Model:
    """A `[[models]]` table and where it was found."""

    name: str
    source: str
    found: str


@dataclass(frozen=True, slots=True)
class ProbeProposal:
    """A `[[probes]]` table.

    Args:
        why: of the role and split, for a comment.
        group: attribute that the role is about; "" for none.
        groups: attributes that could divide the samples, for a comment.
        decided: whether the table is to be written as it is, or commented out.
        extra: further lines of the table, as comments.
    """

    name: str
    role: str
    source: str
    split: str
    why: str
    group: str = ""
    groups: tuple[str, ...] = ()
    decided: bool = True
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to write, and what is missing for it to work."""

    models: tuple[Model, ...]
    probes: tuple[ProbeProposal, ...]
    quantizers: tuple[str, ...]
    plugins: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def usable(self) -> bool:
        """Whether a model or data were found at all."""
        return bool(self.models or self.probes)


def look(root: Path, limits: Limits | None = None) -> Findings:
    """Look through a repository; nothing of it is imported or run."""
    walked = walk(root, limits)
    others = tuple(sorted(point.name for point in entry_points(group=quantizers.group)))
    return Findings(walked, read_code(walked), find_data(walked), find_models(walked), others)


def propose(found: Findings) -> Proposal:
    """Return the settings that fit what was found."""
    notes = [*found.models.notes, *found.data.notes]
    models = _models(found, notes)
    data = [entry for entry in found.data.found if _speakable(entry, notes)]
    probes = _probes(data)
    own = {
        name: module
        for name, module in found.code.quantizers.items()
        if name not in quantizers.names()
    }
    missing = []
    if not models:
        missing.append(
            "a model: no folder with open_clip_config.json and weights, and no code "
            "that names an open_clip model"
        )
        notes += found.code.notes
    roles = {probe.role for probe in probes}
    if "in-distribution" not in roles:
        missing.append(
            "labelled images: no shards in CLIP_benchmark's layout, class folders or image lists "
            "with classnames.txt"
        )
    if "calibration" not in roles:
        missing.append(
            "a calibration split: a second split of the in-distribution data, disjoint from the "
            "first (a few hundred images suffice)"
        )
    if found.walk.stopped:
        notes.append(
            f"the search stopped {found.walk.stopped}; run init in a smaller folder, or "
            "add by hand what it did not see"
        )
    if found.walk.unreadable:
        count = len(found.walk.unreadable)
        notes.append(f"{count} folders could not be read, first {found.walk.unreadable[0]}")
    return Proposal(
        models=models,
        probes=tuple(probes),
        quantizers=(*_QUANTIZERS, *sorted({*own, *found.installed})),
        plugins=tuple(sorted(set(own.values()))),
        missing=tuple(missing),
        notes=tuple(dict.fromkeys(notes)),
    )


# -- models -------------------------------------------------------------------------------------


def _models(findings: Findings, notes: list[str]) -> tuple[Model, ...]:
    names: set[str] = set()
    models = []
    for folder in findings.models.folders:
        if not _encodable(folder):
            notes.append(f"{folder!a} is not UTF-8: rename it to use the model in it")
            continue
        name = _unique(PurePosixPath(folder).name or findings.walk.root.name, "model", names)
        models.append(Model(name, f"local-dir:{folder}", "a folder with open_clip_config.json"))
    for source, where in sorted(findings.code.models.items()):
        hub = source.startswith("hf-hub:")
        name = _unique(source.rpartition("/")[2 if hub else 0], "model", names)
        models.append(Model(name, source, f"named in {where}"))
    return tuple(models)


# -- probes -------------------------------------------------------------------------------------


def _probes(data: Sequence[DataSet]) -> list[ProbeProposal]:
    chosen = min(
        (d for d in data if d.labels and d.classes),
        key=_fitness,
        default=None,
    )
    names = {"id", "calibration"}
    probes: list[ProbeProposal] = []
    if chosen is not None:
        probes += _head(chosen)
    for entry in data:
        if entry is not chosen:
            probes.append(_other(entry, chosen, names))
    return probes


def _fitness(data: DataSet) -> tuple[int, int, int, str]:
    """Return how well a data set serves as the in-distribution one; the least is best."""
    test, calibration = _split_pair(data)
    order = ("calibration", "train", "validation", "test", "")
    which = order.index(_purpose(calibration)) if calibration else len(order)
    return (which, 0 if _purpose(test) == "test" else 1, len(data.root.parts), str(data.root))


def _split_pair(data: DataSet) -> tuple[str, str]:
    """Return the splits to evaluate and to calibrate on; "" where there is no second one."""
    ranked = sorted(data.splits, key=lambda s: (_rank(s, ("test", "validation", "")), s))
    test = ranked[0]
    rest = sorted(
        (split for split in data.splits if split != test and _purpose(split)),
        key=lambda s: (_rank(s, ("calibration", "train", "validation", "test")), s),
    )
    return test, rest[0] if rest else ""


def _rank(split: str, order: tuple[str, ...]) -> int:
    purpose = _purpose(split)
    return order.index(purpose) if purpose in order else len(order)


def _purpose(split: str) -> str:
    """Return what a split's name says it is for: a key of `SPLITS`, or ""."""
    words = re.split(r"[^a-z]+", PurePosixPath(split).name.lower())
    return next((key for key, names in SPLITS.items() if set(words) & set(names)), "")


def _head(data: DataSet) -> list[ProbeProposal]:
    """Return the in-distribution probe and, where there is a second split, the calibration one."""
    test, calibration = _split_pair(data)
    others = [split for split in data.splits if split not in (test, calibration)]
    unused = f"; not used: {', '.join(others)}" if others else ""
    count = f"{len(data.classes):,} classes"
    probes = [
        ProbeProposal(
            "id",
            "in-distribution",
            data.source,
            test,
            f"{count}, and {_reason(data, test, calibration)}{unused}.",
            groups=tuple(data.attributes),
        )
    ]
    if calibration:
        large = _purpose(calibration) == "train"
        probes.append(
            ProbeProposal(
                "calibration",
                "calibration",
                data.source,
                calibration,
                f"the split {calibration!r} of the same data; it must share no image with any "
                "probe, and the model should not have been fine-tuned on it.",
                extra=("samples = 2048   # so many are enough, where the split is large",)
                if large
                else (),
            )
        )
    return probes


def _reason(data: DataSet, test: str, calibration: str) -> str:
    if not calibration:
        return "the only labelled data with classes and a split to evaluate"
    return f"splits to evaluate ({test!r}) and to calibrate on ({calibration!r})"


def _other(data: DataSet, head: DataSet | None, names: set[str]) -> ProbeProposal:
    """Return the role that a further data set seems to have."""
    split = _split_pair(data)[0]
    word = PurePosixPath(split).stem if data.kind == "imagelist" else data.root.name
    base = ProbeProposal(
        _unique(word, "probe", names), "", data.source, split, "", groups=tuple(data.attributes)
    )
    if data.captions and not data.labels:
        return replace(base, role="retrieval", why="its images have captions and no classes.")
    if head is None:
        return replace(
            base, role="ood", why="no in-distribution data to compare with.", decided=False
        )
    own, known = set(data.classes), set(head.classes)
    cue = next((name for name, counts in data.attributes.items() if _is_cue(counts)), "")
    if not own:
        return replace(
            base, role="ood", why="no classes are listed; out of distribution?", decided=False
        )
    if own <= known:
        if cue:
            why = f"the attribute {cue!r} says where a cue misleads (common, counter)."
            return replace(base, role="spurious", group=cue, why=why)
        why = "its classes are among those of 'id'; \"groups\" if its images are of the same kind."
        return replace(base, role="shift", why=why)
    if not own & known:
        why = "none of its classes is among those of 'id'."
        return replace(base, role="ood", why=why, extra=('distance = "far"   # or "near"',))
    why = f"{len(own & known)} of its {len(own)} classes are among those of 'id': shift, or ood?"
    return replace(base, role="shift", why=why, decided=False)


def _is_cue(counts: Mapping[str, int]) -> bool:
    return set(counts) == _CUES and min(counts.values()) >= _SMALLEST_GROUP


# -- names --------------------------------------------------------------------------------------


def _unique(text: str, otherwise: str, taken: set[str]) -> str:
    """Return a name of letters, digits, '_' and '-' that is not taken, and take it."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:40] or otherwise
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    taken.add(name)
    return name


def _speakable(data: DataSet, notes: list[str]) -> bool:
    if all(map(_encodable, (str(data.root), *data.splits))):
        return True
    notes.append(f"{str(data.root)!a} is not UTF-8: rename it to use the data in it")
    return False


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
